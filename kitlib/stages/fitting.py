"""Parameters that suit images of one's own: what their cells decide, and what stays with the user."""

from __future__ import annotations

from dataclasses import replace

from kitlib.data.proposals import Proposal
from kitlib.inputs.config import AugmentConfig
from kitlib.stages.parameters import Training


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
