"""What this node knows of its engines: who holds what, under which name, and what a lease counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from router.engines.base import EngineModel, EngineSnapshot, Kind
from router.errors import ModelNotFoundError
from router.health import Failure
from router.placement import Word
from router.registry import UNKNOWN_MAX, Registry
from router.states import NodeMode
from tests.fakes import MemoryEngine
from tests.fakes_peer import MemoryPeer

GIB = 2**30
DIGEST = "ab" * 32


def registry(*engines: MemoryEngine) -> Registry:
    made = Registry("here", lambda: "studio")
    for engine in engines:
        made.add(engine)
        made.update(engine.id, engine.look())
    return made


def engine(engine_id: str, **digests: str) -> MemoryEngine:
    """An engine with models by name; a digest of "" is one it does not tell."""
    made = MemoryEngine(engine_id, digests)
    made.digests = {name: digest for name, digest in digests.items() if digest}
    return made


def found(made: Registry, name: str) -> list[tuple[str, str]]:
    return [(holder.engine, holder.model) for holder in made.find(name)]


# -- names and digests


@pytest.mark.parametrize("asked", ["Qwen3", "qwen3", "QWEN3:latest", "qwen3:latest", "qwen3@e"])
def test_names_compare_without_case_and_latest_is_what_no_tag_means(asked: str) -> None:
    assert found(registry(engine("e", Qwen3="d1")), asked) == [("e", "Qwen3")]


def test_the_same_weights_are_the_same_model_whatever_they_are_called() -> None:
    made = registry(engine("e", llama="d1"), engine("f", Meta_Llama="d1"), engine("g", other="d2"))
    assert found(made, "llama") == [("e", "llama"), ("f", "Meta_Llama")]
    assert found(made, "meta_llama") == [("e", "llama"), ("f", "Meta_Llama")]


def test_different_weights_of_one_name_are_told_apart_by_their_engine() -> None:
    made = registry(engine("e", llama="d1"), engine("f", llama="d2"))
    assert [info.name for info in made.model_infos()] == ["llama", "llama@f"]
    assert found(made, "llama") == [("e", "llama")]
    assert found(made, "llama@f") == [("f", "llama")]
    assert found(made, "LLAMA@e") == [("e", "llama")]


def test_an_engine_that_tells_no_digest_is_found_by_name() -> None:
    made = registry(engine("e", llama="d1"), engine("f", llama=""))
    assert found(made, "llama") == [("e", "llama"), ("f", "llama")]
    assert [holder.digest for holder in made.find("llama")] == ["d1", None]
    assert found(registry(engine("f", llama=""), engine("g", llama="")), "llama") == [("f", "llama"), ("g", "llama")]


def test_an_unknown_name_is_refused_with_those_that_look_alike_or_some_there_are() -> None:
    made = registry(MemoryEngine(models=("llama3.2:1b", "qwen3:4b", "gemma3")))
    for asked, near in (("lama3.2:1b", ("llama3.2:1b",)), ("zzz", ("gemma3", "llama3.2:1b", "qwen3:4b"))):
        with pytest.raises(ModelNotFoundError) as raised:
            made.find(asked)
        assert raised.value.near == near
    with pytest.raises(ModelNotFoundError) as raised:
        registry().find("llama")
    assert raised.value.near == ()


def test_spellings_of_a_name_do_not_fill_the_memory() -> None:
    made = registry(engine("e", llama="d1"))
    for spelling in ("llama", "LLAMA", "Llama", "lLaMa", "llama:latest"):
        for kind in Kind:
            made.find(spelling, kind)
    assert len(made._found) == 1


def test_a_name_that_nobody_holds_is_looked_up_once_until_something_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    made, looked = registry(engine("e", llama="d1")), list[str]()
    resolve = made._resolve

    def counted(name: str) -> list[tuple[str, EngineModel]]:
        looked.append(name)
        return resolve(name)

    monkeypatch.setattr(made, "_resolve", counted)
    for _ in range(3):
        with pytest.raises(ModelNotFoundError) as raised:
            made.find("lama")
        assert raised.value.near == ("llama",)
    assert looked == ["lama"]
    for number in range(3 * UNKNOWN_MAX):
        with pytest.raises(ModelNotFoundError):
            made.find(f"none-{number}")
    assert len(made._unknown) <= UNKNOWN_MAX
    new = engine("f", lama="d2")
    made.add(new)
    made.update("f", new.look())
    assert [holder.model for holder in made.find("lama")] == ["lama"]


# -- looks at engines


def test_an_engine_is_not_ready_before_its_first_look() -> None:
    made = Registry("here", lambda: "studio")
    made.add(MemoryEngine())
    assert [info.state for info in made.engine_infos(lambda _: 1, lambda _: 0)] == ["starting"]
    with pytest.raises(ModelNotFoundError):
        made.find("m")


def test_every_change_is_told_and_a_look_that_shows_the_same_is_none() -> None:
    made = registry(one := MemoryEngine())
    told: list[int] = []
    made.changed = lambda: told.append(1)
    made.update("e", one.look())
    assert told == []
    one.make_resident("m")
    made.update("e", one.look())
    made.update("nobody", one.look())
    assert len(told) == 1
    made.remove("e")
    assert len(told) == 2


def test_a_model_that_appears_is_found_and_one_that_vanishes_is_not() -> None:
    made = registry(one := MemoryEngine(models=("a",)))
    one.names = ["b"]
    assert found(made, "a") == [("e", "a")]
    made.update("e", one.look())
    assert found(made, "b") == [("e", "b")]
    with pytest.raises(ModelNotFoundError):
        made.find("a")


def test_a_look_that_failed_takes_no_model_away_but_nobody_is_sent_there() -> None:
    made = registry(one := MemoryEngine(loads=False))
    one.make_resident("m")
    made.update("e", one.look())
    made.update("e", EngineSnapshot(ready=False, detail="It refused the connection."))
    (holder,) = made.find("m")
    assert (holder.blocked, holder.detail) == (Word.UNHEALTHY, "It refused the connection.")
    (info,) = made.model_infos()
    assert (info.residency, info.problem) == ("cold", "It refused the connection.")
    assert [info.state for info in made.engine_infos(lambda _: 1, lambda _: 0)] == ["failed"]
    assert not made.warm("e", "m")
    made.update("e", one.look())
    assert made.find("m")[0].blocked is None
    assert made.model_infos()[0].problem == ""


def test_a_model_that_cannot_run_is_unfit_and_says_why() -> None:
    made = registry(MemoryEngine())
    model = EngineModel("m", problem="It crashed twice.")
    made.update("e", EngineSnapshot(ready=True, models=(model,)))
    (holder,) = made.find("m")
    assert (holder.blocked, holder.detail) == (Word.UNFIT, "It crashed twice.")
    assert made.model_infos()[0].problem == "It crashed twice."


def test_a_holder_is_warm_when_it_answers_without_a_load() -> None:
    cold, itself = MemoryEngine("e"), MemoryEngine("f", loads=False)
    made = registry(cold, itself)
    assert [holder.warm for holder in made.find("m")] == [False, True]
    assert (made.needs_load("e", "m"), made.needs_load("f", "m"), made.needs_load("gone", "m")) == (True, False, False)
    cold.make_resident("m")
    made.update("e", cold.look())
    assert [holder.warm for holder in made.find("m")] == [True, True]
    assert (made.warm("e", "m"), made.warm("f", "m"), made.warm("gone", "m")) == (True, False, False)


def test_an_engine_that_goes_takes_its_models_along() -> None:
    made = registry(one := MemoryEngine("e"), MemoryEngine("f", ("other",)))
    assert made.remove("e") is one
    assert made.remove("e") is None
    assert not made.has_engine("e")
    assert [info.engine for info in made.model_infos()] == ["f"]


# -- leases


def test_what_is_in_flight_is_counted_by_model_and_when_it_was_used() -> None:
    made = registry(MemoryEngine(models=("a", "b")))
    made.used("e", "a", 5.0, +1)
    made.used("e", "a", 6.0, +1)
    made.used("e", "a", 7.0, -1)
    assert [(info.name, info.in_flight) for info in made.model_infos()] == [("a", 1), ("b", 0)]
    assert (made.find("a")[0].last_used, made.find("b")[0].last_used) == (7.0, 0.0)


def test_a_lease_outlives_its_engine_and_is_never_counted_below_zero() -> None:
    made = registry(one := MemoryEngine())
    made.used("e", "m", 1.0, +1)
    made.remove("e")
    made.add(one)
    made.update("e", one.look())
    made.used("e", "m", 2.0, -1)
    assert made.model_infos()[0].in_flight == 0
    made.used("e", "m", 3.0, +1)
    made.remove("e")
    made.used("e", "m", 4.0, -1)
    assert made.replicas._known == {}


# -- memory


def with_room(peer: MemoryPeer, free: int, **more: Any) -> EngineSnapshot:
    return peer.look(free_ram_bytes=free, **more)


def test_a_cold_model_that_cannot_fit_at_a_peer_is_unfit_and_says_how_much_is_missing() -> None:
    peer = MemoryPeer(models=("m", "small"))
    peer.resident, peer.sizes = [], {"m": 10 * GIB, "small": GIB}
    made = registry(peer)
    made.update(peer.id, with_room(peer, 4 * GIB))
    (holder,) = made.find("m")
    assert (holder.blocked, holder.detail) == (Word.UNFIT, "It needs 12.0 GiB of memory there; 4.0 GiB can be had.")
    assert made.find("small")[0].blocked is None
    made.update(peer.id, with_room(peer, 8 * GIB, free_vram_bytes=8 * GIB))
    assert made.find("m")[0].blocked is None, "what does not fit on the graphics card lies beside it"


def test_what_is_loaded_there_may_leave_and_what_is_not_told_is_no_reason() -> None:
    peer = MemoryPeer(models=("m", "other"))
    peer.resident, peer.sizes = ["other"], {"m": 10 * GIB, "other": 10 * GIB}
    made = registry(peer)
    assert made.find("m")[0].blocked is None
    made.update(peer.id, with_room(peer, GIB))
    assert made.find("m")[0].blocked is None


def test_memory_is_set_aside_with_the_lease_until_the_next_look_or_the_end_of_the_job() -> None:
    peer = MemoryPeer(models=("m", "n"))
    peer.resident, peer.sizes = [], {"m": 5 * GIB, "n": 5 * GIB}
    made = registry(peer)
    look = with_room(peer, GIB, free_vram_bytes=8 * GIB)
    made.update(peer.id, look)
    made.used(peer.id, "m", 1.0, +1)
    (second,) = made.find("n")
    assert (second.blocked, second.free_vram_bytes) == (Word.UNFIT, 2 * GIB)
    assert made.find("m")[0].blocked is None, "those who wait for the same load need no more"
    made.used(peer.id, "m", 2.0, -1)
    assert made.find("n")[0].blocked is None
    made.used(peer.id, "m", 3.0, +1)
    made.update(peer.id, look)
    assert (made.find("n")[0].blocked, made.find("n")[0].free_vram_bytes) == (None, 8 * GIB)
    made.used(peer.id, "n", 4.0, +1)
    made.update(peer.id, with_room(peer, GIB, free_vram_bytes=GIB))
    made.used(peer.id, "m", 5.0, +1)
    assert made.find("m")[0].free_vram_bytes == 0, "never below zero"


# -- loaded copies


def test_caches_hear_that_a_copy_is_gone_when_it_is_unloaded_or_its_computer_let_go_not_when_a_look_failed() -> None:
    made, gone = registry(one := MemoryEngine(), peer := MemoryPeer()), []
    made.replicas.on_removed.append(lambda engine, model: gone.append((engine, model)))
    one.make_resident("m")
    made.update("e", one.look())
    made.update("e", one.look(ready=False))
    made.update(peer.id, EngineSnapshot(ready=False, detail="silent"))
    assert gone == []
    one.resident = []
    made.update("e", one.look())
    assert gone == [("e", "m")]
    made.remove(peer.id)
    assert gone == [("e", "m"), (peer.id, "m")]


# -- by digest, and who has no copy


@pytest.mark.parametrize("asked", [DIGEST, f"sha256:{DIGEST}", DIGEST.upper()])
def test_a_model_can_be_asked_for_by_its_digest(asked: str) -> None:
    made = registry(engine("e", llama=DIGEST), engine("f", other="d2", again=DIGEST))
    assert found(made, asked) == [("e", "llama"), ("f", "again")]
    with pytest.raises(ModelNotFoundError):
        made.find("0" * 64)


def test_the_computers_that_do_not_hold_a_model_are_named_and_one_not_reached_yet_may_hold_it() -> None:
    has, has_not, away = MemoryPeer("p"), MemoryPeer("q", ("n",)), MemoryPeer("r")
    made = registry(engine("e", other="d"), has, has_not)
    made.add(away)
    made.update(away.id, EngineSnapshot(ready=False, detail="It has not been reached yet."))
    said = [(one.node, one.verdict, one.detail) for one in made.absent(made.find("m"))]
    assert said == [
        ("here", Word.MISSING, ""),
        ("q", Word.MISSING, ""),
        ("r", Word.UNHEALTHY, "It has not been reached yet."),
    ]
    alone = registry(engine("e", m="d"))
    assert alone.absent(alone.find("m")) == ()


# -- what pages see


def test_a_model_is_shown_with_where_it_is_and_how_far_its_load_is() -> None:
    made = registry(MemoryEngine())
    model = EngineModel("m", digest="d", size_bytes=7, capabilities=frozenset({"tools", "chat"}), loading_pct=40)
    made.update("e", EngineSnapshot(ready=True, models=(model,), version="1.2"))
    (info,) = made.model_infos()
    assert (info.node, info.node_name, info.local, info.engine) == ("here", "studio", True, "e")
    assert (info.digest, info.size_bytes, info.capabilities) == ("d", 7, ["chat", "tools"])
    assert (info.residency, info.loading_pct) == ("loading", 40)
    (shown,) = made.engine_infos(lambda engine: 3, lambda engine: 2)
    assert (shown.state, shown.version, shown.width, shown.in_flight) == ("ready", "1.2", 3, 2)


# -- other computers


def test_the_same_weights_on_other_computers_are_one_model_and_a_name_means_this_computers() -> None:
    peer = MemoryPeer("p", ("llama", "other"))
    peer.digests = {"llama": "d1", "other": "d2"}
    made = registry(peer, engine("e", llama="d1"))
    assert found(made, "llama") == [("e", "llama"), ("peer-p", "llama")]
    here, there = made.find("llama")
    assert (here.node, here.local, there.node, there.local) == ("here", True, "p", False)
    infos = {(info.name, info.node, info.node_name, info.local) for info in made.model_infos()}
    assert infos == {
        ("llama", "here", "studio", True),
        ("llama", "p", "P", False),
        ("other", "p", "P", False),
    }


def test_two_digests_under_one_name_are_the_name_here_and_the_name_at_the_other_computer() -> None:
    peer = MemoryPeer("p", ("llama",))
    peer.digests, peer.label = {"llama": "d2"}, "Anna's Studio"
    made = registry(peer, engine("e", llama="d1"))
    assert [info.name for info in made.model_infos()] == ["llama", "llama@anna-s-studio"]
    assert found(made, "llama") == [("e", "llama")]
    assert found(made, "llama@anna-s-studio") == found(made, "llama@peer-p") == [("peer-p", "llama")]


def test_two_computers_of_one_name_stay_two() -> None:
    peers = [MemoryPeer(node, ("llama",)) for node in ("p", "q")]
    for peer in peers:
        peer.label, peer.digests = "studio", {"llama": peer.node}
    made = registry(engine("e", llama="d"), *peers)
    assert [info.name for info in made.model_infos()] == ["llama", "llama@peer-p", "llama@peer-q"]
    assert found(made, "llama@peer-q") == [("peer-q", "llama")]
    with pytest.raises(ModelNotFoundError):
        made.find("llama@studio")


def test_a_peer_is_warm_only_when_it_says_so() -> None:
    peer = MemoryPeer()
    peer.resident = []
    made = registry(peer)
    assert not made.find("m")[0].warm
    peer.make_resident("m")
    made.update(peer.id, peer.look())
    assert made.find("m")[0].warm
    made.update(peer.id, EngineSnapshot(ready=False, detail="It is offline."))
    assert (made.find("m")[0].warm, made.model_infos()[0].problem) == (False, "It is offline.")


@pytest.mark.parametrize(
    ("look", "word"),
    [
        ({"ready": False}, Word.UNHEALTHY),
        ({"ready": False, "trusted": False}, Word.UNTRUSTED),
        ({"mode": NodeMode.PAUSED}, Word.PAUSED),
        ({"mode": NodeMode.DRAINING}, Word.DRAINING),
        ({"mode": NodeMode.DRAINED}, Word.DRAINING),
    ],
)
def test_what_a_peer_says_of_itself_is_its_verdict(look: dict[str, Any], word: Word) -> None:
    peer = MemoryPeer()
    made = registry(peer)
    assert made.takes(peer.id, "m")
    made.update(peer.id, peer.look(**look))
    assert made.find("m")[0].blocked is word
    assert not made.takes(peer.id, "m")
    assert not made.takes(peer.id, "unknown")


def test_an_ejected_peer_says_so_and_an_own_engine_is_never_ejected() -> None:
    peer, own = MemoryPeer(), MemoryEngine()
    made = registry(own, peer)
    told: list[int] = []
    made.changed = lambda: told.append(1)
    for engine_id in (peer.id, own.id):
        made.health.failed(engine_id, "m", Failure.SILENT, "It did not answer.")
    here, there = made.find("m")
    assert (here.blocked, there.blocked) == (None, Word.UNHEALTHY)
    assert "It did not answer." in there.detail
    assert (made.takes(own.id, "m"), made.takes(peer.id, "m")) == (True, False)
    assert told


def test_jobs_of_others_count_at_a_peer_and_ours_are_not_counted_twice() -> None:
    peer = MemoryPeer(width=4)
    made = registry(peer)
    made.used(peer.id, "m", 1.0, +1)
    peer.in_flight = 3
    made.update(peer.id, peer.look(waiting=1))
    assert (made.others(peer.id), made.find("m")[0].others, made.find("m")[0].width) == (3, 3, 4)
    made.used(peer.id, "m", 2.0, -1)
    peer.in_flight = 0
    made.update(peer.id, peer.look())
    assert made.others(peer.id) == 0
    made.remove(peer.id)
    assert made.others(peer.id) == 0


def test_the_list_of_engines_is_of_this_computer_alone() -> None:
    made = registry(MemoryPeer(), MemoryEngine())
    assert [info.id for info in made.engine_infos(lambda _: 1, lambda _: 0)] == ["e"]


# -- files that are no models


def test_a_file_that_is_no_model_is_shown_but_never_offered_and_a_request_for_it_hears_why() -> None:
    made = registry(engine("e", good="d1"))
    broken = EngineModel(name="half", problem="Its file Half.gguf is not a GGUF file.")
    made.update("e", replace(made.snapshots["e"], refused=(broken,)))
    assert [info.name for info in made.model_infos()] == ["good"]
    assert [(info.name, info.problem) for info in made.shown_infos()] == [("good", ""), ("half", broken.problem)]
    with pytest.raises(ModelNotFoundError, match=r"'half:latest'\. Its file Half\.gguf is not a GGUF file\."):
        made.find("half:latest")


def test_a_model_of_another_engine_is_not_hidden_by_a_broken_file_of_its_name() -> None:
    made = registry(engine("e"), engine("f", half="d1"))
    made.update("e", EngineSnapshot(ready=True, refused=(EngineModel(name="half", problem="It is broken."),)))
    assert found(made, "half") == [("f", "half")]
    assert [info.name for info in made.model_infos()] == ["half"]
