"""The end of a batch: its lines' results become an output file and an error file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from router.batch_lines import not_run, tokens
from router.batch_rows import BatchRow, BatchRows
from router.files import KEPT_S, Draft, FileRow, Files


async def finish(rows: BatchRows, files: Files, row: BatchRow, now: float) -> BatchRow:
    """Write the files and save ``row`` as ended; in one commit, so that a crash repeats all of it or nothing.

    Returns the row as saved. Raises StoreError.
    """
    row = msgspec.structs.replace(row)
    output, errors = files.draft(), files.draft()
    written: list[FileRow] = []
    try:
        await _completed(rows, row, output)
        await _others(rows, row, errors)
        for draft, field in ((output, "output_file"), (errors, "error_file")):
            if draft.size:
                written.append(await _placed(files, draft, row, field))
                setattr(row, field, written[-1].id)
        if row.cancelling_at is not None:
            row.status, row.cancelled_at = "cancelled", now
        else:
            row.status, row.completed_at = "completed", now
        await rows.save(row, written)
    except BaseException:
        for file in written:
            await files.unplace(file)
        raise
    finally:
        await output.discard()
        await errors.discard()
    return row


async def _placed(files: Files, draft: Draft, row: BatchRow, field: str) -> FileRow:
    return await files.place(
        draft,
        filename=f"{row.id}_{field.removesuffix('_file')}.jsonl",
        purpose="batch_output",
        key_id=row.key_id,
        keep_s=row.keep_output_s or KEPT_S,
    )


async def _completed(rows: BatchRows, row: BatchRow, draft: Draft) -> None:
    """What was answered, and the tokens of it."""
    row.input_tokens = row.cached_tokens = row.output_tokens = 0
    after = 0
    while results := await rows.results(row.row_id, "completed", after):
        after = results[-1][0]
        asked, cached, made = await asyncio.to_thread(_sum, [result for _, result in results])
        row.input_tokens += asked
        row.cached_tokens += cached
        row.output_tokens += made
        for _, result in results:
            await draft.write(result)


def _sum(results: Sequence[bytes]) -> tuple[int, int, int]:
    counts = [tokens(result) for result in results]
    return sum(c[0] for c in counts), sum(c[1] for c in counts), sum(c[2] for c in counts)


async def _others(rows: BatchRows, row: BatchRow, draft: Draft) -> None:
    """What failed, and what was never run to its end."""
    after = 0
    while results := await rows.results(row.row_id, "failed", after):
        after = results[-1][0]
        for _, result in results:
            await draft.write(result)
    after = 0
    while lines := await rows.lines(row.row_id, ("waiting", "running"), after):
        after = lines[-1].number
        for line in lines:
            await draft.write(not_run(row.id, line))
