"""Operations and memory of a model, counted on tensors without numbers: in seconds on any machine.

``FakeTensorMode`` knows shapes alone. What depends on values (which anchors match, how many boxes survive) is
given as numbers: the parts of the network are called one after the other on as many boxes as training and
prediction give them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from kitlib.model.architecture import build_model
from kitlib.model.detector import WeightedRCNN
from kitlib.model.heads import CHUNK
from kitlib.model.presets import ModelConfig
from kitlib.runtime.gpus import autocast

CUDA_GIB = 1.5
"""CUDA itself, its libraries' work space, and what its allocator cannot use."""
MATCHED = 0.25
"""Share of the boxes of each stage that match a cell: what detectron2's samplers aim at."""


@dataclass(frozen=True)
class Cost:
    """Floating-point operations, and the most GiB that tensors take at one time, CUDA's own included."""

    operations: float
    gib: float


@dataclass(frozen=True)
class Sizes:
    """Bytes of a model: all of its tensors, and those that are trained."""

    weights: int
    trained: int


def training(
    model: ModelConfig, images: int, size: tuple[int, int], amp: str = "off", copies: int = 1
) -> Cost:
    """The forward and the backward pass of a piece of a batch, and what the optimiser keeps.

    Args:
        model: what the network is built from.
        images: of the piece.
        size: (height, width) of these, in pixels.
        amp: mixed precision.
        copies: of the trained weights, kept beside them: momentum, second moments, a moving average.
    """
    with _counting() as (memory, operations):
        network = build_model(model)
        kept = [torch.empty_like(p) for p in network.parameters() if p.requires_grad for _ in range(copies)]
        boxes = images * model.architecture.roi_batch
        with autocast(torch.device("cpu"), amp):
            made = _forward(network, images, size, boxes, round(MATCHED * boxes))
        torch.stack([part.float().sum() for part in made]).sum().backward()
        del kept
    return Cost(operations(), memory.peak / 2**30 + CUDA_GIB)


@torch.no_grad()
def prediction(
    model: ModelConfig, views: int, size: tuple[int, int], detections: int, amp: str = "off"
) -> Cost:
    """The prediction of views that go through a network together.

    Args:
        model: what the network is built from.
        views: of a frame, or of several.
        size: (height, width) of a view, in pixels.
        detections: of a view that get masks.
        amp: mixed precision.
    """
    with _counting() as (memory, operations):
        network = build_model(model).eval()
        proposals = views * model.architecture.rpn_post_nms_topk[1]
        rounds, rest = divmod(views * detections, CHUNK)
        with autocast(torch.device("cpu"), amp):
            _forward(network, views, size, proposals, rest)
            before = operations()
            _masks(network, CHUNK)
            chunk = operations() - before
    return Cost(operations() + (rounds - 1) * chunk, memory.peak / 2**30 + CUDA_GIB)


def sizes(model: ModelConfig) -> Sizes:
    """The bytes of a model's weights."""
    with FakeTensorMode():
        network = build_model(model)
        weights = sum(t.nbytes for t in network.state_dict().values())
        return Sizes(weights, sum(p.nbytes for p in network.parameters() if p.requires_grad))


def _forward(
    network: WeightedRCNN, images: int, size: tuple[int, int], boxes: int, masked: int
) -> list[Tensor]:
    """What all parts of a network make, of ``boxes`` boxes and the masks of ``masked`` of these."""
    divisor = network.backbone.size_divisibility
    height, width = (-(-side // divisor) * divisor for side in size)
    features = network.backbone(torch.empty(images, 3, height, width))
    levels = [features[name] for name in network.proposal_generator.in_features]
    made = [part for parts in network.proposal_generator.rpn_head(levels) for part in parts]
    for head, predictor in zip(network.roi_heads.box_head, network.roi_heads.box_predictor, strict=True):
        made += predictor(head(_pooled(network, network.roi_heads.box_pooler, boxes)))
    return made + _masks(network, masked)


def _masks(network: WeightedRCNN, count: int) -> list[Tensor]:
    """What the mask branches make of ``count`` boxes."""
    roi_heads: Any = network.roi_heads
    pooled = _pooled(network, roi_heads.mask_pooler, count)
    return [head.layers(pooled) for head in (*roi_heads.mask_head_stages, roi_heads.mask_head)]


def _pooled(network: WeightedRCNN, pooler: Any, boxes: int) -> Tensor:
    """What a pooler makes of ``boxes`` boxes."""
    side, channels = pooler.output_size[0], network.backbone.output_shape()["p2"].channels
    return torch.empty(boxes, channels, side, side, requires_grad=torch.is_grad_enabled())


class _Memory(TorchDispatchMode):
    """Follows the bytes of all tensors that are alive.

    Attributes:
        peak: the most at one time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak, self._alive = 0, 0
        self._seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._take(tensor.untyped_storage())
        return made

    def _take(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._seen:
            return

        def free(_: object) -> None:
            del self._seen[key]
            self._alive -= size

        self._seen[key] = weakref.ref(storage, free)
        self._alive += size
        self.peak = max(self.peak, self._alive)


def _convolution_backward(
    gradient: Sequence[int], image: Sequence[int], weight: Sequence[int], *args: Any, **_: Any
) -> int:
    """The gradients of the input and of the weights cost as much as the forward pass, each.

    PyTorch's own count takes a grouped convolution's weights for those of one group.
    """
    wanted, transposed = args[-1], args[4]
    return sum(wanted[:2]) * conv_flop_count(list(image), list(weight), list(gradient), transposed=transposed)


_FORMULAS: dict[Any, Any] = {torch.ops.aten.convolution_backward: _convolution_backward}


@contextmanager
def _counting() -> Iterator[tuple[_Memory, Callable[[], int]]]:
    """Tensors without numbers, the memory that they would take, and the operations so far."""
    memory = _Memory()
    with FakeTensorMode(), FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter, memory:
        yield memory, counter.get_total_flops
