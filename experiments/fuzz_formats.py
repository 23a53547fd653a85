"""Every kind of file that the kit reads: the content of a small good one, and what reads it."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from PIL import Image
from roifile import ImagejRoi

from kitlib import config, files, offline, records, scoring
from kitlib.data import coco, competition, corrections, planes, tables
from kitlib.data.cellpose import read_seg
from kitlib.data.config import Findings, ReadingConfig
from kitlib.data.images import read_image
from kitlib.data.labels import read_labels
from kitlib.data.rois import read_rois
from kitlib.data.tiff import pixel_size
from kitlib.errors import KitError
from kitlib.kaggle import bundle
from kitlib.masks import rle
from kitlib.model import checkpoint
from kitlib.model.presets import ModelConfig
from kitlib.post.config import PostConfig, Tuned
from kitlib.records import Cell, Frame
from kitlib.stages import profiles, record, results
from kitlib.stages.report import runs
from kitlib.submission import checker
from kitlib.train import TrainConfig, events

_HEIGHT, _WIDTH = 16, 24
_LABELS = np.kron(np.arange(6).reshape(2, 3), np.ones((8, 8), int))
_STACK = np.stack([_LABELS] * 4).reshape(2, 2, *_LABELS.shape).astype(np.uint16)
CHOICE = ReadingConfig(channel=0, plane=0)
_CELLS = [
    Cell(rle.from_mask(number == _LABELS), category="cort", score=0.25 + number / 10)
    for number in range(1, 6)
]
_TRUTH = [Frame(name * 12, Path("image.png"), _HEIGHT, _WIDTH, _CELLS, "cort") for name in "ab"]


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
    Image.fromarray(_LABELS.astype(np.uint8)).save(file, "jpeg", exif=exif)
    return file.getvalue()


def _tiff(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **{"photometric": "minisblack", **options})
    return file.getvalue()


def _seg() -> bytes:
    file = io.BytesIO()
    content = {"masks": _LABELS.astype(np.uint16), "flows": [None, _LABELS * 0.5], "filename": "a.png"}
    np.save(file, np.array(content, object), allow_pickle=True)
    return file.getvalue()


def _roi() -> bytes:
    return ImagejRoi.frompoints(np.array([[1, 2], [9, 2], [9.5, 7], [1, 7]]), name="cell").tobytes()


def _roi_zip(compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        # Without the time of writing: a number is to make the same file again.
        archive.writestr(zipfile.ZipInfo("a.roi"), _roi(), compression)
        other = ImagejRoi.frompoints([[1, 2], [9, 2], [9, 7]]).tobytes()
        archive.writestr(zipfile.ZipInfo("b.roi"), other, compression)
    return file.getvalue()


def _coco() -> bytes:
    text = rle.to_coco(rle.from_mask(_LABELS == 3))["counts"].decode()
    shapes: tuple[dict[str, Any], ...] = (
        {"category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 9, 1, 9, 9]]},
        {"category_id": 1, "segmentation": {"size": [16, 24], "counts": [10, 20, 354]}},
        {"category_id": "1", "segmentation": {"size": [16, 24], "counts": text}},
    )
    document = {
        "images": [{"id": 1, "file_name": "image.png", "height": _HEIGHT, "width": _WIDTH}],
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


# -------------------------------------------------------------------------------- readers


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
    read_rois(path, _HEIGHT, _WIDTH, 0, findings)
    _refuse(findings)


def _read_train(path: Path) -> None:
    folder = path.parent / "competition"
    (folder / "train").mkdir(parents=True, exist_ok=True)
    for frame in _TRUTH:
        if not (image := folder / "train" / f"{frame.id}.png").exists():
            image.write_bytes(_png(_LABELS.astype(np.uint8)))
    (folder / "train.csv").write_bytes(path.read_bytes())
    competition.labelled(folder)


def _read_table(path: Path) -> None:
    for frame in tables.read_cells(path, {frame.id: (_HEIGHT, _WIDTH) for frame in _TRUTH}):
        rle.areas([cell.mask for cell in frame.cells])
    truth = path.parent / "truth.csv"
    if not truth.exists():
        tables.write_annotations(truth, _TRUTH)
    scoring.score(truth, path)


def _read_submission(path: Path) -> None:
    problems = checker.check(path, _TRUTH)
    if problems:
        raise KitError(problems[0])


def _corrections(path: Path) -> None:
    corrections.save(path, {_TRUTH[0].id: _TRUTH[0]})


def _read_corrections(path: Path) -> None:
    corrections.apply(_TRUTH, path)


def _read_frames(path: Path) -> None:
    for frame in records.read_frames(path):
        rle.areas([cell.mask for cell in frame.cells])


def _read_metrics(path: Path) -> None:
    folder = path.parent / "03_train"
    folder.mkdir(exist_ok=True)
    (folder / path.name).write_bytes(path.read_bytes())
    results.weights(path.parent, "03_train")


def _read_record(path: Path) -> None:
    folder = path.parent / "03_train"
    folder.mkdir(exist_ok=True)
    (folder / path.name).write_bytes(path.read_bytes())
    runs.read(path.parent)


def _read_bundle(path: Path) -> None:
    if not (path.parent / offline.MANIFEST).exists():
        _make_bundle(path.parent)
        # The damaged list must not be mended from its copy.
        (path.parent / (offline.COPY + offline.SUMS)).unlink()
    bundle.read(path.parent, say=str)


def _read_events(path: Path) -> None:
    events.curves(path.parent)


def _profile(path: Path) -> None:
    path.write_bytes((profiles.NOTEBOOKS / "profiles" / "cpu.yaml").read_bytes())


def _job(path: Path) -> None:
    config.save(
        TrainConfig(out="x", train="t.npz", categories=("a",), model=ModelConfig(num_classes=1)), path
    )


def _record(path: Path) -> None:
    record.Record("k", True, 9.5, {"data": "x", "max_iter": 3}, machine={"CPU": "x"}).save(path.parent)


def _make_bundle(folder: Path) -> None:
    manifest = {"stage": "03_train", "weights": ["weights.pth"], "post": "post.yaml", "wheels": []}
    files.write_json(folder / offline.MANIFEST, manifest)
    for name in ("weights.pth", "post.yaml"):
        (folder / name).write_text(name)
    offline.write_sums(folder)


def _rows(path: Path) -> None:
    rows = ({"iteration": n, "total_loss": 3.5 / (n + 1), "lr": 1e-3, "map": 0.1 * n} for n in range(4))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


_SUBMISSION = "id,predicted\n" + "".join(
    f"{frame.id},{rle.to_text(cell.mask)}\n" for frame in _TRUTH for cell in frame.cells
)
_PREDICTED = _written(lambda path: tables.write_predictions(path, _TRUTH), "a.csv")

FORMATS: dict[str, Format] = {
    "png": Format(
        "a.png", _png(_LABELS.astype(np.uint16)), lambda path: (read_labels(path), read_image(path))
    ),
    "jpeg": Format("a.jpg", _jpeg(), lambda path: planes.read_frame(path, CHOICE)),
    "tiff": Format("a.tif", _tiff(_STACK[0, 0]), _read_tiff),
    "tiff of floats": Format("a.tif", _tiff(_LABELS / 2, extratags=[(0x112, "H", 1, 6)]), _read_tiff),
    "compressed tiff": Format("a.tif", _tiff(_STACK[0, 0], compression="lzw", predictor=True), _read_tiff),
    "hyperstack": Format(
        "a.tif", _tiff(_STACK, imagej=True, metadata={"axes": "ZCYX", "unit": "um"}), _read_tiff
    ),
    "ome-tiff": Format(
        "a.tif", _tiff(_STACK, ome=True, metadata={"axes": "CZYX", "PhysicalSizeX": 0.5}), _read_tiff
    ),
    "big-endian tiff": Format("a.tif", _tiff(_STACK, byteorder=">", bigtiff=True), _read_tiff),
    "cellpose": Format("a_seg.npy", _seg(), read_seg),
    "roi": Format("a.roi", _roi(), _read_rois),
    "zip of rois": Format("a.zip", _roi_zip(zipfile.ZIP_DEFLATED), _read_rois),
    "stored rois": Format("a.zip", _roi_zip(zipfile.ZIP_STORED), _read_rois),
    "coco": Format("a.json", _coco(), _read_coco_every_way, text=True),
    "train.csv": Format(
        "a.csv",
        _written(lambda path: tables.write_annotations(path, _TRUTH), "a.csv"),
        _read_train,
        text=True,
    ),
    "predictions": Format("a.csv", _PREDICTED, _read_table, text=True),
    "packed predictions": Format("a.csv.gz", gzip.compress(_PREDICTED, mtime=0), _read_table),
    "submission": Format("a.csv", _SUBMISSION.encode(), _read_submission, text=True),
    "corrections": Format(
        "corrections.csv", _written(_corrections, "corrections.csv"), _read_corrections, text=True
    ),
    "frames": Format(
        "a.npz", _written(lambda path: records.write_frames(path, _TRUTH), "a.npz"), _read_frames
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
    "bundle's sums": Format(
        offline.SUMS, _written(lambda path: _make_bundle(path.parent), offline.SUMS), _read_bundle, text=True
    ),
    "stage's record": Format("stage.json", _written(_record, "stage.json"), _read_record, text=True),
    "training's rows": Format("metrics.jsonl", _written(_rows, "metrics.jsonl"), _read_events, text=True),
}


def prepare(name: str, folder: Path) -> Path:
    """A format's good file in a folder, and the image that it speaks of; it is read once."""
    kind = FORMATS[name]
    (folder / "image.png").write_bytes(_png(_LABELS.astype(np.uint8)))
    (folder / kind.file).write_bytes(kind.content)
    kind.read(folder / kind.file)
    return folder / kind.file
