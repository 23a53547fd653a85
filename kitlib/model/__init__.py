"""The model: Cascade Mask R-CNN in detectron2 for many small cells, and its weights.

Importing this package applies ``compat``, so that ``import detectron2`` works after it. detectron2 and torch
themselves are imported when a model is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kitlib.model import compat

if TYPE_CHECKING:
    from kitlib.model.detector import WeightedRCNN
    from kitlib.model.presets import MaskStages

compat.apply()


def build(
    preset: str = "tiny", num_classes: int = 3, mask_stages: MaskStages = "all", **options: Any
) -> WeightedRCNN:
    """A Cascade Mask R-CNN with random weights, on the CPU, in training mode.

    Args:
        preset: "tiny", "lite0", "r50" or "x152"; see ``kitlib.model.presets``.
        num_classes: number of cell types, background not counted.
        mask_stages: "all" (a mask branch at each cascade stage, averaged at inference) or "last" (a single
            branch, as in detectron2).
        options: fields of ``kitlib.model.presets.Architecture`` that differ from the preset.

    Returns:
        A detectron2 GeneralizedRCNN, which takes a list of dicts: ``image``, (3, H, W) grey levels 0-255,
        never resized by the model; ``instances`` in training; ``weight`` of the image in the loss, 1 if
        absent.

    Raises:
        KitError: an unknown preset or option (the nearest is named), or a value that cannot be built.

    Example:
        >>> model = build("tiny", num_classes=1, norm="BN")  # doctest: +SKIP
    """
    from kitlib.model.architecture import build_model
    from kitlib.model.presets import ModelConfig

    return build_model(ModelConfig(preset, num_classes, mask_stages, options))
