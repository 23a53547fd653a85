"""A page for people: one HTML file with its figures in it, readable without a server, in light and dark."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from kitlib import files

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATE = Path(__file__).parent / "page.html.j2"
_NUMBER = re.compile(r"[-+−]?\d[\d,.]*( .{1,3})*")
# Of a figure in a page: wide enough for a screen, and a tenth of a PNG's bytes.
_LONGEST_SIDE, _QUALITY = 2000, 88


@dataclass(frozen=True)
class Card:
    """One figure at the top of a page: what it is, the figure itself, and a remark."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        head: the names of its columns.
        rows: its cells as text.
        stacked: whether a phone shows the cells of a row below each other, for a table of sentences.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    stacked: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture: its caption and its bytes as a data address."""

    caption: str
    source: str


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        text: paragraphs.
        points: a list.
        tables: below the text.
        pictures: below the tables.
        folded: whether only the heading shows until it is clicked.
    """

    title: str
    text: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page, by its relative path."""

    text: str
    address: str


@dataclass(frozen=True)
class Page:
    """A page from top to bottom; every text is escaped when it is written."""

    title: str
    lead: str
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]
    links: tuple[Link, ...] = ()


def write(page: Page, path: Path) -> Path:
    """Write a page as one HTML file, atomically."""
    return files.write_text(path, _template().render(page=page))


def picture(path: Path) -> Picture:
    """A PNG file for a page; its caption is its name."""
    return Picture(path.stem.replace("_", " "), _compressed(path.read_bytes()))


def drawn(caption: str, figure: object) -> Picture:
    """A matplotlib figure for a page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")  # type: ignore[attr-defined]
    return Picture(caption, _compressed(buffer.getvalue()))


def _compressed(png: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        image = image.convert("RGB")
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=_QUALITY, method=1)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["number"] = lambda text: _NUMBER.fullmatch(text) is not None
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def rows(values: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Rows of a table from any sequences of text."""
    return tuple(tuple(row) for row in values)
