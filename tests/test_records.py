"""Frames written for other processes and read back."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kitlib import records
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Cell, Frame, read_frames, voted_category, write_frames

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


@pytest.fixture(params=[0, 1 << 40], ids=["mapped", "read whole"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few bytes as large ones are read, mapped into memory, and as small ones are, whole."""
    monkeypatch.setattr(records, "SMALL", request.param)


@pytest.mark.usefixtures("small")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(frames(), max_size=3))
def test_frames_come_back(tmp_path_factory: pytest.TempPathFactory, given_frames: list[Frame]) -> None:
    path = write_frames(tmp_path_factory.getbasetemp() / "frames.npz", iter(given_frames))
    found = read_frames(path)
    assert found == given_frames
    assert [frame.pseudo for frame in found] == [frame.pseudo for frame in given_frames]
    assert [frame.cells[::-1] for frame in found] == [tuple(frame.cells)[::-1] for frame in given_frames]


def test_numpy_opens_the_file_and_the_masks_are_cocos(tmp_path: Path) -> None:
    strip = rle.parse("9 2", 3, 4)
    frame = Frame("a", None, 3, 4, (Cell(MASK, "cort"), Cell(strip, "astro"), Cell(MASK, "cort", 0.5)))
    with np.load(write_frames(tmp_path / "frames.npz", [frame]), allow_pickle=False) as stored:
        bounds, counts = stored["bounds"], stored["counts"].tobytes()
        assert [counts[a:b] for a, b in itertools.pairwise(bounds)] == [c.mask["counts"] for c in frame.cells]
        assert stored["kinds"].tolist() == [0, 1, 0]
        assert stored["scores"][2].tolist()[0] == 0.5


def test_the_image_s_whole_path_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading process may run in another folder."""
    monkeypatch.chdir(tmp_path)
    path = write_frames("frames.npz", [Frame("a", Path("a.png"), 3, 4)])
    assert read_frames(path)[0].path == tmp_path / "a.png"


def test_stored_cells_are_a_sequence(tmp_path: Path) -> None:
    cells = tuple(Cell(MASK, name) for name in "abc")
    path = write_frames(
        tmp_path / "frames.npz", [Frame("x", None, 3, 4, cells[:1]), Frame("y", None, 3, 4, cells)]
    )
    stored = read_frames(path)[1].cells
    assert (len(stored), stored[0], stored[-1], stored[1:]) == (3, cells[0], cells[2], cells[1:])
    assert stored == cells
    assert stored != cells[:2]
    with pytest.raises(IndexError):
        stored[3]


def test_a_process_is_sent_the_path_and_not_the_masks(tmp_path: Path) -> None:
    """Workers that are spawned get their frames pickled."""
    frames = [Frame(name, None, 3, 4, (Cell(MASK, "x"),) * 5000) for name in "ab"]
    stored = read_frames(write_frames(tmp_path / "frames.npz", frames))
    sent = pickle.dumps(stored)
    assert len(sent) < 2000
    assert pickle.loads(sent) == frames


def test_a_rewritten_file_leaves_what_was_read_as_it_was(tmp_path: Path) -> None:
    """A stage may be run again while a notebook still holds its frames."""
    frames = [Frame("a", None, 520, 704, (Cell(MASK, "x"),) * 200_000)]
    path = write_frames(tmp_path / "frames.npz", frames)
    assert path.stat().st_size > records.SMALL
    before = read_frames(path)
    write_frames(path, [Frame("a", None, 3, 4)])
    assert before[0].cells[199_999].mask["counts"] == MASK["counts"]


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
        lambda content: content[: len(content) // 2],  # the disk was full, say
        lambda content: content.replace(b"bounds.npy", b"bonnet.npy"),
        lambda content: content.replace(b'["a", null', b'["a", 3, 4'),
        lambda content: content.replace(b'"categories"', b'"kategorien"'),
        lambda content: content.replace(b"'<i4'", b"'<f4'"),
        lambda content: b'{"id": "a"}\n',  # as an earlier version wrote it
        lambda content: b"",
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write_frames(tmp_path / "frames.npz", [Frame("a", None, 3, 4, (Cell(MASK, "x"),))])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(KitError, match=r"frames\.npz is damaged.* run the stage that writes it again"):
        read_frames(path)


def test_a_mask_that_pycocotools_would_read_beyond_its_end_is_refused(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "frames.npz", [Frame("a", None, 3, 4, (Cell(MASK, "x"),))])
    text = MASK["counts"]
    # The last digit says that another one follows.
    path.write_bytes(path.read_bytes().replace(text, text[:-1] + b"P"))
    (frame,) = read_frames(path)
    with pytest.raises(KitError, match=r"frames\.npz is damaged; run the stage that writes it again"):
        list(frame.cells)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"frames\.npz does not exist; run the stage that writes it"):
        read_frames(tmp_path / "frames.npz")


GROWTH = """
import os, sys
from kitlib import records

def private():  # not the mapped pages: those all processes share
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024

before = private()
frames = records.read_frames(sys.argv[1])
if sys.argv[2] == "draw":  # as a worker does, one after the other
    for frame in frames[::10]:
        for cell in frame.cells:
            cell.mask["counts"]
print(len(frames), private() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this system does not tell memory")
def test_a_million_cells_cost_a_process_less_than_50_mb(tmp_path: Path) -> None:
    (mask,) = rle.from_polygons([[[20, 20, 40, 22, 44, 38, 30, 47, 18, 36]]], 520, 704)
    frames = (Frame(f"f{i}", None, 520, 704, (Cell(mask, "cell"),) * 310) for i in range(3253))
    path = write_frames(tmp_path / "frames.npz", frames)
    for use in ("hold", "draw"):
        command = [sys.executable, "-c", GROWTH, path, use]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        number, megabytes = done.stdout.split()
        assert (int(number), float(megabytes) < 50) == (3253, True)


@pytest.mark.parametrize(
    ("votes", "category"),
    [
        ([("cort", 0.9), *[("shsy5y", 0.1)] * 8], "cort"),
        ([("cort", 0.9), *[("shsy5y", 0.1)] * 10], "shsy5y"),
        ([("cort", 0.9), ("astro", 0.8), ("astro", 0.5)], "astro"),
        # Of equals the first name.
        ([("shsy5y", 0.5), ("astro", 0.5)], "astro"),
        ([], None),
    ],
)
def test_each_instance_votes_for_the_type_with_its_score(
    votes: list[tuple[str, float]], category: str | None
) -> None:
    assert voted_category(votes) == category
