"""Synthetic cell lines in the layout of LIVECell: TIFF images by line, and COCO polygons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import measure

from kitlib import files
from kitlib.data.synthetic.frames import frame, frame_id
from kitlib.masks import rle
from kitlib.masks.rle import RLE

LINES = ("SHSY5Y", "A172", "Huh7")
FOLDERS = {
    "train": "livecell_train_val_images",
    "val": "livecell_train_val_images",
    "test": "livecell_test_images",
}
_ROWS = {"train": "A", "val": "E", "test": "G"}  # splits share no well
_INFO = {
    "year": "2021",
    "version": "1.0",
    "description": "Synthetic cells in the layout of the LIVECell 2021 Dataset",
    "contributor": "kitlib",
    "url": "",
    "date_created": "2021/01/19",
}
_LICENCE = {"id": 1, "name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
HEAD = {
    "info": _INFO,
    "licenses": [_LICENCE],
    "categories": [{"supercategory": "cell", "id": 1, "name": "cell"}],
}
"""What an annotation file says before its images and annotations."""


def write_split(root: Path, split: str, seed: int, images: int, size: tuple[int, int]) -> None:
    """Write one split under ``root`` (LIVECell_dataset_2021): its images, and its annotations as COCO JSON.

    Args:
        root: the folder to write into.
        split: "train", "val" or "test".
        seed: draws the frames.
        images: how many; the lines take turns.
        size: height and width in pixels.
    """
    coco = {**HEAD, "images": [], "annotations": []}
    number = 1  # images and annotations count on in one sequence, as LIVECell's do
    for index in range(images):
        line = LINES[index % len(LINES)]
        name = image_name(line, split, index // len(LINES))
        picture, cells = frame(line, int(frame_id(seed, "livecell", split, index), 16), size)
        folder = files.make_folder(root / "images" / FOLDERS[split] / line)
        with files.atomic(folder / f"{name}.tif") as temporary:
            Image.fromarray(picture).save(temporary, compression="tiff_lzw")
        coco["images"].append(image_entry(number, name, size))
        for annotation_id, cell in enumerate(cells, number + 1):
            coco["annotations"].append(
                {"id": annotation_id, "image_id": number, **outline(polygon(cell.mask))}
            )
        number += 1 + len(cells)
    target = root / "annotations" / "LIVECell" / f"livecell_coco_{split}.json"
    files.write_text(target, json.dumps(coco))


def polygon(mask: RLE) -> NDArray[np.float64]:
    """The outline of a mask that is one component without holes: (n, 2) x, y in COCO's pixel coordinates."""
    x0, y0, x1, y1 = rle.boxes([mask])[0].tolist()
    crop = rle.crop(mask, (x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    (rows_columns,) = measure.find_contours(crop.astype(float), 0.5)
    points = rows_columns[:-1, ::-1] + [x0 - 0.5, y0 - 0.5]  # a pixel's centre lies at its index + 0.5
    return np.clip(points, 0, [mask["size"][0], mask["size"][1]])


def image_entry(number: int, name: str, size: tuple[int, int]) -> dict:
    """How LIVECell's files list the image ``name`` (without extension) of ``size`` (height, width)."""
    return {
        "id": number,
        "width": size[1],
        "height": size[0],
        "file_name": f"{name}.tif",
        "original_filename": f"{name}.png",
        "url": "",
    }


def image_name(line: str, split: str, index: int) -> str:
    """As LIVECell names images: line, well, position, age of the culture, number of the crop."""
    well, age = divmod(index, 2)
    return f"{line}_Phase_{_ROWS[split]}{well % 12 + 1}_{well // 12 + 1}_{age:02d}d12h00m_1"


def outline(points: NDArray[np.float64]) -> dict:
    """What a COCO annotation says of a cell with the outline ``points``, (n, 2) x, y in pixels."""
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    after = np.roll(points, -1, axis=0)
    area = abs(float(np.sum(points[:, 0] * after[:, 1] - after[:, 0] * points[:, 1]))) / 2
    return {
        "category_id": 1,
        "segmentation": [points.ravel().tolist()],
        "area": area,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
    }
