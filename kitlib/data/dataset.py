"""A folder of annotated cells in any usual layout: the competition's, or one's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kitlib.data import cellpose, competition, labels, layout, planes, rois
from kitlib.data.config import DEFAULTS, Finding, Findings, ReadingConfig
from kitlib.data.layout import Annotation, Entry
from kitlib.errors import KitError
from kitlib.masks.rle import RLE
from kitlib.offline import is_image
from kitlib.records import UNTYPED, Cell, Frame

_WITH = {**layout.KINDS, "coco": "outlines in COCO JSON"}
# The most cells of a frame that are predicted, unless a configuration says otherwise.
_MANY_CELLS = 1000


@dataclass(frozen=True)
class Dataset:
    """The frames of a folder.

    Attributes:
        layout: a sentence: what the folder was taken for.
        labelled: frames for training and validation.
        unlabelled: frames for pseudo labels.
        test: frames to predict, without cells.
        truth: of the test frames, those that are annotated, with their cells.
        categories: the types of the labelled cells, in alphabetical order.
        findings: the faults of the data, and what was done about each.
    """

    layout: str
    labelled: list[Frame]
    unlabelled: list[Frame]
    test: list[Frame]
    truth: list[Frame]
    categories: tuple[str, ...]
    findings: list[Finding]


def open_folder(data: Path | str, reading: ReadingConfig = DEFAULTS, only_labelled: bool = False) -> Dataset:
    """Read a folder of images and cells, whose layout is found by looking.

    The competition's folder is one with ``train.csv`` or ``sample_submission.csv``. In any other, each image
    goes with the file that holds its cells: a label image in ``labels/`` or ``masks/``, or beside the image
    with a suffix; COCO JSON; Cellpose's ``_seg.npy``; a zip of ImageJ's ROIs; or a folder ``masks/`` with one
    file a cell. Folders ``train``, ``test`` and ``unlabelled`` are these parts; without
    them, images with cells are labelled and the others unlabelled. Other folders become part of the ids:
    ``plate_A/img1.png`` is ``plate_A__img1``.

    What cannot be read is left out and listed in ``findings``.

    Args:
        data: the folder.
        reading: channels, planes, suffixes, and what folders mean.
        only_labelled: leave out the unlabelled and test images of the competition's folder, which are
            thousands.

    Raises:
        KitError: no folder, or nothing in it can be used; of the competition's folder as
            ``kitlib.data.competition``.

    Example:
        >>> open_folder("data/nuclei").layout  # doctest: +SKIP
        '487 images with label images; 54 test images'
    """
    data = Path(data)
    if not data.is_dir():
        raise KitError(f"{data} is not a folder; point --data at a folder of images and their cells")
    if is_competition(data):
        return _competition(data, only_labelled)
    return _own(data, reading)


def is_competition(data: Path) -> bool:
    """Whether a folder has the competition's layout, or holds its folder."""
    signs = ("train.csv", "sample_submission.csv", competition.LIVECELL)
    return any((root / name).exists() for root in (data, data / competition.FOLDER) for name in signs)


def locate(data: Path) -> Path:
    """The folder of a data set: ``data``, or the competition's folder in it.

    Raises:
        KitError: it is no folder, or has neither the competition's layout nor an image.
    """
    if is_competition(data):
        return competition.locate(data)
    if not data.is_dir():
        raise KitError(f"{data} is not a folder; point --data at a folder of images and their cells")
    if not any(is_image(path) for path in data.rglob("*")):
        raise KitError(
            f"{data} holds neither the competition's train.csv nor any image; point --data at one of both"
        )
    return data


def prepared(dataset: Dataset, reading: ReadingConfig, cache: Path) -> Dataset:
    """The data set with images that training and prediction read at once, see ``planes.prepare``.

    Args:
        dataset: of a folder of one's own.
        reading: what it was opened with.
        cache: a folder for converted images; is made.
    """
    parts = (dataset.labelled, dataset.unlabelled, dataset.test, dataset.truth)
    done = [planes.prepare(frames, reading, cache) for frames in parts]
    labelled, unlabelled, test, truth = (part.frames for part in done)
    findings = [*dataset.findings, *(finding for part in done for finding in part.findings)]
    return replace(
        dataset,
        labelled=labelled,
        unlabelled=unlabelled,
        test=test,
        truth=truth,
        findings=list(dict.fromkeys(findings)),
    )


def sources(data: Path, reading: ReadingConfig) -> dict[str, Path]:
    """The file of each image in a folder of one's own, by the frame's id."""
    findings = Findings(data)
    contents = layout.scan(data, reading.mask_suffixes, findings)
    return {entry.id: entry.image for entry in layout.entries(contents, reading.mask_suffixes, findings)}


def _competition(data: Path, only_labelled: bool) -> Dataset:
    root = competition.locate(data)
    labelled = competition.labelled(root)
    found = _categories(labelled)
    categories = competition.CATEGORIES if set(found) <= set(competition.CATEGORIES) else found
    name = f"the competition's folder: {len(labelled)} images in train.csv"
    if only_labelled:
        return Dataset(name, labelled, [], [], [], categories, [])
    findings = Findings(root)
    unlabelled = competition.unlabelled(
        root, lambda sentence: findings.add(root / "train_semi_supervised", sentence)
    )
    test = competition.test(root) if (root / "test").is_dir() else []
    truth = competition.truth(root) or []
    sentence = _sentence(name, unlabelled, test)
    return Dataset(sentence, labelled, unlabelled, test, truth, categories, list(findings))


def _own(data: Path, reading: ReadingConfig) -> Dataset:
    findings = Findings(data)
    contents = layout.scan(data, reading.mask_suffixes, findings)
    if not contents.images:
        raise KitError(f"{data} holds no image; put PNG or TIFF images there, or choose another folder")
    entries = layout.entries(contents, reading.mask_suffixes, findings)
    outlined = _outlined(contents.jsons, entries, data, findings)
    parts: dict[str, list[Frame]] = {"labelled": [], "unlabelled": [], "test": []}
    truth: list[Frame] = []
    kinds = Counter[str]()
    for entry in entries:
        with findings.leaving_out(entry.image, *(entry.annotation.files if entry.annotation else ())):
            frame, kind = _frame(entry, outlined.get(entry.image), reading, findings)
            part = _part(entry, kind, findings)
            parts[part].append(frame if part == "labelled" else replace(frame, cells=()))
            if part == "test" and kind:
                truth.append(frame)
            kinds[kind if part == "labelled" else ""] += 1
    has_annotations = any(entry.annotation for entry in entries) or bool(contents.jsons)
    _check_some_left(data, parts, truth, has_annotations, findings)
    named = [f"{count} images with {_WITH[kind]}" for kind, count in kinds.items() if kind]
    sentence = _sentence(" and ".join(named), parts["unlabelled"], parts["test"])
    categories = _categories(parts["labelled"])
    return Dataset(sentence, **parts, truth=truth, categories=categories, findings=list(findings))


# ------------------------------------------------------------------------------------------ frames


def _outlined(
    jsons: Sequence[Path], entries: Sequence[Entry], data: Path, findings: Findings
) -> dict[Path, Frame]:
    """The frames of COCO files by their images."""
    # Imported where it is needed: Kaggle lacks the package that reads JSON.
    from kitlib.data import coco

    annotated = {entry.image: entry.annotation for entry in entries}
    result: dict[Path, Frame] = {}
    for path in jsons:
        with findings.leaving_out(path):
            for frame in coco.CocoFile(path, _images_of(path, data, annotated), findings).frames():
                if frame.path is None or frame.path not in annotated:
                    findings.add(path, f"lists {frame.id}, which by its name is no image of cells")
                elif frame.path in result:
                    findings.add(
                        frame.path, f"is listed in {path.name} and in another COCO file", "passed over"
                    )
                else:
                    result[frame.path] = frame
    for image in result:
        other = annotated[image]
        if other is not None:
            findings.add(
                other.files[0], "is a second annotation of its image, beside COCO JSON", "passed over"
            )
    return result


def _images_of(path: Path, data: Path, images: Iterable[Path]) -> Path:
    """The nearest folder around a COCO file that holds images."""
    around = [folder for folder in path.parents if folder.is_relative_to(data)]
    return next((f for f in around if any(image.is_relative_to(f) for image in images)), data)


def _frame(
    entry: Entry, outlined: Frame | None, reading: ReadingConfig, findings: Findings
) -> tuple[Frame, str]:
    """The frame of an image, and what its cells come from: a key of ``_WITH``, "" for an image alone."""
    height, width = planes.size(entry.image, reading)
    folder = entry.folders[0] if entry.folders and reading.folders_are == "category" else None
    group = layout.frame_id(entry.folders, "").rstrip("_") if reading.folders_are == "group" else ""
    frame = Frame(entry.id, entry.image, height, width, category=folder, group=group or None)
    if entry.part == "unlabelled":
        return frame, ""
    if outlined is not None:
        if (outlined.height, outlined.width) != (height, width):
            raise KitError(
                f"is {width} wide, {height} high, but its COCO file says width {outlined.width}, height "
                f"{outlined.height}; correct the numbers or restore the image that they were made for"
            )
        return replace(frame, cells=outlined.cells, category=folder or outlined.category), "coco"
    if entry.annotation is None:
        return frame, ""
    category = folder or UNTYPED
    masks = _masks(entry, entry.annotation, height, width, reading, findings)
    cells = tuple(Cell(mask, category) for mask in masks)
    return replace(frame, cells=cells, category=category), entry.annotation.kind


def _masks(
    entry: Entry, annotation: Annotation, height: int, width: int, reading: ReadingConfig, findings: Findings
) -> list[RLE]:
    path = annotation.files[0]
    if annotation.kind == "roi":
        return rois.read_rois(path, height, width, reading.plane, findings)
    if annotation.kind == "cells":
        masks = labels.one_a_file(annotation.files, height, width, findings)
        if not masks:
            raise KitError(f"has no file in {path.parent.name} that can be read")
        return masks
    read = cellpose.read_seg if annotation.kind == "seg" else labels.read_labels
    fitted = labels.fitted(read(path, reading), entry.image, height, width, findings, path)
    return labels.cells(fitted, path, reading.relabel, findings)


# ------------------------------------------------------------------------------------------ parts


def _part(entry: Entry, kind: str, findings: Findings) -> str:
    """The part that a frame belongs to; of folders without parts, by whether the image has cells."""
    if entry.part == "labelled" and not kind:
        findings.add(entry.image, "has no file with its cells", "taken for unlabelled")
    if entry.part in ("test", "unlabelled"):
        return entry.part
    return "labelled" if kind else "unlabelled"


def _check_some_left(
    data: Path,
    parts: dict[str, list[Frame]],
    truth: Sequence[Frame],
    has_annotations: bool,
    findings: Findings,
) -> None:
    """Raise the first faults where no image is left, or none with cells although there are annotations."""
    annotated = parts["labelled"] or truth
    if not any(parts.values()):
        raise KitError(f"{data} holds no image that can be used: {findings.first_few()}")
    if has_annotations and not annotated and findings.first_few():
        raise KitError(f"{data} holds no annotated image that can be used: {findings.first_few()}")
    for frame in parts["labelled"]:
        if len(frame.cells) > _MANY_CELLS and frame.path is not None:
            fault = f"holds {len(frame.cells)} cells; by default, {_MANY_CELLS} are predicted"
            findings.add(frame.path, fault, "all are read; raise max_cells to predict as many")


def _categories(frames: Sequence[Frame]) -> tuple[str, ...]:
    return tuple(sorted({cell.category for frame in frames for cell in frame.cells}))


def _sentence(labelled: str, unlabelled: Sequence[Frame], test: Sequence[Frame]) -> str:
    named = [f"{len(unlabelled)} unlabelled images"] if unlabelled else []
    named += [f"{len(test)} test images"] if test else []
    return "; ".join([labelled or "no images with cells", *named])
