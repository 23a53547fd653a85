"""RoIAlign: where it samples, and its gradient on the CPU as one product with a sparse matrix.

torchvision sums the gradient number by number on a single core, which takes a third of a small model's
training time on a CPU. The weight of a pixel in a bin is the same for all channels, so one sparse matrix of
these weights spreads the gradient of all channels at once. Values and gradients are torchvision's but for the
order of additions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn


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


def samples(span: Tensor, bins: int, size: int) -> Samples:
    """The samples of RoIAlign with ``aligned=True`` and ``sampling_ratio=0``: one for each pixel of a bin.

    Args:
        span: (n, 2) where the boxes begin and end, in pixels.
        bins: bins along the axis.
        size: of the image along the axis, in pixels. A sample up to one pixel outside takes the value at the
            edge, one further out counts nothing.
    """
    start = span[:, 0] - 0.5
    bin_size = (span[:, 1] - 0.5 - start) / bins
    # A box without extent has no samples.
    count = torch.ceil(bin_size).clamp_(min=0)
    step = torch.arange(max(int(count.max()), 1) if len(count) else 1, device=span.device)
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
    low, weight, share = samples(span, bins, size)
    pixel = torch.cat([low, (low + 1).clamp_(max=size - 1)], dim=2)
    return pixel, torch.cat([share * (1 - weight), share * weight], dim=2)


def use_sparse_gradient(model: nn.Module) -> None:
    """Replace the RoIAlign layers in a model's poolers by ``SparseGradientROIAlign``."""
    for pooler in model.modules():
        if isinstance(pooler, ROIPooler):
            pooler.level_poolers = nn.ModuleList(
                SparseGradientROIAlign(layer.output_size, layer.spatial_scale, sampling_ratio=0)
                for layer in pooler.level_poolers
            )
