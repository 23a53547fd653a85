"""A trained network as a TorchScript file, for programs with PyTorch and torchvision but without this kit."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import torch
from torch import Tensor, nn

from kitlib import files
from kitlib.errors import KitError
from kitlib.model import heads
from kitlib.predict import models
from kitlib.predict.config import PredictConfig

if TYPE_CHECKING:
    from detectron2.modeling import GeneralizedRCNN

#: Sides of the images on which the network is traced, first, and compared, the others.
_SIZES = ((128, 160), (96, 96), (160, 112))
# Numbers up to 1, or the parts of pixels.
_TOLERANCE = 1e-4


class _Network(nn.Module):
    """Of one image, (3, H, W) grey levels from 0 to 255: boxes, scores, classes and masks in the boxes."""

    def __init__(self, model: GeneralizedRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (found,) = self.model.inference([{"image": image}], do_postprocess=False)
        return found.pred_boxes.tensor, found.scores, found.pred_classes, found.pred_masks


def write(weights: Path, out: Path, config: PredictConfig) -> tuple[str, ...]:
    """Write the network of a checkpoint as a TorchScript file, if its output is that of the network.

    The file's function takes a (3, H, W) tensor of grey levels, the same three times, of any size. It gives
    ``boxes`` (N, 4) x0, y0, x1, y1 in pixels, ``scores`` (N,), ``classes`` (N,), and ``masks``
    (N, 1, 28, 28), probabilities within the boxes; best first. Tiles, several scales and post-processing are
    not in it. The extra file ``categories.json`` has the names of the classes.

    Args:
        weights: a checkpoint.
        out: the file.
        config: ``score_floor`` and ``max_cells`` become part of the network.

    Returns:
        The names of the classes.

    Raises:
        KitError: as ``models.load_model``, the output differs, or the file cannot be written.
    """
    model, categories = models.load_model(weights)
    network = _Network(model).eval()
    with models.ready([model], config.score_floor, config.max_cells), _traceable():
        first, *others = (_image(*size) for size in _SIZES)
        traced = torch.jit.trace(network, (first,), check_trace=False)
    with models.ready([model], config.score_floor, config.max_cells):
        for image in others:
            _check_equal(traced(image), network(image), weights)
    with files.atomic(out) as temporary:
        torch.jit.save(traced, str(temporary), _extra_files={"categories.json": json.dumps(categories)})
    return categories


@contextmanager
def _traceable() -> Iterator[None]:
    """Let no number of boxes become a constant of the traced network."""
    with ExitStack() as patches, warnings.catch_warnings():
        # The tracer warns of every size that becomes a constant; the comparison finds the wrong ones.
        warnings.simplefilter("ignore")
        patches.enter_context(mock.patch.object(heads, "CPU_CHUNK", sys.maxsize))
        for module in ("fast_rcnn", "mask_head"):
            # The built-in function turns what a tracer can follow into a plain number.
            name = f"detectron2.modeling.roi_heads.{module}.len"
            patches.enter_context(mock.patch(name, lambda boxes: boxes.__len__(), create=True))
        # It scales gradients only, and a file cannot hold a function of Python's.
        scale = "detectron2.modeling.roi_heads.cascade_rcnn._ScaleGradient.apply"
        patches.enter_context(mock.patch(scale, lambda features, factor: features))
        yield


def _image(height: int, width: int) -> Tensor:
    """Noise, in which any network finds something."""
    levels = torch.randint(0, 256, (1, height, width), generator=torch.Generator().manual_seed(0))
    return levels.to(torch.uint8).expand(3, -1, -1)


def _check_equal(traced: tuple[Tensor, ...], expected: tuple[Tensor, ...], weights: Path) -> None:
    for found, wanted in zip(traced, expected, strict=True):
        # Instances of the same score may come in another order.
        a, b = (values.double().sort(dim=0).values for values in (found, wanted))
        if a.shape != b.shape or not torch.allclose(a, b, atol=_TOLERANCE, rtol=0):
            raise KitError(
                f"{weights}: its network gives other results in TorchScript; use kitlib.load instead"
            )
