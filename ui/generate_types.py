"""Write ``ui/src/wire.gen.ts`` from ``router/wire.py``; with ``--check`` only say whether it is fresh.

Run from anywhere with the project's Python: ``python ui/generate_types.py [--check]``.
"""

from __future__ import annotations

import argparse
import enum
import inspect
import json
import sys
from pathlib import Path

import msgspec
from msgspec import inspect as mi

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "ui" / "src" / "wire.gen.ts"
HEAD = "// Generated from router/wire.py by ui/generate_types.py. Do not edit.\n"


def structs() -> list[type[msgspec.Struct]]:
    """The structs of ``router.wire`` and its parts in the order of the source, without their base."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from router import wire, wire_care, wire_peers, wire_receipt

    return [
        member
        for module in (wire, wire_care, wire_peers, wire_receipt)
        for member in vars(module).values()
        if inspect.isclass(member)
        and issubclass(member, msgspec.Struct)
        and member.__module__ == module.__name__
        and member.__struct_fields__
    ]


def render() -> str:
    """The whole text of the generated file."""
    found = structs()
    enums: dict[str, type[enum.Enum]] = {}
    bodies = [_interface(struct, enums) for struct in found]
    unions = [
        f"export type {name} = {' | '.join(json.dumps(member.value) for member in kind)};\n"
        for name, kind in sorted(enums.items())
    ]
    return "\n".join([HEAD, *unions, *bodies])


def _interface(struct: type[msgspec.Struct], enums: dict[str, type[enum.Enum]]) -> str:
    info = mi.type_info(struct)
    if not isinstance(info, mi.StructType):
        raise TypeError(f"{struct.__name__} is not a struct")
    optional = _absent(struct, info)
    lines = [_comment(inspect.getdoc(struct) or ""), f"export interface {struct.__name__} {{"]
    lines += [
        f"  {field.encode_name}{'?' if field.encode_name in optional else ''}: {_type(field.type, enums)};"
        for field in info.fields
    ]
    return "\n".join([*lines, "}\n"])


def _absent(struct: type[msgspec.Struct], info: mi.StructType) -> frozenset[str]:
    """Fields that may be left out: those with a default in what the page sends, and the parts of a change."""
    sent = (inspect.getdoc(struct) or "").startswith(("``POST ", "``PATCH "))
    if not sent and struct.__name__ != "Change":
        return frozenset()
    return frozenset(field.encode_name for field in info.fields if not field.required)


def _comment(doc: str) -> str:
    lines = doc.replace("*/", "* /").splitlines()
    if len(lines) == 1:
        return f"/** {lines[0]} */"
    return "\n".join(["/**", *(f" * {line}".rstrip() for line in lines), " */"])


def _type(kind: mi.Type, enums: dict[str, type[enum.Enum]]) -> str:
    match kind:
        case mi.StrType():
            return "string"
        case mi.IntType() | mi.FloatType():
            return "number"
        case mi.BoolType():
            return "boolean"
        case mi.NoneType():
            return "null"
        case mi.AnyType():
            return "unknown"
        case mi.ListType(item_type=item):
            inner = _type(item, enums)
            return f"({inner})[]" if " | " in inner else f"{inner}[]"
        case mi.DictType(key_type=key, value_type=value):
            return f"Record<{_type(key, enums)}, {_type(value, enums)}>"
        case mi.UnionType(types=kinds):
            return " | ".join(dict.fromkeys(_type(member, enums) for member in kinds))
        case mi.EnumType(cls=cls):
            enums[cls.__name__] = cls
            return cls.__name__
        case mi.LiteralType(values=values):
            return " | ".join(json.dumps(value) for value in values)
        case mi.StructType(cls=cls):
            return cls.__name__
        case _:
            raise TypeError(f"no TypeScript form for {kind!r}: add one to ui/generate_types.py")


def main(argv: list[str] | None = None) -> int:
    """Write the file, or compare it. Exit code 0: written or fresh; 1: stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is stale")
    parser.add_argument("--target", type=Path, default=TARGET, help="another file than ui/src/wire.gen.ts")
    options = parser.parse_args(argv)
    text = render()
    target: Path = options.target
    if not options.check:
        target.write_text(text, encoding="utf-8", newline="\n")
        return 0
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{target} is stale: run 'python ui/generate_types.py'\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
