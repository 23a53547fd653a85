"""Damaged files of every format that the kit reads: each is read, or refused in one sentence.

python experiments/fuzz.py [--minutes 30] [--out outputs/fuzz.json] [FORMAT ...]

Each format has a good file, which is damaged again and again: bytes are changed, pieces cut out, doubled or
set to zero, and words of a text exchanged for others (numbers of thousands of digits, infinity, values of
another type). A reader may raise a KitError of one line; anything else is a fault: another exception, a
message of several lines or with much of the file in it, more than 20 seconds, the end of the process.
Faults are written with the number that makes the file again.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from PIL import Image
from roifile import ImagejRoi

from kitlib import config, files, records, scoring
from kitlib.data import coco, competition, corrections, planes, tables
from kitlib.data.cellpose import read_seg
from kitlib.data.config import Findings, ReadingConfig
from kitlib.data.images import read_image
from kitlib.data.labels import read_labels
from kitlib.data.rois import read_rois
from kitlib.data.tiff import pixel_size
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.model import checkpoint
from kitlib.model.presets import ModelConfig
from kitlib.post.config import PostConfig, Tuned
from kitlib.records import Cell, Frame
from kitlib.stages import profiles, results
from kitlib.submission import checker
from kitlib.train import TrainConfig, events

HEIGHT, WIDTH = 16, 24
LABELS = np.kron(np.arange(6).reshape(2, 3), np.ones((8, 8), int))
STACK = np.stack([LABELS] * 4).reshape(2, 2, *LABELS.shape).astype(np.uint16)
CHOICE = ReadingConfig(channel=0, plane=0)
CELLS = [
    Cell(rle.from_mask(number == LABELS), category="cort", score=0.25 + number / 10) for number in range(1, 6)
]
TRUTH = [Frame(name * 12, Path("image.png"), HEIGHT, WIDTH, CELLS, "cort") for name in "ab"]
#: The longest a reader may take for one small file, in seconds.
LIMIT = 20
#: The longest a message may be without the paths in it.
_MESSAGE = 500
# Values of bytes at which a reader's arithmetic turns.
_EDGES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
# What a word of a text becomes: values of another type, too large, not finite, not UTF-8.
_WORDS = (
    *(b"0 -1 1 0.5 1e999 -1e999 NaN Infinity nan inf null true x ../x /x 99999999999999999999".split()),
    *b'[] {} [[]] {a:} ,, "" \' " : - # & * ! % @'.split(),
    *(b"", b" ", b"\n", b"\r", b"\t", b"\0", b"9" * 5000, b"1 " * 300),
    *("é".encode(), b"\xe9", "\u0301".encode(), "٣".encode(), b"\xed\xa0\x80", b"\xef\xbb\xbf"),
)
_WORD = re.compile(rb"[\w.+-]+")


class Format(NamedTuple):
    """A kind of file: its name, the content of a good one, and what reads it."""

    file: str
    content: bytes
    read: Callable[[Path], object]
    text: bool = False


def _png(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png", **options)
    return file.getvalue()


def _jpeg() -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(LABELS.astype(np.uint8)).save(file, "jpeg", exif=exif)
    return file.getvalue()


def _tiff(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **{"photometric": "minisblack", **options})
    return file.getvalue()


def _seg() -> bytes:
    file = io.BytesIO()
    content = {"masks": LABELS.astype(np.uint16), "flows": [None, LABELS * 0.5], "filename": "a.png"}
    np.save(file, np.array(content, object), allow_pickle=True)
    return file.getvalue()


def _roi() -> bytes:
    return ImagejRoi.frompoints(np.array([[1, 2], [9, 2], [9.5, 7], [1, 7]]), name="cell").tobytes()


def _roi_zip(compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("a.roi", _roi())
        archive.writestr("b.roi", ImagejRoi.frompoints([[1, 2], [9, 2], [9, 7]]).tobytes())
    return file.getvalue()


def _coco() -> bytes:
    text = rle.to_coco(rle.from_mask(LABELS == 3))["counts"].decode()
    shapes: tuple[dict[str, Any], ...] = (
        {"category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 9, 1, 9, 9]]},
        {"category_id": 1, "segmentation": {"size": [16, 24], "counts": [10, 20, 354]}},
        {"category_id": "1", "segmentation": {"size": [16, 24], "counts": text}},
    )
    document = {
        "images": [{"id": 1, "file_name": "image.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"id": n, "image_id": 1, **shape} for n, shape in enumerate(shapes)],
        "categories": [{"id": 1, "name": "cell"}],
    }
    return json.dumps(document).encode()


def _written(write: Callable[[Path], object], name: str) -> bytes:
    """The content of a file that the kit writes."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _checkpoint(path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.float16)}
    model = ModelConfig("tiny", num_classes=2)
    checkpoint.save(path, checkpoint.Checkpoint(model, ("astro", "cort"), 10, tensors, 0.3, {"lr": 0.1}))


def _refuse(findings: Findings) -> None:
    for finding in findings:
        raise KitError(finding.fault)


def read_coco(path: Path) -> None:
    """Every frame of a COCO file; a finding is a refusal."""
    findings = Findings(path.parent)
    list(coco.CocoFile(path, path.parent, findings).frames())
    _refuse(findings)


def _read_coco_every_way(path: Path) -> None:
    with suppress(KitError):
        coco.read(path, path.parent)
    with suppress(KitError):
        coco.read_alone(path)
    read_coco(path)


def _read_tiff(path: Path) -> None:
    pixel_size(path)
    for reading in (CHOICE, ReadingConfig(projection="max", channel="grey")):
        with suppress(KitError):
            read_labels(path, reading)
    with suppress(KitError):
        read_image(path)
    planes.size(path, CHOICE)
    planes.read_frame(path, CHOICE)


def _read_rois(path: Path) -> None:
    findings = Findings(path.parent)
    read_rois(path, HEIGHT, WIDTH, 0, findings)
    _refuse(findings)


def _read_train(path: Path) -> None:
    folder = path.parent / "competition"
    (folder / "train").mkdir(parents=True, exist_ok=True)
    for frame in TRUTH:
        if not (image := folder / "train" / f"{frame.id}.png").exists():
            image.write_bytes(_png(LABELS.astype(np.uint8)))
    (folder / "train.csv").write_bytes(path.read_bytes())
    competition.labelled(folder)


def _read_table(path: Path) -> None:
    for frame in tables.read_cells(path, {frame.id: (HEIGHT, WIDTH) for frame in TRUTH}):
        rle.areas([cell.mask for cell in frame.cells])
    truth = path.parent / "truth.csv"
    if not truth.exists():
        tables.write_annotations(truth, TRUTH)
    scoring.score(truth, path)


def _read_submission(path: Path) -> None:
    problems = checker.check(path, TRUTH)
    if problems:
        raise KitError(problems[0])


def _corrections(path: Path) -> None:
    corrections.save(path, {TRUTH[0].id: TRUTH[0]})


def _read_corrections(path: Path) -> None:
    corrections.apply(TRUTH, path)


def _read_frames(path: Path) -> None:
    for frame in records.read_frames(path):
        rle.areas([cell.mask for cell in frame.cells])


def _read_metrics(path: Path) -> None:
    folder = path.parent / "03_train"
    folder.mkdir(exist_ok=True)
    (folder / path.name).write_bytes(path.read_bytes())
    results.weights(path.parent, "03_train")


def _read_events(path: Path) -> None:
    events.curves(path.parent)


def _profile(path: Path) -> None:
    path.write_bytes((profiles.NOTEBOOKS / "profiles" / "cpu.yaml").read_bytes())


def _job(path: Path) -> None:
    config.save(
        TrainConfig(out="x", train="t.npz", categories=("a",), model=ModelConfig(num_classes=1)), path
    )


def _rows(path: Path) -> None:
    rows = ({"iteration": n, "total_loss": 3.5 / (n + 1), "lr": 1e-3, "map": 0.1 * n} for n in range(4))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


_submission = "id,predicted\n" + "".join(
    f"{frame.id},{rle.to_text(cell.mask)}\n" for frame in TRUTH for cell in frame.cells
)
_predicted = _written(lambda path: tables.write_predictions(path, TRUTH), "a.csv")

FORMATS: dict[str, Format] = {
    "png": Format(
        "a.png", _png(LABELS.astype(np.uint16)), lambda path: (read_labels(path), read_image(path))
    ),
    "jpeg": Format("a.jpg", _jpeg(), lambda path: planes.read_frame(path, CHOICE)),
    "tiff": Format("a.tif", _tiff(STACK[0, 0]), _read_tiff),
    "tiff of floats": Format("a.tif", _tiff(LABELS / 2, extratags=[(0x112, "H", 1, 6)]), _read_tiff),
    "compressed tiff": Format("a.tif", _tiff(STACK[0, 0], compression="lzw", predictor=True), _read_tiff),
    "hyperstack": Format(
        "a.tif", _tiff(STACK, imagej=True, metadata={"axes": "ZCYX", "unit": "um"}), _read_tiff
    ),
    "ome-tiff": Format(
        "a.tif", _tiff(STACK, ome=True, metadata={"axes": "CZYX", "PhysicalSizeX": 0.5}), _read_tiff
    ),
    "big-endian tiff": Format("a.tif", _tiff(STACK, byteorder=">", bigtiff=True), _read_tiff),
    "cellpose": Format("a_seg.npy", _seg(), read_seg),
    "roi": Format("a.roi", _roi(), _read_rois),
    "zip of rois": Format("a.zip", _roi_zip(zipfile.ZIP_DEFLATED), _read_rois),
    "stored rois": Format("a.zip", _roi_zip(zipfile.ZIP_STORED), _read_rois),
    "coco": Format("a.json", _coco(), _read_coco_every_way, text=True),
    "train.csv": Format(
        "a.csv", _written(lambda path: tables.write_annotations(path, TRUTH), "a.csv"), _read_train, text=True
    ),
    "predictions": Format("a.csv", _predicted, _read_table, text=True),
    "packed predictions": Format("a.csv.gz", gzip.compress(_predicted, mtime=0), _read_table),
    "submission": Format("a.csv", _submission.encode(), _read_submission, text=True),
    "corrections": Format(
        "corrections.csv", _written(_corrections, "corrections.csv"), _read_corrections, text=True
    ),
    "frames": Format(
        "a.npz", _written(lambda path: records.write_frames(path, TRUTH), "a.npz"), _read_frames
    ),
    "checkpoint": Format("a.pth", _written(_checkpoint, "a.pth"), checkpoint.load),
    "profile": Format(
        "a.yaml", _written(_profile, "a.yaml"), lambda path: profiles.plan(str(path)), text=True
    ),
    "training": Format(
        "a.yaml", _written(_job, "a.yaml"), lambda path: config.load(TrainConfig, path), text=True
    ),
    "post-processing": Format(
        "a.yaml",
        _written(lambda path: config.save(Tuned(PostConfig(), 0.3, 0.2, 0.4), path), "a.yaml"),
        lambda path: config.load(Tuned, path),
        text=True,
    ),
    "stage's result": Format(
        "metrics.json", b'{"map": 0.3, "weights": ["fold_0/weights_best.pth"]}', _read_metrics, text=True
    ),
    "training's rows": Format("metrics.jsonl", _written(_rows, "metrics.jsonl"), _read_events, text=True),
}


def damaged(data: bytes, rng: random.Random, text: bool = False) -> bytes:
    """A copy with some bytes changed, or with a piece cut out, doubled or swapped for zeros.

    Args:
        data: the good file.
        rng: decides what happens to it.
        text: also exchange words, in half of the files.
    """
    if text and rng.randrange(2):
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            words = list(_WORD.finditer(data))
            if words:
                word = rng.choice(words)
                data = data[: word.start()] + rng.choice(_WORDS) + data[word.end() :]
        return data
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        start = rng.randrange(len(found))
        length = rng.choice((1, 2, 4, 8, len(found) // 4 + 1))
        change = rng.randrange(6)
        if change < 2:
            found[start] = rng.choice((*_EDGES, rng.randrange(256), found[start] ^ (1 << rng.randrange(8))))
        elif change == 2:
            found[start : start + length] = bytes(rng.choice(_EDGES) for _ in range(min(length, 8)))
        elif change == 3:
            found[start : start + length] = b""
        elif change == 4:
            found[start:start] = found[start : start + length]
        else:
            del found[start:]
        if not found:
            break
    return bytes(found)


def prepare(name: str, folder: Path) -> Path:
    """A format's good file in a folder, and the image that it speaks of; it is read once."""
    kind = FORMATS[name]
    (folder / "image.png").write_bytes(_png(LABELS.astype(np.uint8)))
    (folder / kind.file).write_bytes(kind.content)
    kind.read(folder / kind.file)
    return folder / kind.file


def try_file(name: str, path: Path, number: int) -> tuple[bool, str]:
    """Damage a format's file in the way of this number, and read it.

    Returns:
        Whether it was refused; the fault, "" for none.
    """
    kind = FORMATS[name]
    path.write_bytes(damaged(kind.content, random.Random(number), kind.text))
    try:
        with warnings.catch_warnings(), _limit():
            warnings.simplefilter("ignore")
            kind.read(path)
    except KitError as error:
        said = str(error).replace(str(path.parent), "")
        long = "\n" in said or len(said) > _MESSAGE
        return True, f"message of {len(said)} characters: {said[:200]!r}" if long else ""
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        return (
            False,
            f"{type(error).__name__} in {Path(line.filename).name}:{line.lineno}: {str(error)[:100]}",
        )
    return False, ""


@contextmanager
def _limit() -> Iterator[None]:
    """Ends what takes longer than ``LIMIT`` seconds, as far as Python comes to know of it."""

    def end(*_: object) -> None:
        raise TimeoutError(f"took more than {LIMIT} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _damage_for(name: str, seconds: float, out: Path) -> None:
    """Damage files of one format until time is up; after each, its number is on the disk."""
    found: dict[str, Any] = {"files": 0, "refused": 0, "faults": {}}
    with tempfile.TemporaryDirectory() as folder, open(out.with_suffix(".at"), "w") as at:
        path = prepare(name, Path(folder))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            at.seek(0)
            at.write(f"{found['files']:<20}")
            at.flush()
            refused, fault = try_file(name, path, found["files"])
            found["files"] += 1
            found["refused"] += refused
            if fault:
                found["faults"].setdefault(fault, found["files"] - 1)
    found["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    files.write_json(out, found)


def _in_child(name: str, seconds: float, folder: Path) -> dict[str, Any]:
    """The same in a process of its own, whose end is a fault as well."""
    out = folder / f"{name.replace(' ', '_')}.json"
    command = [sys.executable, __file__, name, "--child", str(out), "--minutes", str(seconds / 60)]
    try:
        ended = subprocess.run(command, timeout=seconds + 120, capture_output=True, text=True)
        said = f"the process ended with {ended.returncode}: {ended.stderr[-200:]}"
    except subprocess.TimeoutExpired:
        said = "the process hung"
    if out.exists():
        return files.read_json(out)
    at = out.with_suffix(".at")
    number = int(at.read_text() or 0) if at.exists() else 0
    return {"files": number, "refused": 0, "faults": {said: number}, "peak_mib": 0}


def main() -> int:
    """All formats, some at the same time; the results as a table and as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=f"of {', '.join(FORMATS)}")
    parser.add_argument("--minutes", type=float, default=30, help="for all formats together")
    parser.add_argument("--out", type=Path, default=Path("outputs/fuzz.json"))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.formats) - set(FORMATS):
        parser.error(f"no such format: {', '.join(sorted(unknown))}")
    if given.child:
        _damage_for(given.formats[0], given.minutes * 60, given.child)
        return 0
    names, at_once = given.formats or list(FORMATS), os.cpu_count() or 1
    seconds = given.minutes * 60 * min(at_once, len(names)) / len(names)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(at_once) as pool:
        found = dict(
            zip(names, pool.map(lambda name: _in_child(name, seconds, Path(folder)), names), strict=True)
        )
    files.write_json(given.out, found)
    print(f"{'format':<20} {'files':>8} {'refused':>8} {'faults':>7} {'MiB':>6}")
    for name, row in found.items():
        print(
            f"{name:<20} {row['files']:>8,} {row['refused']:>8,}"
            f" {len(row['faults']):>7} {row['peak_mib']:>6,}"
        )
        for fault, number in row["faults"].items():
            print(f"    file {number}: {fault}")
    return int(any(row["faults"] for row in found.values()))


if __name__ == "__main__":
    sys.exit(main())
