"""Draw the icons: ``python packaging/icons.py`` writes every picture of ``assets`` from the geometry below.

The mark is a ring of six computers with one answer in the middle. In the tray the middle says the state by shape as
well as by colour: a disc runs, two bars are paused, an arrow drains, an exclamation mark is a problem.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PIL import Image
from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QGuiApplication, QImage, QPainter
from PySide6.QtSvg import QSvgRenderer

ASSETS = Path(__file__).resolve().parent.parent / "assets"
TRAY_PIXELS = (16, 22, 24, 32, 44, 64)
WINDOWS = ASSETS.parent / "packaging" / "windows"
SIDEBAR_PIXELS = (164, 314)  # what NSIS's last page has room for
ICON_PIXELS = (16, 24, 32, 48, 64, 128, 256, 512)

RING = {"dark": "#f2f3f5", "light": "#3b3f46", "template": "#000000"}
"""On a dark panel, on a light one; and for macOS, which colours a template itself and reads only where it is opaque."""
TEAL = {"dark": "#3ddbb4", "light": "#0a9474", "template": "#000000"}
AMBER = {"dark": "#ffc14d", "light": "#b86e00", "template": "#000000"}
BLUE = {"dark": "#7db4ff", "light": "#1f66cc", "template": "#000000"}
RED = {"dark": "#ff7a70", "light": "#cc2f26", "template": "#000000"}


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


def sidebar_svg() -> str:
    """The picture beside the last page of the Windows installer."""
    width, height = SIDEBAR_PIXELS
    ground = (
        '<linearGradient id="ground" x1="0" y1="0" x2="0" y2="1">'
        '<stop offset="0" stop-color="#128a80"/><stop offset="1" stop-color="#0b5e58"/></linearGradient>'
        f'<rect width="{width}" height="{height}" fill="url(#ground)"/>'
    )
    inside = app_svg().partition(">")[2].rpartition("<")[0].partition("<g ")
    mark = f'<g transform="translate({width / 2 - 67:.0f} 76) scale(0.262)">{inside[1]}{inside[2]}</g>'
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{ground}{mark}</svg>'


def render(svg: str, pixels: int, target: Path, high: int = 0) -> None:
    """A PNG of ``svg``, ``pixels`` wide and ``high`` (0: as wide)."""
    image = QImage(pixels, high or pixels, QImage.Format.Format_ARGB32)
    image.fill(Qt.GlobalColor.transparent)
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    QSvgRenderer(QByteArray(svg.encode())).render(painter, QRectF(0, 0, pixels, high or pixels))
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
    with tempfile.TemporaryDirectory() as folder:
        # Each size is drawn and none scaled down from a larger one: the small ones stay crisp.
        drawn = {}
        for pixels in (*ICON_PIXELS, 1024):
            file = Path(folder) / f"{pixels}.png"
            render(svg, pixels, file)
            with Image.open(file) as one:
                drawn[pixels] = one.copy()
        small = [drawn[pixels] for pixels in ICON_PIXELS if pixels <= 256]
        small[-1].save(ASSETS / "icon.ico", sizes=[picture.size for picture in small], append_images=small)
        drawn[1024].save(ASSETS / "icon.icns", append_images=list(drawn.values()))
        sidebar = Path(folder) / "sidebar.png"
        render(sidebar_svg(), SIDEBAR_PIXELS[0], sidebar, SIDEBAR_PIXELS[1])
        with Image.open(sidebar) as plain:
            plain.convert("RGB").quantize(64).save(WINDOWS / "sidebar.bmp")
    del app
    return 0


if __name__ == "__main__":
    sys.exit(main())
