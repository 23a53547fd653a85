"""Frames with the cells that a predictor finds in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kitlib.data.images import read_image
from kitlib.errors import KitError
from kitlib.predict.predictor import Predictor
from kitlib.records import Frame

Image = NDArray[np.uint8]


def predict_frames(predictor: Predictor, frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the frames, in their order, with the cells that are found in them in place of their own.

    Raises:
        KitError: a frame without an image file, an unreadable image, or one of the wrong size.
    """
    for frame, image in read_ahead(frames):
        yield replace(frame, cells=predictor(image()))


def read_ahead(frames: Iterable[Frame]) -> Iterator[tuple[Frame, Callable[[], Image]]]:
    """Yield each frame and what hands over its image, or raises why it cannot be read; the next image is read
    meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for frame in frames:
            this, ahead = ahead, (frame, reader.submit(_read, frame).result)
            if this is not None:
                yield this
        if ahead is not None:
            yield ahead


def _read(frame: Frame) -> Image:
    if frame.path is None:
        raise KitError(f"frame {frame.id} has no image file; predicting needs one")
    return read_image(frame.path, frame.height, frame.width)
