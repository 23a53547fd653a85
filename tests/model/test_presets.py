"""Configurations: what may be set, and what is said of what may not."""

from __future__ import annotations

from typing import Any

import pytest

from kitlib import config
from kitlib.errors import KitError
from kitlib.model.presets import PRESETS, ModelConfig


def test_options_replace_what_the_preset_says() -> None:
    built = ModelConfig(
        "r50", options={"norm": "GN", "anchor_sizes": [[9], [17], [31], [63], [127]]}
    ).architecture
    assert built.norm == "GN"
    assert built.anchor_sizes == ((9.0,), (17.0,), (31.0,), (63.0,), (127.0,))
    assert built.depth == PRESETS["r50"].depth


def test_a_configuration_survives_yaml(tmp_path) -> None:
    made = ModelConfig("x152", 1, "last", {"pixel_std": [1.0, 2.0, 3.0], "detections": 2000})
    path = config.save(made, tmp_path / "config.yaml")
    assert config.load(ModelConfig, path) == made


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_room_for_a_thousand_cells(preset: str) -> None:
    a = ModelConfig(preset).architecture
    assert a.detections >= 1000
    assert min(a.rpn_pre_nms_topk[1], a.rpn_post_nms_topk[1]) >= 1000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"preset": "x125"}, "unknown preset 'x125': did you mean 'x152'"),
        ({"options": {"anchor_size": [[8]]}}, "did you mean 'anchor_sizes'"),
        ({"options": {"norm": "FrozenGN"}}, "norm.*FrozenBN"),
        ({"options": {"stem_stride": 2}}, "stem_stride"),
        ({"options": {"detections": "many"}}, "detections must be a whole number"),
        ({"options": {"anchor_sizes": [8, 16, 32, 64, 128]}}, "anchor_sizes.0 must be a list"),
        ({"options": {"anchor_sizes": [[8], [16]]}}, "anchor_sizes must list 5 levels"),
        ({"options": {"anchor_sizes": [[8], [16], [32], [64], [128, 256]]}}, "equally many"),
        ({"options": {"freeze_batch_norm": True}}, "freeze_batch_norm is of timm models"),
        ({"options": {"anchor_ratios": []}}, "anchor_ratios must not be empty"),
        ({"options": {"fpn_channels": 40}}, "multiple of 32"),
        ({"mask_stages": "first"}, "unknown value of mask_stages: 'first'"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
    ],
)
def test_what_cannot_be_built_is_said_at_once(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(KitError, match=said):
        ModelConfig(**arguments)
