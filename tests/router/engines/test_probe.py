"""Engines are found where they usually listen, vanish when they are gone, and are never our own socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web

from router.engines.probe import EngineFinder, FoundEngine, parse_address
from router.engines.transport import Transport
from tests.router.engines.fakes import FakeClock, FakeOllama, serving


class Watcher:
    """A finder with what it told."""

    def __init__(self, transport: Transport, clock: FakeClock, settings: Mapping[str, Any]) -> None:
        self.own: frozenset[tuple[str, int]] = frozenset()
        self.here: dict[str, FoundEngine] = {}
        self.gone: list[str] = []
        self.finder = EngineFinder(
            settings, transport, clock, own=lambda: self.own, appeared=self._appeared, vanished=self._vanished
        )

    def _appeared(self, engine: FoundEngine) -> None:
        self.here[engine.id] = engine

    def _vanished(self, engine_id: str) -> None:
        del self.here[engine_id]
        self.gone.append(engine_id)

    @property
    def kinds(self) -> list[str]:
        return sorted(engine.kind for engine in self.here.values())


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Replace the usual ports by those of the test's servers."""

    def use(*addresses: str) -> None:
        ports = {int(address.rpartition(":")[2]): "test" for address in addresses}
        monkeypatch.setattr("router.engines.probe.USUAL_PORTS", ports)

    return use


async def test_engines_at_the_usual_ports_appear(transport: Transport, clock: FakeClock, usual: Any) -> None:
    models = {"/v1/models": {"object": "list", "data": []}}
    async with serving(FakeOllama().routes()) as ollama, serving(models) as other, serving({"/": "a page"}) as site:
        usual(ollama, other, site)
        watcher = Watcher(transport, clock, {"engines": ""})
        await watcher.finder.look()
        await watcher.finder.look()
    assert watcher.kinds == ["ollama", "openai"]


async def test_an_engine_gone_for_two_looks_vanishes_and_comes_back(
    transport: Transport, clock: FakeClock, usual: Any
) -> None:
    models = {"/v1/models": {"object": "list", "data": []}}
    watcher = Watcher(transport, clock, {"engines": ""})
    async with serving(models) as address:
        usual(address)
        await watcher.finder.look()
        assert watcher.kinds == ["openai"]
    await watcher.finder.look()
    assert watcher.kinds == ["openai"]
    await watcher.finder.look()
    assert watcher.kinds == []
    async with serving(models, port=int(address.rpartition(":")[2])):
        await watcher.finder.look()
    assert watcher.kinds == ["openai"]


async def test_an_own_socket_is_never_asked(transport: Transport, clock: FakeClock, usual: Any) -> None:
    asked: list[str] = []

    async def note(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({"data": []})

    async with serving({"/{any:.*}": note}) as address:
        port = int(address.rpartition(":")[2])
        usual(address)
        for settings in ({"engines": ""}, {"engines": f"http://localhost:{port}/v1"}):
            watcher = Watcher(transport, clock, settings)
            watcher.own = frozenset({("::1", port)})
            await watcher.finder.look()
            assert watcher.here == {}
    assert asked == []


async def test_named_engines_replace_the_usual_ports_and_stay_while_away(
    transport: Transport, clock: FakeClock, usual: Any
) -> None:
    models = {"/v1/models": {"object": "list", "data": []}}
    settings = {"engines": "secret@http://127.0.0.1:1/v1"}
    async with serving(models) as address:
        usual(address)
        watcher = Watcher(transport, clock, settings)
        for _ in range(3):
            await watcher.finder.look()
        assert [engine.url for engine in watcher.here.values()] == ["http://127.0.0.1:1/v1"]
        settings["engines"] = ""
        await watcher.finder.look()
    assert [engine.url for engine in watcher.here.values()] == [f"{address}/v1"]


async def test_a_named_engine_turns_out_to_be_ollama(transport: Transport, clock: FakeClock) -> None:
    async with serving({"/": "starting"}) as address:
        port = int(address.rpartition(":")[2])
        watcher = Watcher(transport, clock, {"engines": f"127.0.0.1:{port}"})
        await watcher.finder.look()
        assert watcher.kinds == ["openai"]
    async with serving(FakeOllama().routes(), port=port):
        await watcher.finder.look()
    assert watcher.kinds == ["ollama"]


async def test_a_key_is_sent_only_to_the_address_it_was_given_for(transport: Transport, clock: FakeClock) -> None:
    async def models(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        return web.json_response({"data": []})

    async with serving({"/v1/models": models}) as address:
        watcher = Watcher(transport, clock, {"engines": f"secret@{address}"})
        await watcher.finder.look()
        (engine,) = watcher.here.values()
        assert (await engine.poll()).ready


@pytest.mark.parametrize(
    ("text", "url", "key"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1", ""),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", ""),
        ("k@y@https://box:1/v1/", "https://box:1/v1", "k@y"),
    ],
)
def test_addresses_of_the_settings(text: str, url: str, key: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert (str(address.url), address.key) == (url, key)


@pytest.mark.parametrize("text", ["ftp://box", "http://", "http://box:99999", ":", "http://[::1", "file:///etc/passwd"])
def test_what_is_no_address_is_left_out_without_its_key_in_the_log(text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert parse_address(f"secret@{text}") is None
    assert "secret" not in caplog.text
