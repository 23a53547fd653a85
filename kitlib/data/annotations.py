"""A folder of cells to compare, with or without images: one of one's own, or what ``kit predict`` wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kitlib.data import cellpose, coco, dataset, labels, layout, rois
from kitlib.data.config import DEFAULTS, Finding, Findings
from kitlib.data.layout import Contents, Key
from kitlib.data.sources import Frames, Source
from kitlib.data.tables import Size
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.masks.topology import topology
from kitlib.records import UNTYPED, Cell, Frame

# What ``kit predict`` writes, that which keeps most of a cell first.
_EXPORTS = ("annotations.json", "labels", "coco", "rois")
# What it draws: neither images nor label images.
_PICTURES = "outlines"
# The grey levels of a photograph, read as numbers of cells, lie in many more parts than this.
_MANY_PARTS = 10


def open_annotations(folder: Path) -> Source:
    """The frames of a folder, as ``kitlib.scoring.open_source`` says.

    Raises:
        KitError: the folder holds no annotation, or one that cannot be read.
    """
    if dataset.is_competition(folder):
        return _annotated(folder)
    findings = Findings(folder)
    contents = layout.scan(folder, DEFAULTS.mask_suffixes, findings)
    pictures = folder / _PICTURES
    images = {key: path for key, path in contents.images.items() if pictures not in path.parents}
    if images and (contents.labels or contents.segs or contents.rois or contents.jsons):
        return _annotated(folder)
    exported = next((folder / name for name in _EXPORTS if (folder / name).exists()), None)
    if exported is not None and not images:
        return (
            open_annotations(exported) if exported.is_dir() else Frames(exported, coco.read_alone(exported))
        )
    if contents.rois and not (images or contents.labels or contents.segs or contents.jsons):
        return _Rois(folder, contents.rois)
    return Frames(folder, _read(images, contents, findings), _sentences(findings))


def _annotated(folder: Path) -> Frames:
    """The annotated images of a folder that holds images as well."""
    found = dataset.open_folder(folder)
    frames = [*found.labelled, *found.truth]
    faults = _sentences(found.findings)
    if not frames:
        why = f": {faults[0]}" if faults else ""
        raise KitError(f"{folder} holds no image with cells{why}; add label images or COCO JSON")
    return Frames(folder, frames, faults)


def _read(images: Mapping[Key, Path], contents: Contents, findings: Findings) -> list[Frame]:
    """The frames of annotations without images, of the first kind that there is."""
    if images or contents.labels:
        # A folder of label images alone; without a suffix or a folder that says so, they pass for images.
        files = _by_id({**images, **contents.labels}, findings, DEFAULTS.mask_suffixes)
        return [_labelled(name, path, labels.read_labels(path), findings) for name, path in files.items()]
    if contents.segs:
        files = _by_id(contents.segs, findings)
        return [_labelled(name, path, cellpose.read_seg(path), findings) for name, path in files.items()]
    frames = [frame for path in contents.jsons for frame in coco.read_alone(path)]
    counted = Counter(frame.id for frame in frames)
    if len(counted) < len(frames):
        name = counted.most_common(1)[0][0]
        raise KitError(f"{findings.folder} has two COCO files that list the image '{name}'; name one of them")
    if not frames:
        raise KitError(
            f"{findings.folder} holds no label image, COCO JSON or ROI of ImageJ; name a folder that does"
        )
    return frames


def _by_id(files: Mapping[Key, Path], findings: Findings, suffixes: Sequence[str] = ()) -> dict[str, Path]:
    """Files by the ids of their images; a second one of an image is reported."""
    result: dict[str, Path] = {}
    for key, path in files.items():
        other = result.setdefault(layout.id_of(key, suffixes), path)
        if other != path:
            findings.add(path, f"belongs to the same image as {other.name}")
    return result


def _labelled(name: str, path: Path, numbers: NDArray[np.integer], findings: Findings) -> Frame:
    masks = rle.from_labels(numbers)
    parts = topology(masks).parts
    if len(parts) > 1 and np.median(parts) > _MANY_PARTS:
        raise KitError(
            f"{path} looks like a picture, not like a label image; name a folder with label images"
        )
    if len(parts) == 1 and parts[0] > 1:
        findings.add(path, f"has a single number, in {parts[0]} parts", "read as one cell")
    height, width = numbers.shape
    return Frame(name, None, height, width, tuple(Cell(mask, UNTYPED) for mask in masks), UNTYPED)


class _Rois:
    """Zips of ImageJ's ROIs, which do not say how large the image is."""

    lacks_sizes = True

    def __init__(self, folder: Path, files: Mapping[Key, Path]) -> None:
        self.path, self._findings = folder, Findings(folder)
        self._files = _by_id(files, self._findings)

    @property
    def faults(self) -> list[str]:
        return _sentences(self._findings)

    def sizes(self) -> dict[str, Size]:
        return {}

    def frames(self, sizes: Mapping[str, Size], in_step: bool) -> Iterator[Frame]:
        for name, path in self._files.items():
            if name not in sizes:
                raise KitError(
                    f"{path} does not say how large its image '{name}' is, nor does the other side"
                )
            masks = rois.read_rois(path, *sizes[name], None, self._findings)
            yield Frame(name, None, *sizes[name], tuple(Cell(mask, UNTYPED) for mask in masks), UNTYPED)


def _sentences(findings: Sequence[Finding]) -> list[str]:
    return [f"{file} {fault}: {action}" for file, fault, action in findings]
