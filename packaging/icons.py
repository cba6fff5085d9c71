"""Draw the icons: ``python packaging/icons.py`` writes every picture of ``assets`` from the geometry below.

The mark is a ring of six computers with one answer in the middle. In the tray the middle says the state by shape as
well as by colour: a disc runs, two bars are paused, an arrow drains, an exclamation mark is a problem.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PIL import Image
from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QGuiApplication, QImage, QPainter
from PySide6.QtSvg import QSvgRenderer

ASSETS = Path(__file__).resolve().parent.parent / "assets"
TRAY_PIXELS = (16, 22, 24, 32, 44, 64)
ICON_PIXELS = (16, 24, 32, 48, 64, 128, 256, 512)

RING = {"dark": "#f2f3f5", "light": "#3b3f46"}  # on a dark panel, on a light one
TEAL = {"dark": "#3ddbb4", "light": "#0a9474"}
AMBER = {"dark": "#ffc14d", "light": "#b86e00"}
BLUE = {"dark": "#7db4ff", "light": "#1f66cc"}
RED = {"dark": "#ff7a70", "light": "#cc2f26"}


def ring(colour: str, centre: float, radius: float, dot: float) -> str:
    """Six dots around the middle."""
    places = [math.radians(60 * step - 90) for step in range(6)]
    dots = [
        f'<circle cx="{centre + radius * math.cos(angle):.2f}" cy="{centre + radius * math.sin(angle):.2f}" r="{dot}"/>'
        for angle in places
    ]
    return f'<g fill="{colour}">{"".join(dots)}</g>'


def middle(state: str, panel: str) -> str:
    """What the tray icon shows inside the ring."""
    match state:
        case "running":
            return f'<circle cx="32" cy="32" r="12.5" fill="{TEAL[panel]}"/>'
        case "paused":
            bars = (
                '<rect x="21" y="20" width="8" height="24" rx="2"/><rect x="35" y="20" width="8" height="24" rx="2"/>'
            )
            return f'<g fill="{AMBER[panel]}">{bars}</g>'
        case "draining":
            return f'<path fill="{BLUE[panel]}" d="M28 18h8v14h8.5L32 46 19.500 32H28z"/>'
        case _:
            mark = '<rect x="27.500" y="17" width="9" height="18" rx="3"/><circle cx="32" cy="42.500" r="5"/>'
            return f'<g fill="{RED[panel]}">{mark}</g>'


def tray_svg(state: str, panel: str) -> str:
    """One state of the tray icon for one kind of panel."""
    return _svg(64, ring(RING[panel], 32, 25, 6) + middle(state, panel))


def app_svg() -> str:
    """The icon of the program: the mark on a plate, its dots joined to the middle."""
    spokes = "".join(
        f'<line x1="256" y1="256" x2="{256 + 150 * math.cos(angle):.1f}" y2="{256 + 150 * math.sin(angle):.1f}"/>'
        for angle in (math.radians(60 * step - 90) for step in range(6))
    )
    plate = (
        '<linearGradient id="plate" x1="0" y1="0" x2="0" y2="1">'
        '<stop offset="0" stop-color="#128a80"/><stop offset="1" stop-color="#0b5e58"/></linearGradient>'
        '<rect x="24" y="24" width="464" height="464" rx="108" fill="url(#plate)"/>'
    )
    lines = f'<g stroke="#7fc4bc" stroke-width="16" stroke-linecap="round">{spokes}</g>'
    return _svg(
        512, plate + lines + ring("#ffffff", 256, 150, 34) + '<circle cx="256" cy="256" r="70" fill="#c9f5ea"/>'
    )


def _svg(size: int, body: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 {size} {size}">'
    return f"{head}{body}</svg>\n"


def render(svg: str, pixels: int, target: Path) -> None:
    """A PNG of ``svg``, ``pixels`` wide and high."""
    image = QImage(pixels, pixels, QImage.Format.Format_ARGB32)
    image.fill(Qt.GlobalColor.transparent)
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    QSvgRenderer(QByteArray(svg.encode())).render(painter, QRectF(0, 0, pixels, pixels))
    painter.end()
    if not image.save(str(target), "PNG"):  # type: ignore[call-overload] # the stubs want bytes, Qt takes text
        raise OSError(f"{target} could not be written")


def main() -> int:
    """Write everything."""
    app = QGuiApplication(["icons"])
    (ASSETS / "tray").mkdir(parents=True, exist_ok=True)
    for state in ("running", "paused", "draining", "problem"):
        for panel in RING:
            svg = tray_svg(state, panel)
            (ASSETS / "tray" / f"{state}-{panel}.svg").write_text(svg)
            for pixels in TRAY_PIXELS:
                render(svg, pixels, ASSETS / "tray" / f"{state}-{panel}-{pixels}.png")
    svg = app_svg()
    (ASSETS / "icon.svg").write_text(svg)
    for pixels in ICON_PIXELS:
        render(svg, pixels, ASSETS / f"icon-{pixels}.png")
    with Image.open(ASSETS / "icon-256.png") as large:
        large.save(ASSETS / "icon.ico", sizes=[(pixels, pixels) for pixels in ICON_PIXELS if pixels <= 256])
    with Image.open(ASSETS / "icon-512.png") as large:
        large.save(ASSETS / "icon.icns")
    del app
    return 0


if __name__ == "__main__":
    sys.exit(main())
