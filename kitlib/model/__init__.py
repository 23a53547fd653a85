"""The model: Cascade Mask R-CNN in detectron2, made for many small cells, and what feeds it.

Importing anything from here mends detectron2's surroundings first (``compat``); neither it nor torch is
imported before a model is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kitlib.model import compat

if TYPE_CHECKING:
    from torch import nn

compat.apply()


def build(preset: str = "tiny", num_classes: int = 3, mask_stages: str = "all", **options: Any) -> nn.Module:
    """A Cascade Mask R-CNN with random weights, on the CPU, in training mode.

    Args:
        preset: "tiny", "r50" or "x152"; see ``kitlib.model.presets``.
        num_classes: kinds of cell, background not counted.
        mask_stages: "all" (a mask branch at each cascade stage, averaged at inference) or "last"
            (detectron2's one).
        options: fields of ``kitlib.model.presets.Architecture`` that differ from the preset.

    Returns:
        detectron2's GeneralizedRCNN: takes its list of dicts (``image`` (3, H, W) grey levels 0-255 at the
        scale wanted, never resized here; ``instances`` in training; ``weight`` of the image in the loss, 1 if
        absent).

    Raises:
        KitError: an unknown preset or option (the nearest is named), or a value that cannot be built.

    Example:
        >>> model = build("tiny", num_classes=1, norm="BN")  # doctest: +SKIP
    """
    from kitlib.model.architecture import build_model

    return build_model(preset, num_classes, mask_stages, options)
