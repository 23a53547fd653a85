"""RoIAlign: where it samples, how boxes are shared out to levels, and its gradient on the CPU.

torchvision sums the gradient number by number on a single core, which takes a third of a small model's
training time on a CPU. The weight of a pixel in a bin is the same for all channels, so one sparse matrix of
these weights spreads the gradient of all channels at once. Values and gradients are torchvision's but for the
order of additions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.nn import functional as F


class Samples(NamedTuple):
    """RoIAlign's sampling points along one axis of ``n`` boxes; each field is (n, bins, samples of a bin).

    Attributes:
        low: the pixel at or before each sample.
        weight: of the pixel after ``low`` in the sample; ``low`` has 1 - weight.
        share: of the sample in its bin; 0 for the padding of bins with fewer samples and outside the image.
    """

    low: Tensor
    weight: Tensor
    share: Tensor


def samples_per_bin(span: Tensor, bins: int) -> Tensor:
    """(n,) float: the samples that RoIAlign with ``sampling_ratio=0`` takes in a bin, one for each pixel.

    Args:
        span: (n, 2) where the boxes begin and end, in pixels. A box without extent has no samples.
        bins: bins along the axis.
    """
    start = span[:, 0] - 0.5
    return torch.ceil((span[:, 1] - 0.5 - start) / bins).clamp_(min=0)


def samples(span: Tensor, bins: int, size: int, most: int) -> Samples:
    """The samples of RoIAlign with ``aligned=True`` and ``sampling_ratio=0``.

    Args:
        span: (n, 2) where the boxes begin and end, in pixels.
        bins: bins along the axis.
        size: of the image along the axis, in pixels. A sample up to one pixel outside takes the value at the
            edge, one further out counts nothing.
        most: the largest of ``samples_per_bin``, which the caller knows without waiting for the GPU.
    """
    start = span[:, 0] - 0.5
    bin_size = (span[:, 1] - 0.5 - start) / bins
    count = samples_per_bin(span, bins)
    step = torch.arange(max(most, 1), device=span.device)
    divisor = count.clamp(min=1)
    within_bin = (step + 0.5) * (bin_size / divisor)[:, None]
    bin_start = start[:, None] + torch.arange(bins, device=span.device) * bin_size[:, None]
    at = bin_start[..., None] + within_bin[:, None]
    share = ((step < count[:, None])[:, None] & (at >= -1) & (at <= size)) / divisor[:, None, None]
    at = at.clamp_(0, size - 1)
    low = at.floor()
    return Samples(low.long(), at - low, share)


class SparseGradientROIAlign(ROIAlign):
    """detectron2's layer (aligned, ``sampling_ratio`` 0), with the sparse gradient on the CPU."""

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """From (N, C, H, W) and boxes (K, 5) of image, x0, y0, x1, y1 to (K, C, bins, bins)."""
        if features.device.type == "cpu" and features.requires_grad and torch.is_grad_enabled():
            return _Pool.apply(features, rois, super().forward, self.spatial_scale)
        return super().forward(features, rois)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, rois: Tensor, pool: Any, scale: float) -> Tensor:
        ctx.save_for_backward(rois)
        ctx.scale, ctx.shape, ctx.dtype = scale, features.shape, features.dtype
        return pool(features, rois)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (rois,) = ctx.saved_tensors
        number, channels, height, width = ctx.shape
        bins = gradient.shape[-1]
        spread = _pixel_weights(rois, ctx.scale, bins, (number, height, width))
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, channels).float()
        pixels = torch.sparse.mm(spread, rows).view(number, height, width, channels)
        return pixels.permute(0, 3, 1, 2).to(ctx.dtype), None, None, None


def _pixel_weights(rois: Tensor, scale: float, bins: int, size: tuple[int, int, int]) -> Tensor:
    """(pixels of all images, bins of all boxes), sparse: the weight of each pixel in each bin."""
    number, height, width = size
    y, y_weight = _axis_weights(rois[:, 2::2].float() * scale, bins, height)
    x, x_weight = _axis_weights(rois[:, 1::2].float() * scale, bins, width)
    image = rois[:, 0].long() * height
    pixel = (image[:, None, None, None, None] + y[:, :, None, :, None]) * width + x[:, None, :, None, :]
    weight = (y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]).flatten()
    nonzero = weight.nonzero()[:, 0]
    pixels_of_a_bin = y.shape[2] * x.shape[2]
    indices = torch.stack([pixel.flatten()[nonzero], nonzero // pixels_of_a_bin])
    shape = (number * height * width, len(rois) * bins**2)
    return torch.sparse_coo_tensor(indices, weight[nonzero], shape, check_invariants=False)


def _axis_weights(span: Tensor, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """The pixels that each bin takes along one axis, and their weights: (n, bins, 2 x samples of a bin)."""
    most = int(samples_per_bin(span, bins).max()) if len(span) else 0
    low, weight, share = samples(span, bins, size, most)
    pixel = torch.cat([low, (low + 1).clamp_(max=size - 1)], dim=2)
    return pixel, torch.cat([share * (1 - weight), share * weight], dim=2)


class LevelPooler(ROIPooler):
    """detectron2's pooler with ``SparseGradientROIAlign``; it waits for the GPU once instead of once a level.

    Args:
        pooler: the one that it takes the place of.
    """

    def __init__(self, pooler: ROIPooler) -> None:
        scales = [layer.spatial_scale for layer in pooler.level_poolers]
        size, level = pooler.canonical_box_size, pooler.canonical_level
        super().__init__(pooler.output_size, scales, 0, "ROIAlignV2", size, level)
        self.level_poolers = nn.ModuleList(
            SparseGradientROIAlign(self.output_size, scale, sampling_ratio=0) for scale in scales
        )

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """(boxes of all images, C, bins, bins): each box from the level that fits its size."""
        if torch.jit.is_tracing() or not box_lists:  # a trace must not keep the counts of its example
            return super().forward(x, box_lists)
        numbered = [F.pad(boxes.tensor, (1, 0), value=image) for image, boxes in enumerate(box_lists)]
        rois = torch.cat(numbered)
        size, level = self.canonical_box_size, self.canonical_level
        levels = assign_boxes_to_levels(box_lists, self.min_level, self.max_level, size, level)
        known = torch.arange(len(x), device=rois.device)
        counts = (levels[:, None] == known).sum(0).tolist()
        pooled = x[0].new_zeros(len(rois), x[0].shape[1], *self.output_size)
        for index, features, pool in zip(
            levels.argsort(stable=True).split(counts), x, self.level_poolers, strict=True
        ):
            pooled.index_put_((index,), pool(features, rois[index]))
        return pooled


def replace_poolers(model: nn.Module) -> None:
    """Replace a model's poolers by ``LevelPooler``."""
    for parent in list(model.modules()):
        for name, pooler in parent.named_children():
            if isinstance(pooler, ROIPooler):
                setattr(parent, name, LevelPooler(pooler))
