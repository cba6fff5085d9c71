"""A model may have a route policy of its own."""

from __future__ import annotations

import pytest

from router.routes import route_of
from tests.fakes import MemoryEngine
from tests.fakes_peer import MemoryPeer
from tests.world import World


@pytest.mark.parametrize(
    ("model", "route"),
    [
        ("llama3.2:3b", "local-first"),
        ("Qwen3", "fastest"),
        ("qwen3:latest", "fastest"),
        ("qwen3:8b", "peers-first"),
        ("twice", "fastest"),
        ("", "peers-first"),
    ],
)
def test_the_route_of_a_model_counts_before_that_of_all(model: str, route: str) -> None:
    own = "llama3.2:3b=local-first, qwen3=fastest,twice=local-first,twice=fastest, "
    assert route_of(model, {"route": "peers-first", "model_routes": own}) == route


def test_two_models_of_one_computer_go_different_ways() -> None:
    settings = {"route": "peers-first", "model_routes": "b=local-first"}
    models = ("a", "b")
    world = World(
        MemoryEngine(models=models, loads=False),
        MemoryPeer(models=models),
        route=lambda model: route_of(model, settings),
    )
    engines = [job.lane.engine for job in (world.submit("a"), world.submit("b")) if job.lane is not None]
    assert engines == ["peer-p", "e"]
