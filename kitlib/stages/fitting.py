"""Parameters that suit images of one's own: what their cells decide, and what stays with the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kitlib.data.proposals import Proposal
from kitlib.inputs.config import AugmentConfig
from kitlib.stages.parameters import Training

#: The parameters of 03 in whose place the data decide.
_FITTED: dict[str, tuple[tuple[str, str], ...]] = {
    "scales": (
        ("augment", "scale"),
        ("augment", "scale_by_type"),
        ("predict_config", "scales"),
        ("predict_config", "scales_by_type"),
    ),
    "crop": (("augment", "crop"),),
    "anchors": (("model_options", "anchor_sizes"),),
    "grey_levels": (("model_options", "pixel_mean"), ("model_options", "pixel_std")),
}


def left_to_data(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What is left to the data in 03, where a user chose some parameters: the others, as ``from_data``.

    Args:
        chosen: by stage, the parameters that the user chose.

    Example:
        >>> left_to_data({"03_train": {"augment": {"crop": [256, 256]}}})
        {'03_train': {'from_data': ['scales', 'anchors', 'grey_levels']}}
    """
    given = chosen.get("03_train") or {}
    if "from_data" in given:
        return {}
    left = [
        name
        for name, paths in _FITTED.items()
        if not any(key in (given.get(parameter) or {}) for parameter, key in paths)
    ]
    return {"03_train": {"from_data": left}}


def fitted(given: Training, proposal: Proposal, from_random: bool) -> tuple[Training, dict[str, str]]:
    """The parameters of 03 with what the data decide in their place, see ``Training.from_data``.

    Args:
        given: the parameters.
        proposal: what suits the data.
        from_random: the training starts from random weights; other weights have grey levels of their own.

    Returns:
        The parameters, and by name what was decided and why, for the user to read.
    """
    augment, predict, options = given.augment, given.predict_config, dict(given.model_options)
    decided: dict[str, str] = {}
    for name in given.from_data:
        if name == "scales":
            scales = proposal.scales(len(predict.scales))
            augment = replace(augment, scale=proposal.training_scales, scale_by_type={})
            predict = replace(predict, scales=scales, scales_by_type={})
            decided["augment.scale"] = f"{list(augment.scale)}: {proposal.reasons[name]}"
            decided["predict_config.scales"] = f"{list(scales)}: around that"
        elif name == "crop" and augment.crop is not None:
            height, width = map(proposal.crop_of, augment.crop)
            augment = replace(augment, crop=(height, width))
            decided["augment.crop"] = f"{[height, width]}: {proposal.reasons[name]}"
        elif name == "anchors":
            options["anchor_sizes"] = [list(sizes) for sizes in proposal.anchor_sizes]
            decided["model_options.anchor_sizes"] = f"{options['anchor_sizes']}: {proposal.reasons[name]}"
        elif name == "grey_levels" and from_random:
            options |= {"pixel_mean": proposal.pixel_mean, "pixel_std": proposal.pixel_std}
            decided["model_options.pixel_mean, pixel_std"] = (
                f"{proposal.pixel_mean}, {proposal.pixel_std}: {proposal.reasons[name]}"
            )
    changed = replace(given, augment=augment, predict_config=predict, model_options=options)
    return changed, decided


def as_before(augment: AugmentConfig, earlier: AugmentConfig) -> AugmentConfig:
    """Random views at the scales and of the size of an earlier training."""
    return replace(augment, scale=earlier.scale, scale_by_type=earlier.scale_by_type, crop=earlier.crop)
