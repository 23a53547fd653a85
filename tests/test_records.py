"""Frames written for other processes and read back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitlib import rle
from kitlib.errors import KitError
from kitlib.records import Cell, Frame, read_frames, write_frames

MASK = rle.parse("2 2 9 1", 3, 4)

words = st.text(min_size=1, max_size=8)
scores = st.none() | st.floats(0, 1)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    height, width = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    bits = st.lists(st.booleans(), min_size=height * width, max_size=height * width)
    masks = bits.map(lambda b: rle.from_mask(np.array(b).reshape(height, width)))
    return Frame(
        draw(words),
        draw(st.none() | st.just(Path("/images/½ cell.png"))),
        height,
        width,
        tuple(draw(st.lists(st.builds(Cell, masks, words, scores, scores), max_size=3))),
        draw(st.none() | words),
        draw(st.none() | words),
        draw(st.floats(0, 10)),
        draw(st.none() | masks),
    )


@given(st.lists(frames(), max_size=3))
def test_frames_come_back(tmp_path_factory: pytest.TempPathFactory, given_frames: list[Frame]) -> None:
    path = write_frames(tmp_path_factory.getbasetemp() / "frames.jsonl", given_frames)
    assert read_frames(path) == given_frames


def test_a_line_a_frame_with_the_image_s_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading process may run in another folder."""
    monkeypatch.chdir(tmp_path)
    frame = Frame("a", Path("a.png"), 3, 4, (Cell(MASK, "cort"),))
    path = write_frames("frames.jsonl", [frame, frame])
    assert len(path.read_text().splitlines()) == 2
    assert read_frames(path)[0].path == tmp_path / "a.png"


def test_only_frames_with_scores_are_pseudo_labelled() -> None:
    annotated, found = Cell(MASK, "cort"), Cell(MASK, "cort", 0.0)
    assert not Frame("a", None, 3, 4).pseudo
    assert not Frame("a", None, 3, 4, (annotated,)).pseudo
    assert Frame("a", None, 3, 4, (annotated, found)).pseudo


def test_records_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Frame("a", None, 3, 4).weight = 0.5


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2],  # the disk was full, say
        lambda line: line.replace('"width"', '"breadth"'),
        lambda line: line.replace('"group"', '"well"'),
        lambda line: line.replace("[[", "[[[["),
        lambda line: "[]",
        lambda line: "",
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, damage) -> None:
    path = write_frames(
        tmp_path / "frames.jsonl", [Frame(name, None, 3, 4, (Cell(MASK, "x"),)) for name in "ab"]
    )
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{damage(second)}\n")
    with pytest.raises(
        KitError, match=r"frames\.jsonl line 2 is damaged .* run the stage that writes it again"
    ):
        read_frames(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"frames\.jsonl does not exist; run the stage that writes it"):
        read_frames(tmp_path / "frames.jsonl")


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "frames.jsonl").write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(KitError, match=r"frames\.jsonl line 1 is damaged"):
        read_frames(tmp_path / "frames.jsonl")
