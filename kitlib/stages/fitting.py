"""Parameters that suit images of one's own: what their cells decide, and what stays with the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kitlib.data.proposals import Proposal
from kitlib.inputs.config import AugmentConfig
from kitlib.model.presets import PHASE_CONTRAST_STD, PRESETS
from kitlib.stages.parameters import Retraining, Training
from kitlib.train.config import Phase

#: Of the random views, what the data decide.
_OF_VIEWS = {"scales": ("scale", "scale_by_type"), "crop": ("crop",)}
#: By stage, the parameters in whose place the data decide, or 03 for 05.
_FITTED: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "03_train": {
        "scales": (
            *(("augment", key) for key in _OF_VIEWS["scales"]),
            ("predict_config", "scales"),
            ("predict_config", "scales_by_type"),
        ),
        "crop": tuple(("augment", key) for key in _OF_VIEWS["crop"]),
        "anchors": (("model_options", "anchor_sizes"),),
        "grey_levels": (("model_options", "pixel_mean"), ("model_options", "pixel_std")),
    },
    "05_retrain": {name: tuple(("augment", key) for key in keys) for name, keys in _OF_VIEWS.items()},
}


def left_to_data(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What is left to the data in 03 and 05, as ``from_data``, beside the parameters that a user chose.

    Args:
        chosen: by stage, the parameters that the user chose.

    Returns:
        By stage; a stage whose ``from_data`` the user chose is not among them.

    Example:
        >>> left_to_data({"03_train": {"augment": {"crop": [256, 256]}}})["03_train"]
        {'from_data': ['scales', 'anchors', 'grey_levels']}
    """
    return {
        stage: {"from_data": _left(given, fitted)}
        for stage, fitted in _FITTED.items()
        if "from_data" not in (given := chosen.get(stage) or {})
    }


def _left(given: Mapping[str, Any], fitted: Mapping[str, tuple[tuple[str, str], ...]]) -> list[str]:
    """The names of which no parameter was given."""
    phases = given.get("phases")
    # What is no mapping is refused later on.
    places = [place for place in (given, *(phases or ())) if isinstance(place, Mapping)]
    return [
        name
        for name, paths in fitted.items()
        if not any(key in (place.get(parameter) or {}) for place in places for parameter, key in paths)
    ]


def fitted(given: Training, proposal: Proposal, start: str) -> tuple[Training, dict[str, str]]:
    """The parameters of 03 with what the data decide in their place, see ``Training.from_data``.

    Args:
        given: the parameters.
        proposal: what suits the data.
        start: what the training starts from: "" for random weights, "imagenet", or other weights, which have
            grey levels of their own.

    Returns:
        The parameters, and by name what was decided and why, for the user to read.
    """
    augment, predict, options = given.augment, given.predict_config, dict(given.model_options)
    phases = _without_fitted(given.phases, given.from_data)
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
        elif name == "grey_levels" and (factor := _pixel_std_factor(given, start)):
            mean, std = proposal.pixel_mean, round(factor * proposal.pixel_std, 1)
            options |= {"pixel_mean": mean, "pixel_std": std}
            decided["model_options.pixel_mean, pixel_std"] = f"{mean}, {std}: {proposal.reasons[name]}"
    changed = replace(given, augment=augment, predict_config=predict, model_options=options, phases=phases)
    return changed, decided


def _without_fitted(phases: Sequence[Phase], names: Sequence[str]) -> tuple[Phase, ...]:
    """Phases whose random views have what the data decided, and nothing else in its place.

    Args:
        phases: as the parameters have them.
        names: what the data decide, see ``Training.from_data``.
    """
    decided = {key for name, keys in _OF_VIEWS.items() if name in names for key in keys}
    return tuple(
        replace(phase, augment={key: value for key, value in phase.augment.items() if key not in decided})
        for phase in phases
    )


def _pixel_std_factor(given: Training, start: str) -> float:
    """How many standard deviations of the images ``pixel_std`` is to be; 0 where it has to stay as it is.

    A preset that names its ``pixel_std`` for phase contrast takes other images that are scaled in proportion.
    """
    of_preset = PRESETS[given.preset].pixel_std
    if start and (start != "imagenet" or of_preset is None):
        return 0.0
    return of_preset / PHASE_CONTRAST_STD if isinstance(of_preset, float) else 1.0


def as_before(given: Retraining, earlier: AugmentConfig) -> Retraining:
    """The parameters of 05 with random views that are in part those of an earlier training.

    Args:
        given: the parameters, whose ``from_data`` says what is taken from it.
        earlier: the random views of that training.
    """
    taken = {key: getattr(earlier, key) for name in given.from_data for key in _OF_VIEWS[name]}
    phases = _without_fitted(given.phases, given.from_data)
    return replace(given, augment=replace(given.augment, **taken), phases=phases)
