"""Predicted frames compared with true ones: the quality of the cells in all, by type and by image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kitlib.errors import KitError
from kitlib.metric.average_precision import AveragePrecision, average_precision, mean_over_types
from kitlib.metric.competition import paired
from kitlib.metric.quality import Measured, Quality, measure, summarize
from kitlib.records import Cell, Frame


@dataclass(frozen=True)
class Comparison:
    """How good predicted frames are.

    Attributes:
        all: of all cells, whatever their type; COCO's AP is the mean over the types if predictions have them.
        by_type: of each type, where there are several. Where each image holds true cells of one type, all
            cells in the images of that type are compared; else the true and predicted cells of that type.
        by_image: of each image by id, in the order of the truth.
        unpredicted: ids of the true images that have no predicted frame.
        scored: whether the predicted cells have scores.
        overlap: the share of the predicted cells' area that lies in another one as well.
    """

    all: Quality
    by_type: dict[str, Quality]
    by_image: dict[str, Quality]
    unpredicted: tuple[str, ...]
    scored: bool
    overlap: float


def compare(truth: Iterable[Frame], predictions: Iterable[Frame], predicted_only: bool = False) -> Comparison:
    """Measure predictions against the truth, frame by frame as they are read.

    Args:
        truth: frames with their annotated cells, each id once; these are the images that count.
        predictions: frames with predicted cells, each id once. A missing frame has no predictions.
        predicted_only: leave out true images that have no predicted frame.

    Raises:
        KitError: no true frame is left, or a prediction for an image without truth or of another size.
    """
    images: dict[int, _Image] = {}
    unpredicted: dict[int, str] = {}
    for place, frame, predicted in paired(truth, predictions):
        if predicted is None:
            unpredicted[place] = frame.id
        if predicted is not None or not predicted_only:
            images[place] = _image(frame, predicted.cells if predicted else ())
    if not images:
        why = "no true image has predictions" if unpredicted else "there is no true image to score against"
        raise KitError(f"{why}; compare at least one annotated image with its predictions")
    return _comparison([images[place] for place in sorted(images)], tuple(unpredicted.values()))


@dataclass(frozen=True)
class _Image:
    """An image, as far as it is needed once its masks are compared.

    Attributes:
        types: of its true cells; the frame's own where there is no cell.
        predicted_types: of its predicted cells.
        all: measured of all its cells together.
        by_type: measured of its true and predicted cells of each type.
    """

    id: str
    types: frozenset[str]
    predicted_types: frozenset[str]
    scored: bool
    all: Measured
    by_type: dict[str, Measured]


def _image(frame: Frame, predicted: Sequence[Cell]) -> _Image:
    types = frozenset(cell.category for cell in frame.cells)
    predicted_types = frozenset(cell.category for cell in predicted)
    measured = measure(frame.cells, predicted)
    if len(types | predicted_types) <= 1:
        by_type = dict.fromkeys(types | predicted_types, measured)
    else:
        by_type = {
            name: measure(
                *([cell for cell in cells if cell.category == name] for cells in (frame.cells, predicted))
            )
            for name in sorted(types | predicted_types)
        }
    return _Image(
        id=frame.id,
        types=types or frozenset([frame.category] if frame.category else ()),
        predicted_types=predicted_types,
        scored=any(cell.score is not None for cell in predicted),
        all=measured,
        by_type=by_type,
    )


def _comparison(images: Sequence[_Image], unpredicted: tuple[str, ...]) -> Comparison:
    types = sorted(frozenset[str]().union(*(image.types for image in images)))
    typed = any(image.predicted_types.intersection(types) for image in images)
    groups = _groups(images, types, typed)
    scored = any(image.scored for image in images)
    precisions = _precisions(images, groups, types, typed) if scored else {}
    area = sum(image.all.predicted_area for image in images)
    overlap = sum(image.all.overlap for image in images)
    return Comparison(
        all=summarize([image.all for image in images], precisions.get("")),
        by_type={name: summarize(group, precisions.get(name)) for name, group in groups.items()},
        by_image={image.id: summarize([image.all]) for image in images},
        unpredicted=unpredicted,
        scored=scored,
        overlap=overlap / (area + overlap) if area else 0.0,
    )


def _groups(images: Sequence[_Image], types: Sequence[str], typed: bool) -> dict[str, list[Measured]]:
    """What is measured of each type; nothing of a single type, nor of mixed cells predicted untyped."""
    if len(types) < 2:
        return {}
    if all(len(image.types) <= 1 for image in images):
        return {name: [image.all for image in images if name in image.types] for name in types}
    return {name: _of_type(images, name) for name in types} if typed else {}


def _of_type(images: Sequence[_Image], name: str) -> list[Measured]:
    return [image.by_type[name] for image in images if name in image.by_type]


def _precisions(
    images: Sequence[_Image], groups: Mapping[str, Sequence[Measured]], types: Sequence[str], typed: bool
) -> dict[str, AveragePrecision | None]:
    """COCO's AP of each type, and under "" that of all: the mean over the types, as COCO has it."""
    if not typed:
        parts = {"": [image.all for image in images], **groups}
        return {name: average_precision([m.detections for m in part]) for name, part in parts.items()}
    by_type = {name: average_precision([m.detections for m in _of_type(images, name)]) for name in types}
    return {"": mean_over_types(by_type), **by_type}
