"""Loading weights into a model: tensors matched by name, one class repeated for several, and a report.

``sources`` reads the weights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from kitlib.errors import KitError
from kitlib.model import checkpoint, sources
from kitlib.model.detector import WeightedRCNN
from kitlib.model.presets import ModelConfig

_BACKBONE = "backbone.bottom_up."
# Layers whose shapes depend on the classes and the anchors; no other may differ in shape from the file's.
_PREDICTORS = re.compile(r"\.(cls_score|bbox_pred|predictor|objectness_logits|anchor_deltas)\.(weight|bias)$")
# Statistics of batch norms, which Caffe2's files have folded into scale and shift.
STATISTICS = re.compile(r"\.running_(mean|var)$")
# Not in reports: constants of the configuration, and counters and statistics that not every file has.
_IGNORED = re.compile(r"pixel_(mean|std)$|cell_anchors|num_batches_tracked$|^fc1000")
# Prefixes that the model's names have and those of a backbone or a Caffe2 detector lack.
_PREFIXES = ("", "backbone.bottom_up.body.", _BACKBONE, "backbone.", "roi_heads.")
_REMEDY = "build the model that the weights were trained for, or give other weights"


def match(of_model: Iterable[str], of_file: Iterable[str]) -> dict[str, str]:
    """For each name of a model's tensors the name in the file, if there is one.

    Dots and underscores count as the same, since timm's feature extractors replace some dots by underscores.

    Example:
        >>> match(["backbone.bottom_up.res2.0.conv1.weight"], ["layer1.0.conv1.weight"])
        {'backbone.bottom_up.res2.0.conv1.weight': 'layer1.0.conv1.weight'}
    """
    names = {name.replace("_", "."): name for name in of_file}
    matches = {}
    for name in of_model:
        forms = (name, _single_head(name), _torchvision(name))
        candidates = (form.removeprefix(p) for form in forms for p in _PREFIXES if form.startswith(p))
        found = (names.get(candidate.replace("_", ".")) for candidate in candidates)
        if first := next(filter(None, found), None):
            matches[name] = first
    return matches


def _single_head(name: str) -> str:
    """The name of a cascade stage's tensor in a model with a single head."""
    name = re.sub(r"^roi_heads\.mask_head_stages\.\d+\.", "roi_heads.mask_head.", name)
    return re.sub(r"^roi_heads\.(box_head|box_predictor)\.\d+\.", r"roi_heads.\1.", name)


def _torchvision(name: str) -> str:
    """The name of a tensor of detectron2's ResNet in torchvision and timm."""
    if not name.startswith(_BACKBONE):
        return name
    name = name.removeprefix(_BACKBONE).removeprefix("stem.")
    name = re.sub(r"^res(\d)\.", lambda m: f"layer{int(m[1]) - 1}.", name)
    name = re.sub(r"conv(\d)\.norm\.", r"bn\1.", name)
    return name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")


def replicate(name: str, tensor: Tensor, target: Tensor) -> Tensor | None:
    """A predictor of one class repeated for each class of a model; None if that gives another shape.

    Args:
        name: of the tensor in the model.
        tensor: from the file, of one class. Rows of ``cls_score`` are the classes, then the background.
        target: the model's tensor.
    """
    if not _PREDICTORS.search(name) or tensor.shape[1:] != target.shape[1:]:
        return None
    if ".cls_score." in name:
        classes = target.shape[0] - 1
        if tensor.shape[0] != 2:
            return None
        foreground = tensor[:1] - log(classes) if name.endswith("bias") else tensor[:1]
        return torch.cat([foreground.repeat_interleave(classes, 0), tensor[1:]])
    one_class = {"bbox_pred": 4, "predictor": 1}.get(name.split(".")[-2])
    if tensor.shape[0] != one_class or target.shape[0] % one_class:
        return None
    return tensor.repeat(target.shape[0] // one_class, *[1] * (tensor.dim() - 1))


@dataclass(frozen=True)
class Mismatch:
    """A tensor that has different shapes in the model and in the file."""

    name: str
    in_model: tuple[int, ...]
    in_file: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """The result of loading: names of tensors in the model, in ``unexpected`` of tensors in the file.

    Attributes:
        source: of the weights; "" for random ones.
        loaded: filled from the file.
        missing: in the model only; their values stay random.
        unexpected: in the file only.
        mismatched: in both, with different shapes; their values stay random.
        replicated: those of ``loaded`` that have one class in the file, repeated for each class of the model.
        advice: what to change before training, in sentences.
    """

    source: str
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    replicated: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    def table(self) -> str:
        """The numbers of tensors as text, a line for each part of the model."""
        counts = {
            "loaded": Counter(map(_part, self.loaded)),
            "missing": Counter(map(_part, self.missing)),
            "mismatched": Counter(_part(m.name) for m in self.mismatched),
        }
        parts = sorted({part for counter in counts.values() for part in counter})
        width = max(map(len, parts), default=4)
        lines = [f"{'part':{width}}" + "".join(f"{column:>12}" for column in counts)]
        lines += [f"{p:{width}}" + "".join(f"{c[p]:>12}" for c in counts.values()) for p in parts]
        return "\n".join(lines)

    @property
    def summary(self) -> str:
        """The numbers of tensors in one line."""
        counts = {
            "loaded": self.loaded,
            "repeated for each class": self.replicated,
            "left random": self.missing,
            "of another shape": self.mismatched,
            "not used": self.unexpected,
        }
        text = ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names)
        return f"weights: {self.source}: tensors {text}"

    def __str__(self) -> str:
        lines = [f"weights: {self.source or 'none (random)'}", self.table()]
        lines += [
            f"{m.name}: {m.in_model} in the model, {m.in_file} in the file; left random"
            for m in self.mismatched
        ]
        if parts := sorted(set(map(_part, self.replicated))):
            lines.append(f"one class repeated for each: {', '.join(parts)}")
        if self.unexpected:
            lines.append(f"not used: {len(self.unexpected)} ({', '.join(self.unexpected[:4])}, ...)")
        return "\n".join([*lines, *(f"advice: {sentence}" for sentence in self.advice)])


def load(model: WeightedRCNN, source: str) -> Report:
    """Fill a model with weights, in place.

    A checkpoint of ours must contain every tensor of the model and no other; only its predictors may differ
    in shape. Tensors of any other file are matched by name, and those of the model that it lacks stay random.

    A single mask head or box head in another file fills the heads of all stages. A detector of one class is
    repeated for k classes: log k is subtracted from the class's logit, so that each class has 1/k of its
    probability and the background's is unchanged; boxes and masks are the same for each class.

    Args:
        model: from ``kitlib.model.build``.
        source: as ``sources.read`` takes it; or a name in ``sources.PUBLISHED``; or "" for random weights.

    Raises:
        KitError: the file cannot be read (see ``sources.read``) or does not fit the model.
    """
    target = model.state_dict()
    if not source:
        return Report("", missing=tuple(target), advice=_advice(model, {}, {}))
    if source in sources.PUBLISHED:
        source = sources.published(model.config, source)
    found = sources.read(source)
    matches = {n: n for n in target if n in found.tensors} if found.config else match(target, found.tensors)
    tensors = {name: found.tensors[theirs] for name, theirs in matches.items()}
    replicated = _replicated(tensors, target)
    tensors |= replicated
    fitting = {name: tensor for name, tensor in tensors.items() if tensor.shape == target[name].shape}
    mismatched = [
        Mismatch(name, tuple(target[name].shape), tuple(tensor.shape))
        for name, tensor in tensors.items()
        if name not in fitting
    ]
    if found.config:
        _check_ours(model, source, found.config, found.tensors)
    else:
        _check_foreign(model, source, fitting, mismatched)
    model.load_state_dict(fitting, strict=False)
    used = set(matches.values())
    return Report(
        source,
        loaded=tuple(fitting),
        missing=tuple(n for n in target if n not in matches and not _optional(n)),
        unexpected=tuple(n for n in found.tensors if n not in used and not _IGNORED.search(n)),
        mismatched=tuple(mismatched),
        replicated=tuple(replicated),
        advice=_advice(model, fitting, found.tensors),
    )


def _replicated(tensors: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The predictors of one class in a file, repeated for the classes of the model."""
    different = {name: tensor for name, tensor in tensors.items() if tensor.shape != target[name].shape}
    repeated = {name: replicate(name, tensor, target[name]) for name, tensor in different.items()}
    return {name: tensor for name, tensor in repeated.items() if tensor is not None}


def _check_ours(model: WeightedRCNN, source: str, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """KitError unless a checkpoint of ours has all of the model's tensors; predictors may differ in shape."""
    target = model.state_dict()
    left_out = {n for n in target.keys() & tensors.keys() if _PREDICTORS.search(n)}
    of_model, of_file = (
        {n: tensor for n, tensor in named.items() if n not in left_out and not _IGNORED.search(n)}
        for named in (target, tensors)
    )
    differences = checkpoint.differences(of_model, of_file)
    checkpoint.check_fit(source, config, model.config, differences, _REMEDY)


def _check_foreign(
    model: WeightedRCNN, source: str, fitting: Mapping[str, Tensor], mismatched: list[Mismatch]
) -> None:
    """KitError unless a file has half of the backbone's tensors, and only predictors differ in shape."""
    wrong = [m for m in mismatched if not _PREDICTORS.search(m.name)]
    backbone = [n for n in model.state_dict() if n.startswith(_BACKBONE) and not _optional(n)]
    share = sum(n in fitting for n in backbone) / len(backbone)
    if not wrong and share >= 0.5:
        return
    detail = (
        f"{wrong[0].name} is {wrong[0].in_model} in the model and {wrong[0].in_file} in the file"
        if wrong
        else f"{share:.0%} of the backbone's tensors are in it"
    )
    raise KitError(
        f"{source} does not fit preset '{model.config.preset}' with options {model.config.options}: "
        f"{detail}; {_REMEDY}"
    )


def _advice(
    model: WeightedRCNN, fitting: Mapping[str, Tensor], of_file: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """What to change where these weights in this model would spoil the training, in sentences."""
    architecture, advice = model.config.architecture, []
    body = {n: p for n, p in model.named_parameters() if n.startswith(_BACKBONE)}
    if not any(name in fitting for name in body):
        if any("FrozenBatchNorm" in type(m).__name__ for m in model.modules()):
            advice.append(
                "frozen batch norms diverge on random weights: load a backbone, or train with norm GN and "
                "freeze_batch_norm false"
            )
        if not all(p.requires_grad for p in body.values()):
            advice.append("the first stages are frozen at random values: load a backbone, or set freeze_at 0")
        return tuple(advice)
    statistics = {n for n in model.state_dict() if n.startswith(_BACKBONE) and STATISTICS.search(n)}
    in_file = any(STATISTICS.search(name) for name in of_file)
    if in_file and not statistics:
        advice.append(
            f"the file's batch norms do not fit norm {architecture.norm}: use FrozenBN, BN or SyncBN"
        )
    if statistics and not in_file and architecture.norm != "FrozenBN":
        advice.append("the file's batch norms are folded to scale and shift: use norm FrozenBN")
    by_torchvision = any(name.removeprefix(_BACKBONE).startswith("layer1.") for name in of_file)
    if by_torchvision and not architecture.backbone and architecture.stride_in_1x1:
        advice.append(
            "torchvision's and timm's ResNets stride in the 3x3 and take scaled pixels: set stride_in_1x1 "
            "false, pixel_mean [123.675, 116.28, 103.53] and pixel_std [58.395, 57.12, 57.375]"
        )
    return tuple(advice)


def _optional(name: str) -> bool:
    return bool(_IGNORED.search(name) or STATISTICS.search(name))


def _part(name: str) -> str:
    """The part of the model that a tensor belongs to, such as "backbone.fpn" or "roi_heads.mask_head"."""
    return re.sub(r"^((?:backbone\.fpn)|[^.]+\.[^.]+).*", r"\1", name)
