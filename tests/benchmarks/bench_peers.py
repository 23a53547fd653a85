"""Masks and COCO's AP beside the packages that one would take instead, and how both grow.

It needs them: pip install hotcoco faster-coco-eval rlemasklib
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from harness import Row, Skip, race
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.metric.comparison import compare
from kitlib.records import Cell, Frame

HEIGHT, WIDTH = 520, 704


def import_peers() -> tuple[Any, Any, Any]:
    """hotcoco, faster_coco_eval and rlemasklib.

    Raises:
        Skip: one is not installed.
    """
    try:
        import faster_coco_eval
        import hotcoco
        import rlemasklib
    except ImportError as error:
        raise Skip(f"{error}; pip install hotcoco faster-coco-eval rlemasklib") from error
    return hotcoco, faster_coco_eval, rlemasklib


def labels(cells: int, seed: int = 0) -> NDArray[np.int32]:
    """A label map of discs that together take a quarter of the frame, however many they are."""
    found = np.zeros((HEIGHT, WIDTH), np.int32)
    rng, (y, x) = np.random.default_rng(seed), np.indices(found.shape)
    area = HEIGHT * WIDTH / 4 / cells
    for number in range(1, cells + 1):
        row, column = rng.uniform(0, found.shape)
        found[(y - row) ** 2 + (x - column) ** 2 < area / np.pi] = number
    return found


def frames(number: int, cells: int) -> tuple[list[Frame], list[Frame]]:
    """True and predicted frames: a few different ones, repeated; predictions are moved by two pixels."""
    rng, truth, predicted = np.random.default_rng(1), [], []
    for seed in range(4):
        found = labels(cells, seed)
        moved = np.roll(found, (2, 2), axis=(0, 1))
        for image, map_, kept in ((truth, found, 1), (predicted, moved, 0.9)):
            masks = [m for m in rle.from_labels(map_) if rng.random() <= kept]
            image.append(tuple(Cell(m, "cort", float(rng.random())) for m in masks))
    return tuple(
        [Frame(f"f{i}", None, HEIGHT, WIDTH, cells_of[i % 4], "cort") for i in range(number)]
        for cells_of in (truth, predicted)
    )


def coco_files(truth: list[Frame], predicted: list[Frame]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Both as COCO has them."""

    def rows(frames: list[Frame]) -> Iterator[dict[str, Any]]:
        for image, frame in enumerate(frames, 1):
            for cell in frame.cells:
                mask = rle.to_coco(cell.mask)
                yield {
                    "image_id": image,
                    "category_id": 1,
                    "segmentation": {"size": mask["size"], "counts": mask["counts"].decode()},
                    "area": int(rle.areas([cell.mask])[0]),
                    "score": cell.score,
                }

    box = {"bbox": [0, 0, 1, 1], "iscrowd": 0}
    annotations = [{**row, **box, "id": n} for n, row in enumerate(rows(truth), 1)]
    images = [{"id": n, "height": HEIGHT, "width": WIDTH} for n in range(1, len(truth) + 1)]
    known = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cort"}]}
    return known, list(rows(predicted))


def faster_coco(package: Any, known: dict[str, Any], found: list[dict[str, Any]]) -> float:
    """AP by faster-coco-eval, with as many detections as ours."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = package.COCO(known)
        judged = package.COCOeval_faster(truth, truth.loadRes([dict(row) for row in found]), iouType="segm")
        judged.params.maxDets = [1, 100, 2000]
        judged.evaluate()
        judged.accumulate()
    precision = judged.eval["precision"][:, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def ours(truth: list[Frame], predicted: list[Frame]) -> float:
    """AP by the kit, which measures much else on the way."""
    return compare(truth, predicted).all.coco_ap


def rows() -> Iterator[Row]:
    """The rows of this module."""
    hotcoco, faster_coco_eval, rlemasklib = import_peers()
    yield from mask_rows(hotcoco.mask, faster_coco_eval.mask, rlemasklib)
    for cells in (10, 100, 1000):
        yield ap_row(faster_coco_eval, 20, cells, "COCO's AP, by cells a frame", at=cells)
    for number in (50, 500, 5000):
        yield ap_row(faster_coco_eval, number, 10, "COCO's AP, by frames", at=number)


def ap_row(package: Any, number: int, cells: int, name: str, at: float) -> Row:
    """AP of a number of frames; both have to say the same."""
    truth, predicted = frames(number, cells)
    theirs = partial(faster_coco, package, *coco_files(truth, predicted))
    if abs(theirs() - ours(truth, predicted)) > 1e-6:
        raise AssertionError(f"{number} frames of {cells} cells: the two APs differ")
    work = f"{number:,} frames of {cells:,} cells; faster-coco-eval, from a dictionary"
    return Row(name, work, *race(partial(ours, truth, predicted), theirs, 1, warm=False), at=at)


def mask_rows(hotcoco: Any, faster: Any, rlemasklib: Any) -> Iterator[Row]:
    """The same work by the kit and by each package's masks."""
    for cells in (10, 100, 1000):
        found = labels(cells)
        masks, present = rle.from_labels(found), np.unique(found)[1:]
        other = rle.from_labels(np.roll(found, (2, 2), axis=(0, 1)))
        encode = {
            "hotcoco": lambda m: hotcoco.encode(np.asfortranarray(m.view(np.uint8))),
            "rlemasklib": lambda m: rlemasklib.encode(m.view(np.uint8)),
        }
        for name, one in encode.items():
            each = partial(_each, one, [found == n for n in present])
            work = f"{len(present)} cells; {name}, a mask at a time, masks already made"
            yield Row("label map to masks", work, *race(partial(rle.from_labels, found), each, 3))
        packages = {"hotcoco": hotcoco, "faster-coco-eval": faster, "rlemasklib": rlemasklib}
        for name, package in packages.items():
            both = (partial(_each, one, masks) for one in (rle.to_mask, package.decode))
            yield Row("mask to pixels", f"{len(masks)} cells, whole frames; {name}", *race(*both, 3))
        overlap = {"hotcoco": hotcoco.iou, "faster-coco-eval": faster.iou}
        for name, one in overlap.items():
            theirs = partial(one, masks, other, [0] * len(other))
            work = f"{len(masks)} x {len(other)} cells; {name}"
            yield Row("IoU of all pairs", work, *race(partial(rle.iou, masks, other), theirs, 3))


def _each(work: Callable[[Any], object], items: list[Any]) -> None:
    for item in items:
        work(item)
