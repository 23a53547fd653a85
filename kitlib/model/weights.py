"""Weights put into a model: matched by name, grown to more classes where that can be done, and reported."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn

from kitlib.errors import KitError
from kitlib.model import checkpoint, sources

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


# detectron2's published weights by preset, so that a configuration can say "imagenet" or "coco".
PUBLISHED: dict[str, dict[str, str]] = {
    "imagenet": {
        "r50": "detectron2://ImageNetPretrained/MSRA/R-50.pkl",
        "x101": "detectron2://ImageNetPretrained/FAIR/X-101-32x8d.pkl",
        "x152": "catalog://ImageNetPretrained/FAIR/X-152-32x8d-IN5k",
    },
    "coco": {
        "r50": "detectron2://Misc/cascade_mask_rcnn_R_50_FPN_3x/144998488/model_final_480dd8.pkl",
        "x101": "detectron2://COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x/139653917/"
        "model_final_2d9806.pkl",
        "x152": "detectron2://Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv/18131413/"
        "model_0039999_e76410.pkl",
    },
}

# Left out of reports: constants of the configuration, and counters and statistics that some files do not
# keep.
IGNORED = re.compile(r"pixel_(mean|std)$|cell_anchors|num_batches_tracked$|^fc1000")

_MEND = "build the model that the weights were trained for, or give other weights"


@dataclass(frozen=True)
class Mismatch:
    """A tensor whose shape differs: in the model, and in the file."""

    name: str
    here: tuple[int, ...]
    file: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """What came of loading: names of the model's tensors, but for ``unexpected``, which are the file's.

    Attributes:
        source: where the weights came from, "" for none.
        loaded: filled from the file.
        missing: in the model only; they keep their random values.
        unexpected: in the file only.
        mismatched: in both, with different shapes; they keep their random values.
        replicated: of ``loaded``, those of one class in the file that were repeated for each class here.
        advice: what to change before training, in sentences; empty when nothing is amiss.
    """

    source: str
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    replicated: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    def table(self) -> str:
        """Counts of tensors by part of the model, one part a line."""
        counts = {
            "loaded": Counter(map(_part, self.loaded)),
            "missing": Counter(map(_part, self.missing)),
            "mismatched": Counter(_part(m.name) for m in self.mismatched),
        }
        parts = sorted({part for counter in counts.values() for part in counter})
        width = max(map(len, parts), default=4)
        lines = [f"{'part':{width}}" + "".join(f"{kind:>12}" for kind in counts)]
        lines += [f"{p:{width}}" + "".join(f"{c[p]:>12}" for c in counts.values()) for p in parts]
        return "\n".join(lines)

    @property
    def summary(self) -> str:
        """The counts of all parts together, in one line."""
        counts = {
            "loaded": self.loaded,
            "repeated for each class": self.replicated,
            "left random": self.missing,
            "of another shape": self.mismatched,
            "not used": self.unexpected,
        }
        said = ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names)
        return f"weights: {self.source}: tensors {said}"

    def __str__(self) -> str:
        lines = [f"weights: {self.source or 'none (random)'}", self.table()]
        lines += [f"{m.name}: {m.here} here, {m.file} in the file; left random" for m in self.mismatched]
        if self.replicated:
            lines.append(
                f"one class repeated for each: {', '.join(sorted(set(map(_part, self.replicated))))}"
            )
        if self.unexpected:
            lines.append(f"not used: {len(self.unexpected)} ({', '.join(self.unexpected[:4])}, ...)")
        return "\n".join([*lines, *(f"advice: {sentence}" for sentence in self.advice)])


def load(model: nn.Module, source: str) -> Report:
    """Fill a model with weights, in place.

    A file of ours must hold every tensor of the model and no other; its predictors alone may be of another
    shape. Tensors of a foreign file are matched by name, and those that it lacks are left random.

    A foreign file's single mask head, or single box head, fills those of all stages. A detector of one class
    becomes one of k by repeating it: each class then has 1/k of its probability (log k is taken off its
    logit), so that the background's is unchanged, and the same boxes and masks.

    Args:
        model: from ``kitlib.model.build``.
        source: as ``sources.read`` takes it; or "imagenet" or "coco", what detectron2 (for a timm backbone
            timm) publishes for the preset; or "" for none.

    Raises:
        KitError: the file cannot be read safely or does not fit the model; see ``sources.read``.
    """
    target = model.state_dict()
    if not source:
        return Report("", missing=tuple(target), advice=_advice(model, {}, {}))
    source = _published(model, source)
    found = sources.read(source)
    matches = {n: n for n in target if n in found.tensors} if found.made_of else match(target, found.tensors)
    tensors = {name: found.tensors[theirs] for name, theirs in matches.items()}
    grown = _grown(tensors, target)
    tensors |= grown
    fitting = {name: tensor for name, tensor in tensors.items() if tensor.shape == target[name].shape}
    mismatched = [
        Mismatch(name, tuple(target[name].shape), tuple(tensor.shape))
        for name, tensor in tensors.items()
        if name not in fitting
    ]
    if found.made_of:
        _check_ours(model, source, found)
    else:
        _check_foreign(model, source, fitting, mismatched)
    model.load_state_dict(fitting, strict=False)
    used = set(matches.values())
    return Report(
        source,
        loaded=tuple(fitting),
        missing=tuple(n for n in target if n not in matches and not _optional(n)),
        unexpected=tuple(n for n in found.tensors if n not in used and not IGNORED.search(n)),
        mismatched=tuple(mismatched),
        replicated=tuple(grown),
        advice=_advice(model, fitting, found.tensors),
    )


def _grown(tensors: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those predictors of one class that can be repeated for the classes of the model."""
    different = {name: tensor for name, tensor in tensors.items() if tensor.shape != target[name].shape}
    grown = {name: replicate(name, tensor, target[name]) for name, tensor in different.items()}
    return {name: tensor for name, tensor in grown.items() if tensor is not None}


def _published(model: nn.Module, source: str) -> str:
    if source not in PUBLISHED:
        return source
    if backbone := model.config.architecture.backbone:
        return sources.TIMM + backbone
    if model.config.preset not in PUBLISHED[source]:
        known = ", ".join(PUBLISHED[source])
        raise KitError(f"no '{source}' weights exist for preset '{model.config.preset}', only for {known}")
    return PUBLISHED[source][model.config.preset]


def _check_ours(model: nn.Module, source: str, found: sources.Weights) -> None:
    """KitError unless a file of ours fills all of the model but predictors of other classes or anchors."""
    target = model.state_dict()
    flexible = {n for n in target.keys() & found.tensors.keys() if PREDICTORS.search(n)}
    here, file = (
        {n: tensor for n, tensor in tensors.items() if n not in flexible and not IGNORED.search(n)}
        for tensors in (target, found.tensors)
    )
    checkpoint.check_fit(source, found.made_of, model.config, checkpoint.differences(here, file), _MEND)


def _check_foreign(
    model: nn.Module, source: str, chosen: Mapping[str, Tensor], mismatched: list[Mismatch]
) -> None:
    """KitError unless most of the backbone is there, and nothing but predictors differs in shape."""
    wrong = [m for m in mismatched if not PREDICTORS.search(m.name)]
    backbone = [n for n in model.state_dict() if n.startswith(BACKBONE) and not _optional(n)]
    share = sum(n in chosen for n in backbone) / len(backbone)
    if not wrong and share >= 0.5:
        return
    detail = (
        f"{wrong[0].name} is {wrong[0].here} here and {wrong[0].file} in the file"
        if wrong
        else f"{share:.0%} of the backbone's tensors are in it"
    )
    raise KitError(
        f"{source} does not fit preset '{model.config.preset}' with options {model.config.options}: "
        f"{detail}; {_MEND}"
    )


def _advice(model: nn.Module, chosen: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What about these weights in this model would spoil the training."""
    architecture, advice = model.config.architecture, []
    body = {n: p for n, p in model.named_parameters() if n.startswith(BACKBONE)}
    if not any(name in chosen for name in body):
        if any("FrozenBatchNorm" in type(m).__name__ for m in model.modules()):
            advice.append("FrozenBN diverges on random weights: load a backbone, or train with norm GN")
        if not all(p.requires_grad for p in body.values()):
            advice.append("the first stages are frozen at random values: load a backbone, or set freeze_at 0")
        return tuple(advice)
    statistics = {n for n in model.state_dict() if n.startswith(BACKBONE) and STATISTICS.search(n)}
    in_file = any(STATISTICS.search(name) for name in found)
    if in_file and not statistics:
        advice.append(
            f"the file's batch norms do not fit norm {architecture.norm}: use FrozenBN, BN or SyncBN"
        )
    if statistics and not in_file and architecture.norm != "FrozenBN":
        advice.append("the file's batch norms are folded to scale and shift: use norm FrozenBN")
    by_torchvision = any(name.removeprefix(BACKBONE).startswith("layer1.") for name in found)
    if by_torchvision and not architecture.backbone and architecture.stride_in_1x1:
        advice.append(
            "torchvision's and timm's ResNets stride in the 3x3 and take scaled pixels: set stride_in_1x1 "
            "false, pixel_mean [123.675, 116.28, 103.53] and pixel_std [58.395, 57.12, 57.375]"
        )
    return tuple(advice)


def _optional(name: str) -> bool:
    return bool(IGNORED.search(name) or STATISTICS.search(name))


def _part(name: str) -> str:
    """The part of the model that a tensor belongs to: "backbone.fpn", "roi_heads.mask_head" and so on."""
    return re.sub(r"^((?:backbone\.fpn)|[^.]+\.[^.]+).*", r"\1", name)
