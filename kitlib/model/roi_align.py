"""RoIAlign: where it samples, and its gradient on the CPU as one product with a sparse matrix.

torchvision adds the gradient up number by number on a single core, which is a third of the time in which a
small model trains. What each bin takes from each pixel does not depend on the channel: as a sparse matrix it
spreads all channels at once. Values and gradients are those of torchvision but for the order of additions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn


class Samples(NamedTuple):
    """Where RoIAlign looks along one axis of ``n`` boxes; each is (n, bins, samples of a bin).

    Attributes:
        low: the pixel at or before each sample.
        weight: the share of the pixel after it.
        share: how much the sample counts in its bin; 0 for samples that there are not.
    """

    low: Tensor
    weight: Tensor
    share: Tensor


def samples(span: Tensor, bins: int, size: int) -> Samples:
    """The samples of RoIAlign with ``aligned=True`` and ``sampling_ratio=0``: as many a bin as it has pixels.

    Args:
        span: (n, 2) where the boxes begin and end, in pixels.
        size: pixels along the image's axis; samples up to one pixel outside take its edge, further out
            nothing.
    """
    start = span[:, 0] - 0.5
    bin_size = (span[:, 1] - 0.5 - start) / bins
    count = torch.ceil(bin_size).clamp_(min=0)  # a box of no extent has no samples
    step = torch.arange(max(int(count.max()), 1) if len(count) else 1, device=span.device)
    divisor = count.clamp(min=1)
    at = (step + 0.5) * (bin_size / divisor)[:, None]
    at = (start[:, None] + torch.arange(bins, device=span.device) * bin_size[:, None])[..., None] + at[
        :, None
    ]
    share = ((step < count[:, None])[:, None] & (at >= -1) & (at <= size)) / divisor[:, None, None]
    at = at.clamp_(0, size - 1)
    low = at.floor()
    return Samples(low.long(), at - low, share)


class CheapGradient(ROIAlign):
    """detectron2's layer with that gradient, where it is on the CPU; aligned, ``sampling_ratio`` 0."""

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """As there: (N, C, H, W) and (K, 5) image, x0, y0, x1, y1 to (K, C, bins, bins)."""
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
        spread = _taken(rois, ctx.scale, bins, (number, height, width))
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, channels).float()
        pixels = torch.sparse.mm(spread, rows).view(number, height, width, channels)
        return pixels.permute(0, 3, 1, 2).to(ctx.dtype), None, None, None


def _taken(rois: Tensor, scale: float, bins: int, size: tuple[int, int, int]) -> Tensor:
    """(pixels of all images, bins of all boxes), sparse: how much of a pixel is in a bin."""
    number, height, width = size
    y, y_weight = _pixels(rois[:, 2::2].float() * scale, bins, height)
    x, x_weight = _pixels(rois[:, 1::2].float() * scale, bins, width)
    image = rois[:, 0].long() * height
    pixel = (image[:, None, None, None, None] + y[:, :, None, :, None]) * width + x[:, None, :, None, :]
    weight = (y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]).flatten()
    some = weight.nonzero()[:, 0]
    each = y.shape[2] * x.shape[2]
    place = torch.stack([pixel.flatten()[some], some // each])
    shape = (number * height * width, len(rois) * bins**2)
    return torch.sparse_coo_tensor(place, weight[some], shape, check_invariants=False)


def _pixels(span: Tensor, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """Which pixels along one axis each bin takes, and how much of each: (n, bins, 2 x samples of a bin)."""
    low, weight, share = samples(span, bins, size)
    pixel = torch.cat([low, (low + 1).clamp_(max=size - 1)], dim=2)
    return pixel, torch.cat([share * (1 - weight), share * weight], dim=2)


def cheapen(model: nn.Module) -> None:
    """Give every pooler of a model the cheap gradient; its values stay as they are."""
    for pooler in model.modules():
        if isinstance(pooler, ROIPooler):
            pooler.level_poolers = nn.ModuleList(
                CheapGradient(layer.output_size, layer.spatial_scale, sampling_ratio=0)
                for layer in pooler.level_poolers
            )
