"""Cells of your own: images beside label images. ``kitlib.data.coco`` reads those of a COCO JSON file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kitlib.data.images import check_size, first_few, image_files
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Cell, Frame


def from_labels(images_dir: Path | str, labels_dir: Path | str, category: str = "cell") -> list[Frame]:
    """Frames from two folders: images, and label images of the same names (extensions may differ).

    Args:
        images_dir: grey or RGB images, 8 or 16 bit.
        labels_dir: see ``_read_labels``.
        category: what every cell is called.

    Raises:
        KitError: an image without a label image or the reverse, different sizes, or a label image that is
        none.
    """
    images, labels = image_files(images_dir), image_files(labels_dir)
    if not images:
        raise KitError(f"{images_dir} holds no image; put PNG or TIFF images there, or choose another folder")
    _check_pairs(images, labels, Path(images_dir), Path(labels_dir))
    return [_frame(path, labels[stem], category) for stem, path in images.items()]


def _read_labels(path: Path | str) -> NDArray[np.integer]:
    """A label image as (H, W) integers: 0 is background, each cell has a number of its own.

    8-, 16- or 32-bit grey PNG or TIFF, palette PNG (the indices count), or float TIFF that holds whole
    numbers.

    Raises:
        KitError: colour, several pages, fractions, negative numbers, a 0/255 mask of several cells, or not an
        image.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            pages, labels = getattr(image, "n_frames", 1), np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise KitError(
            f"{path} is truncated or not a label image ({error}); "
            "save it as 8- or 16-bit PNG, or as 8-, 16- or 32-bit TIFF"
        ) from error
    wrong = _wrong(labels, pages)
    if wrong:
        raise KitError(f"{path} {wrong}")
    return labels if labels.dtype.kind in "iu" else labels.astype(np.int64)


def _wrong(labels: NDArray, pages: int) -> str | None:
    """Why an array is no label image, and the remedy; None if it is one."""
    if pages > 1:
        return f"has {pages} pages; save each page as a label image of its own"
    if labels.ndim != 2:
        return (
            "is a colour image; save numbers of cells, not colours, as one grey channel (16-bit PNG or TIFF)"
        )
    if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
        return "holds fractions; a label image holds whole numbers: 0 for background, one number a cell"
    if labels.size and labels.min() < 0:
        return "holds negative numbers; use 0 for background and 1, 2, ... for the cells"
    if labels.dtype == np.bool_ or _is_mask(labels):
        return (
            "is a mask of all cells together, so the cells cannot be distinguished; number them first, "
            "for example with skimage.measure.label"
        )
    return None


def _is_mask(labels: NDArray) -> bool:
    """Whether only 0 and 255 occur, and the 255 lies in several parts."""
    cells = labels == 255
    if not cells.any() or not (cells | (labels == 0)).all():
        return False
    return cv2.connectedComponents(cells.view(np.uint8), connectivity=8)[0] > 2


def _check_pairs(
    images: dict[str, Path], labels: dict[str, Path], images_dir: Path, labels_dir: Path
) -> None:
    bare = images.keys() - labels.keys()
    if bare:
        raise KitError(
            f"{len(bare)} images in {images_dir} have no label image of the same name in {labels_dir}: "
            f"{first_few(bare)}; add it (all 0 where there is no cell), or take the image out"
        )
    lone = labels.keys() - images.keys()
    if lone:
        raise KitError(
            f"{len(lone)} label images in {labels_dir} have no image of the same name in {images_dir}: "
            f"{first_few(lone)}; add the image, or take the label image out"
        )


def _frame(path: Path, labels_path: Path, category: str) -> Frame:
    labels = _read_labels(labels_path)
    height, width = labels.shape
    check_size(path, height, width, str(labels_path))
    cells = tuple(Cell(mask, category) for mask in rle.from_labels(labels))
    return Frame(path.stem, path, height, width, cells, category)
