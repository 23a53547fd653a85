"""Models made ready to look: in evaluation mode, with limits on what they keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kitlib.runtime.gpus import autocast

if TYPE_CHECKING:
    from detectron2.structures import Instances


def look(model: nn.Module, images: Sequence[NDArray[np.uint8]]) -> list[Instances]:
    """A detectron2 model's raw instances in each of some (H, W) grey images of one size.

    detectron2's own post-processing, which makes a full-frame mask of each instance, is not used: memory does
    not grow with the number of cells beyond their own area.
    """
    return model.inference([to_input(image) for image in images], do_postprocess=False)


def to_input(image: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
    """The model's input: the grey levels three times, as in training."""
    return {"image": torch.from_numpy(np.array(image)).expand(3, -1, -1)}


@contextmanager
def ready(
    models: Sequence[nn.Module], floor: float, cells: int, share: float = 1.0, amp: str = "off"
) -> Iterator[None]:
    """Put models in evaluation mode without gradients, and back into the mode that they came in.

    The heads throw away what would be thrown away later, before masks are made of it: all but the best
    ``cells`` with scores above ``floor``. ``share`` scales these and the counts of proposals. ``amp`` is for
    GPUs: on the CPU mixed precision saves nothing.
    """

    def fewer(count: int) -> int:
        return max(int(count * share), 1)

    device = next((p.device for p in models[0].parameters()), torch.device("cpu"))
    with torch.inference_mode(), ExitStack() as undo:
        if amp != "off" and device.type != "cpu":
            undo.enter_context(autocast(device, amp))
        for model in models:
            undo.callback(model.train, model.training)
            model.eval()
            for part in model.modules():
                if hasattr(part, "test_score_thresh"):
                    _set(undo, part, test_score_thresh=floor, test_topk_per_image=fewer(cells))
                for name in ("pre_nms_topk", "post_nms_topk"):
                    if hasattr(part, name):
                        _set(undo, part, **{name: {k: fewer(n) for k, n in getattr(part, name).items()}})
        yield


def _set(undo: ExitStack, part: nn.Module, **values: Any) -> None:
    for name, value in values.items():
        undo.callback(setattr, part, name, getattr(part, name))
        setattr(part, name, value)
