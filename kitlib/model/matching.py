"""Which tensor of a file belongs where in a model, and how one class becomes several."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import log

import torch
from torch import Tensor

BACKBONE = "backbone.bottom_up."
# Layers that depend on the classes and the anchors: they alone may differ in shape from the file's.
PREDICTORS = re.compile(r"\.(cls_score|bbox_pred|predictor|objectness_logits|anchor_deltas)\.(weight|bias)$")
# Statistics of batch norms: Caffe2's files have them folded into scale and shift.
STATISTICS = re.compile(r"\.running_(mean|var)$")
# Where a backbone's or a Caffe2 detector's shorter names lie in a model.
PREFIXES = ("", "backbone.bottom_up.body.", BACKBONE, "backbone.", "roi_heads.")


def match(target: Iterable[str], found: Iterable[str]) -> dict[str, str]:
    """For each name of the model the one in the file, if any.

    timm replaces some dots by underscores when it takes a model apart, so the two count as one.
    """
    places = {name.replace("_", "."): name for name in found}
    matches = {}
    for name in target:
        forms = (name, _single_head(name), _torchvision(name))
        candidates = (form.removeprefix(p) for form in forms for p in PREFIXES if form.startswith(p))
        hits = (places.get(candidate.replace("_", ".")) for candidate in candidates)
        if hit := next((hit for hit in hits if hit), None):
            matches[name] = hit
    return matches


def _single_head(name: str) -> str:
    """The name of a cascade stage's head in a model that has one head."""
    name = re.sub(r"^roi_heads\.mask_head_stages\.\d+\.", "roi_heads.mask_head.", name)
    return re.sub(r"^roi_heads\.(box_head|box_predictor)\.\d+\.", r"roi_heads.\1.", name)


def _torchvision(name: str) -> str:
    """torchvision's and timm's name of a tensor of detectron2's ResNet."""
    if not name.startswith(BACKBONE):
        return name
    name = name.removeprefix(BACKBONE).removeprefix("stem.")
    name = re.sub(r"^res(\d)\.", lambda m: f"layer{int(m[1]) - 1}.", name)
    name = re.sub(r"conv(\d)\.norm\.", r"bn\1.", name)
    return name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")


def replicate(name: str, tensor: Tensor, here: Tensor) -> Tensor | None:
    """A predictor of one class repeated for the classes of the model, or None where that is not what differs.

    Rows of ``cls_score`` are classes in order, then the background.
    """
    if not PREDICTORS.search(name) or tensor.shape[1:] != here.shape[1:]:
        return None
    if ".cls_score." in name:
        classes = here.shape[0] - 1
        if tensor.shape[0] != 2:
            return None
        foreground = tensor[:1] - log(classes) if name.endswith("bias") else tensor[:1]
        return torch.cat([foreground.repeat_interleave(classes, 0), tensor[1:]])
    one_class = {"bbox_pred": 4, "predictor": 1}.get(name.split(".")[-2])
    if tensor.shape[0] != one_class or here.shape[0] % one_class:
        return None
    return tensor.repeat(here.shape[0] // one_class, *[1] * (tensor.dim() - 1))
