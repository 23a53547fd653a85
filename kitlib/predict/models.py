"""Trained models: loaded from their checkpoints, made ready for inference, and run on images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kitlib.errors import KitError
from kitlib.model import checkpoint
from kitlib.model.architecture import build_model
from kitlib.runtime.gpus import autocast

if TYPE_CHECKING:
    from detectron2.modeling import GeneralizedRCNN
    from detectron2.structures import Instances


class Loaded(NamedTuple):
    """A model in evaluation mode, and its class names in the order of its classes."""

    model: nn.Module
    categories: tuple[str, ...]


class Ensemble(NamedTuple):
    """Models in evaluation mode, and the class names of all, in the order of their classes."""

    models: tuple[nn.Module, ...]
    categories: tuple[str, ...]


def load_models(paths: Sequence[Path | str], device: str | torch.device = "cpu") -> Ensemble:
    """``load_model`` of one or many checkpoints of the same types of cell.

    Raises:
        KitError: as ``load_model``, or two files are of other types.
    """
    loaded = [load_model(path, device) for path in paths]
    first = loaded[0].categories
    for path, (_, categories) in zip(paths, loaded, strict=True):
        if categories != first:
            raise KitError(
                f"{paths[0]} knows the types {', '.join(first)} but {path} knows {', '.join(categories)}; "
                "an ensemble needs models of the same types in the same order"
            )
    return Ensemble(tuple(model for model, _ in loaded), first)


def load_model(path: Path | str, device: str | torch.device = "cpu") -> Loaded:
    """Build the model that a checkpoint describes, and load its weights.

    Raises:
        KitError: as ``kitlib.model.checkpoint.load``, or the tensors are not those of the model described.
    """
    found = checkpoint.load(path)
    model = build_model(found.config)
    differences = checkpoint.differences(model.state_dict(), found.tensors)
    checkpoint.check_fit(str(path), found.config, found.config, differences, "train again")
    model.load_state_dict(found.tensors)
    return Loaded(model.to(device).eval(), found.categories)


def infer(model: GeneralizedRCNN, images: Sequence[NDArray[np.uint8]]) -> list[Instances]:
    """A detectron2 model's raw instances in each of some (H, W) grey images of one size.

    detectron2's own post-processing, which makes a full-frame mask of each instance, is not used: memory does
    not grow with the number of cells beyond their own area.
    """
    return model.inference([_to_input(image) for image in images], do_postprocess=False)


def masks_in(model: GeneralizedRCNN, image: NDArray[np.uint8], boxes: Instances) -> NDArray[np.float32]:
    """What a detectron2 model's mask heads draw in given boxes of an (H, W) grey image.

    Args:
        model: in evaluation mode, see ``ready``.
        image: the grey levels.
        boxes: with ``pred_boxes`` in the image's pixels and ``pred_classes``.

    Returns:
        (N, S, S) probabilities within the boxes.
    """
    (found,) = model.inference([_to_input(image)], [boxes], do_postprocess=False)
    return found.pred_masks.float().cpu().numpy()[:, 0]


def _to_input(image: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
    """The model's input: the grey levels three times, as in training."""
    return {"image": torch.from_numpy(np.array(image)).expand(3, -1, -1)}


@contextmanager
def ready(
    models: Sequence[nn.Module],
    score_floor: float,
    max_cells: int,
    share: float = 1.0,
    amp: str = "off",
) -> Iterator[None]:
    """Put models in evaluation mode without gradients, and afterwards back into the mode they had.

    The heads drop, before they make masks, what would be dropped later.

    Args:
        models: detectron2 models.
        score_floor: the score above which an instance is predicted.
        max_cells: the most instances of an image.
        share: factor on ``max_cells`` and on the numbers of proposals, below 1 to save memory.
        amp: mixed precision on a GPU; on the CPU it would save nothing.
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
                    _set(undo, part, test_score_thresh=score_floor, test_topk_per_image=fewer(max_cells))
                for name in ("pre_nms_topk", "post_nms_topk"):
                    if hasattr(part, name):
                        _set(undo, part, **{name: {k: fewer(n) for k, n in getattr(part, name).items()}})
        yield


def _set(undo: ExitStack, part: nn.Module, **values: Any) -> None:
    for name, value in values.items():
        undo.callback(setattr, part, name, getattr(part, name))
        setattr(part, name, value)
