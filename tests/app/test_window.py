"""The window's rules that hold on every system, with a stand-in for pywebview's window."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

webview = pytest.importorskip("webview")

from app import window as window_module  # noqa: E402 # only where there is a desktop part
from app.memory import Memory  # noqa: E402
from app.window import PageApi, Window, open_outside  # noqa: E402

HOME = "http://127.0.0.1:7411"


class Native:
    """What ``Window`` uses of pywebview's."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.options = options
        self.url: str | None = f"{HOME}/#window"
        self.events = SimpleNamespace(closing=[], loaded=[], before_show=[])
        self.loaded: list[str] = []
        self.picked: tuple[str, ...] | None = ("/models/a.gguf",)

    def get_current_url(self) -> str | None:
        return self.url

    def load_url(self, url: str) -> None:
        self.loaded.append(url)

    def create_file_dialog(self, kind: int, file_types: tuple[str, ...]) -> tuple[str, ...] | None:
        return self.picked

    def run_js(self, script: str) -> str:
        return script


class Listeners(list[Any]):
    def __iadd__(self, listener: Any) -> Listeners:  # type: ignore[override, misc]
        self.append(listener)
        return self


class Platform:
    gui = None
    dark = True
    dark_panel = True
    session_ending = False

    def __init__(self) -> None:
        self.did: list[str] = []
        self.asking = threading.Event()
        self.go = threading.Event()
        self.on_session_end = lambda: self.did.append("session end")
        self.on_panel = self.on_page_lost = lambda: None

    def fit(self, memory: Memory) -> None:
        self.did.append("fit")

    def set_theme(self, theme: str) -> None:
        self.did.append(theme)

    def bring_up(self, native: Any) -> None:
        self.did.append("up")

    def ask(self, native: Any, *words: str) -> bool:
        self.asking.set()
        return self.go.wait(10)


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> Window:
    return make(monkeypatch)


def make(monkeypatch: pytest.MonkeyPatch, hidden: bool = False, theme: str = "system") -> Window:
    def create_window(title: str, **options: Any) -> Native:
        native = Native(**options)
        for name in vars(native.events):
            setattr(native.events, name, Listeners())
        return native

    monkeypatch.setattr(webview, "create_window", create_window)
    platform: Any = Platform()
    return Window(platform, HOME, "the token", Memory(x=1, y=2), hidden=hidden, theme=theme)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:7412/", "http://127.0.0.1/", "https://127.0.0.1:7411/", "http://127.0.0.1.evil.test:7411/",
     "http://localhost:7411/", "http://127.0.0.1:7411@evil.test/", "data:text/html,hi", "about:blank", "http://[bad",
     None],
)  # fmt: skip
def test_only_the_nodes_own_page_gets_the_token_or_a_dialog(window: Window, url: str | None) -> None:
    api = PageApi(window)
    assert api.token() == "the token"
    assert api.pick_model() == "/models/a.gguf"

    window.native.url = url

    assert api.token() is None
    assert api.pick_model() is None
    assert api.pick_folder() is None


def test_a_dialog_that_was_cancelled_picks_nothing(window: Window) -> None:
    window.native.picked = None

    assert PageApi(window).pick_folder() is None


def test_the_page_is_offered_exactly_three_functions() -> None:
    assert {name for name in dir(PageApi) if not name.startswith("_")} == {"token", "pick_model", "pick_folder"}


def test_the_window_opens_the_page_in_the_colour_of_the_theme(monkeypatch: pytest.MonkeyPatch) -> None:
    options = make(monkeypatch).native.options
    assert options["url"] == f"{HOME}/#window"
    assert options["min_size"] == (640, 480)
    assert (options["x"], options["y"]) == (1, 2)
    assert options["background_color"] == window_module.BACKGROUND[True]
    assert make(monkeypatch, theme="light").native.options["background_color"] == window_module.BACKGROUND[False]


def test_a_hidden_start_loads_the_page_once_when_it_is_first_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    window = make(monkeypatch, hidden=True)
    assert window.native.options["url"] is None
    assert not window.visible

    window.show()
    window.show()

    assert window.visible
    assert window.native.loaded == [f"{HOME}/#window"]


def test_a_foreign_page_is_sent_to_the_browser_and_the_own_one_comes_back(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(window_module, "open_outside", opened.append)

    window._loaded()
    assert (opened, window.native.loaded) == ([], [])
    window.native.url = "https://elsewhere.test/"
    window._loaded()

    assert opened == ["https://elsewhere.test/"]
    assert window.native.loaded == [f"{HOME}/#window"]


def test_closing_asks_the_shell_but_never_stops_a_shutdown(window: Window) -> None:
    window.may_close = lambda: False
    assert window._closing() is False

    window.platform.session_ending = True  # type: ignore[misc]

    assert window._closing() is True
    assert "session end" in window.platform.did  # type: ignore[attr-defined]


def test_a_second_question_is_not_asked_while_one_is_open(window: Window) -> None:
    platform: Any = window.platform
    answers: list[bool | None] = []
    first = threading.Thread(target=lambda: answers.append(window.ask("a", "b", "c", "d")))
    first.start()
    assert platform.asking.wait(10)

    assert window.ask("a", "b", "c", "d") is None
    platform.go.set()
    first.join(10)
    assert answers == [True]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "javascript:alert(1)", "smb://host/share", "x-app:go", ""])
def test_only_web_and_mail_addresses_are_opened_outside(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    opened: list[str] = []
    done = threading.Event()

    def browse(address: str) -> None:
        opened.append(address)
        done.set()

    monkeypatch.setattr("webbrowser.open", browse)

    open_outside(url)
    open_outside("https://elsewhere.test/")

    assert done.wait(10)
    assert opened == ["https://elsewhere.test/"]


def test_the_bridge_needs_no_eval(window: Window) -> None:
    load = window_module._without_eval(lambda window, platform: ("code;", "finish"))

    code, finish = load(window, "qt")

    assert code.startswith("code;")
    assert "_createApi" in code
    assert "eval" not in code
    assert "new Function" not in code
    assert finish == "finish"
    assert window.native.evaluate_js("1") == "1"
