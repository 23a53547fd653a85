"""What lies in a folder of one's own: each image with the files that hold its cells, found by their names."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

from kitlib.data.config import Findings
from kitlib.offline import is_image

_IMAGES = frozenset(("images", "image", "imgs", "img", "raw"))
_LABELS = frozenset(("labels", "label", "masks", "mask"))
"""Names, in small letters, of folders that hold images and label images."""
_MASKS = frozenset(("masks", "mask"))
_PARTS = {
    **dict.fromkeys(("train", "training", "labelled", "labeled", "val", "valid", "validation"), "labelled"),
    **dict.fromkeys(("unlabelled", "unlabeled", "train_semi_supervised"), "unlabelled"),
    **dict.fromkeys(("test", "testing", "stage1_test", "stage2_test"), "test"),
    "stage1_train": "labelled",
}
"""Names of folders that hold a part of the data, and which part."""
# What the name of an image may have after the common part, where its label image has a suffix as well.
_IMAGE_SUFFIXES = ("_img", "_image", "_raw")
# What Cellpose writes beside an image that is neither an image nor a label image.
_PASSED_OVER = ("_flows", "_cp_flows", "_cp_output", "_cp_outlines")
# What ends the name of Cellpose's own files.
_SEG_SUFFIX = "_seg.npy"
_ROI_SUFFIXES = ("_roiset", "_rois", "_roi")

# The folders below the data's, without those that say the role of a file, and the name without extension.
Key = tuple[str, ...]


class Annotation(NamedTuple):
    """The files that hold the cells of an image, and what they are: a key of ``KINDS``."""

    kind: str
    files: tuple[Path, ...]


KINDS = {
    "seg": "Cellpose's _seg.npy files",
    "label": "label images",
    "roi": "ROIs of ImageJ",
    "cells": "one mask file a cell",
}
"""What holds cells, in the order in which it is taken where an image has several."""


class Entry(NamedTuple):
    """An image, its folders and its annotation.

    Attributes:
        folders: below the data's folder, without parts and roles: plates or classes.
        part: "labelled", "unlabelled" or "test", by a folder's name; "" where none says.
    """

    id: str
    image: Path
    folders: tuple[str, ...]
    part: str
    annotation: Annotation | None


@dataclass
class Contents:
    """The files of a folder by their role; keys are those of the images that they belong to."""

    images: dict[Key, Path] = field(default_factory=dict)
    labels: dict[Key, Path] = field(default_factory=dict)
    segs: dict[Key, Path] = field(default_factory=dict)
    rois: dict[Key, Path] = field(default_factory=dict)
    jsons: list[Path] = field(default_factory=list)


def frame_id(folders: Sequence[str], stem: str) -> str:
    """The id of an image: its folders and its name, joined by two underscores.

    A folder of the image's own name, as the 2018 Data Science Bowl has it, does not count.

    Example:
        >>> frame_id(["plate_A"], "img1")
        'plate_A__img1'
    """
    kept = [folder for folder in folders if folder != stem]
    return "__".join([*kept, stem])


def image_id(path: PurePath) -> str:
    """The id of an image by its path in the data's folder: ``frame_id``, without parts and roles.

    Example:
        >>> image_id(PurePath("test/images/plate_A/img1.png"))
        'plate_A__img1'
    """
    *folders, _ = (_normal(name) for name in path.parts)
    return frame_id(part_of(folders)[1], _normal(path.stem))


def id_of(key: Key, suffixes: Sequence[str] = ()) -> str:
    """The id of the image that an annotation's key belongs to.

    Args:
        key: of ``Contents``.
        suffixes: of names of annotations, which are no part of the id.
    """
    return frame_id(part_of(key[:-1])[1], _without(key[-1], suffixes) or key[-1])


def part_of(names: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """The part of the data that the first of some folders names, "" for none, and the folders left."""
    plain = tuple(name for name in names if name.lower() not in _IMAGES | _LABELS)
    part = _PARTS.get(plain[0].lower(), "") if plain else ""
    return part, plain[1:] if part else plain


def scan(folder: Path, mask_suffixes: Sequence[str], findings: Findings) -> Contents:
    """The files below a folder by their role; hidden ones are passed over.

    Args:
        folder: the data's.
        mask_suffixes: of names of label images, as ``ReadingConfig`` has them.
        findings: where a second image of one name is reported.
    """
    contents = Contents()
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        for name in sorted(names):
            if not name.startswith("."):
                _place(contents, Path(root, name), folder, mask_suffixes, findings)
    return contents


def entries(contents: Contents, mask_suffixes: Sequence[str], findings: Findings) -> list[Entry]:
    """Each image with its annotation, if it has one.

    Args:
        contents: of the data's folder.
        mask_suffixes: as for ``scan``.
        findings: where images of one id and annotations without an image are reported.
    """
    found = _annotations(contents, mask_suffixes, findings)
    result, ids = [], dict[str, Path]()
    for key, image in contents.images.items():
        part, folders = part_of(key[:-1])
        name = frame_id(folders, key[-1])
        if name in ids:
            findings.add(image, f"would have the id of {ids[name]}, {name}")
            continue
        ids[name] = image
        result.append(Entry(name, image, folders, part, _chosen(found.get(key, []), findings)))
    return result


def _place(
    contents: Contents, path: Path, folder: Path, mask_suffixes: Sequence[str], findings: Findings
) -> None:
    """Add one file to the contents."""
    folders = path.relative_to(folder).parts[:-1]
    roles = [name.lower() for name in folders if name.lower() in _IMAGES | _LABELS]
    plain = tuple(_normal(name) for name in folders if name.lower() not in _IMAGES | _LABELS)
    stem, suffix = bare_stem(path), path.suffix.lower()
    bare = _without(stem, mask_suffixes)
    if path.name.lower().endswith(_SEG_SUFFIX):
        contents.segs.setdefault((*plain, stem[: -len("_seg")]), path)
    elif suffix in (".zip", ".roi"):
        bare = _without(stem, _ROI_SUFFIXES) or stem.removeprefix("RoiSet_")
        contents.rois.setdefault((*plain, bare), path)
    elif suffix == ".json":
        contents.jsons.append(path)
    elif is_image(path) and _without(stem, _PASSED_OVER) is None:
        is_label = roles[-1] in _LABELS if roles else bare is not None
        found, key = (contents.labels, stem) if is_label else (contents.images, stem)
        other = found.setdefault((*plain, key), path)
        if other != path:
            findings.add(path, f"has the name of {other.name}; leave one file of that name")


def bare_stem(path: Path) -> str:
    """The name of a file without its extension, which may be double: ``img1.ome.tif`` is img1."""
    stem = _normal(path.stem)
    return stem[: -len(".ome")] if stem.lower().endswith(".ome") and len(stem) > len(".ome") else stem


def _normal(name: str) -> str:
    """A name with composed letters: a Mac's zip holds them decomposed."""
    return unicodedata.normalize("NFC", name)


def _without(stem: str, suffixes: Sequence[str]) -> str | None:
    """A name without the longest of the suffixes that it ends in; None where it ends in none."""
    fitting = [s for s in suffixes if stem.lower().endswith(s.lower()) and len(stem) > len(s)]
    return stem[: -max(map(len, fitting))] if fitting else None


def _annotations(
    contents: Contents, mask_suffixes: Sequence[str], findings: Findings
) -> dict[Key, list[Annotation]]:
    """The annotations of each image by its key, and those without an image reported."""
    images = _Images(contents.images)
    result: dict[Key, list[Annotation]] = defaultdict(list)
    lone: dict[Key, list[Path]] = defaultdict(list)
    for kind, files in (("seg", contents.segs), ("label", contents.labels), ("roi", contents.rois)):
        for key, path in files.items():
            image = images.of(key, mask_suffixes if kind == "label" else ())
            if image is None and kind == "roi":
                image = images.only_one(key[:-1])
            if image is not None:
                result[image].append(Annotation(kind, (path,)))
            elif kind == "label" and path.parent.name.lower() in _MASKS:
                lone[key[:-1]].append(path)
            else:
                findings.add(path, "has no image of its name", "passed over")
    for folders, paths in lone.items():
        image = images.only_one(folders)
        if image is not None and image not in result:
            result[image].append(Annotation("cells", tuple(paths)))
        else:
            for path in paths:
                findings.add(path, "has no image of its name", "passed over")
    return result


class _Images:
    """The keys of images, searched for the one that an annotation belongs to."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = set(keys)
        self._by_stem: dict[str, list[Key]] = defaultdict(list)
        self._by_folders: dict[Key, list[Key]] = defaultdict(list)
        for key in keys:
            self._by_stem[key[-1]].append(key)
            self._by_folders[key[:-1]].append(key)

    def of(self, key: Key, suffixes: Sequence[str]) -> Key | None:
        """The image of an annotation's key: in its folders, else the only one of its name in its part."""
        folders, stem = key[:-1], key[-1]
        bare = _without(stem, suffixes)
        stems = [stem] if bare is None else [stem, bare, *(bare + suffix for suffix in _IMAGE_SUFFIXES)]
        for name in stems:
            if (*folders, name) in self._keys:
                return (*folders, name)
        for name in stems:
            same_part = [k for k in self._by_stem[name] if part_of(k[:-1])[0] == part_of(folders)[0]]
            if len(same_part) == 1:
                return same_part[0]
        return None

    def only_one(self, folders: Key) -> Key | None:
        """The image in some folders, where there is one alone."""
        found = self._by_folders[folders]
        return found[0] if len(found) == 1 else None


def _chosen(annotations: Sequence[Annotation], findings: Findings) -> Annotation | None:
    """The first of an image's annotations; the others are reported."""
    for other in annotations[1:]:
        taken = annotations[0].files[0].name
        findings.add(other.files[0], f"is a second annotation of its image, beside {taken}", "passed over")
    return annotations[0] if annotations else None
