"""Frames in order, with what is found in each."""

import numpy as np
import pytest
from PIL import Image

from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.predict.infer import predict_frames
from kitlib.records import Cell, Frame


@pytest.fixture
def frames(tmp_path):
    made = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.full((40, 60), i, np.uint8)).save(path)
        made.append(Frame(str(i), path, 40, 60, category="cort", group="g"))
    return made


def first_pixel(image):
    """A predictor whose cell says which image it saw."""
    return (Cell(rle.from_mask(np.ones((40, 60), bool)), "cort", image[0, 0] / 10),)


def test_frames_keep_their_order_and_all_else(frames):
    found = list(predict_frames(first_pixel, frames))
    assert [f.id for f in found] == [f.id for f in frames]
    assert [f.cells[0].score for f in found] == [0, 0.1, 0.2, 0.3, 0.4]
    assert found[0].group == "g"
    assert list(predict_frames(first_pixel, [])) == []


def test_a_bad_image_is_named(frames):
    with pytest.raises(KitError, match="frame x has no image file"):
        list(predict_frames(first_pixel, [Frame("x", None, 40, 60)]))
    frames[1].path.write_bytes(frames[0].path.read_bytes()[:60])
    found = predict_frames(first_pixel, frames)
    assert next(found).id == "0"
    with pytest.raises(KitError, match=r"1\.png"):
        next(found)
