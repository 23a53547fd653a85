"""The masks of a validation frame, true and predicted: all of its scoring that no score has a part in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kitlib.masks import rle
from kitlib.metric.matching import Pairs, of_matrix
from kitlib.post import scores, thresholds
from kitlib.post.config import CategoryConfig
from kitlib.post.tuning.parts import Atoms, MaskParts, Part
from kitlib.records import Cell, Frame


class Disjoint(NamedTuple):
    """Masks that are left without overlap, (K,) each: which ones, their areas then, and their best IoU with
    any true cell."""

    members: NDArray[np.int64]
    areas: NDArray[np.int64]
    best_iou: NDArray[np.float64]


class FrameMasks:
    """A validation frame with its true and its predicted cells, which several scorers of it share.

    Args:
        truth: the frame with its true cells.
        predicted: the predicted frame for each mask threshold; all have the same type.
    """

    def __init__(self, truth: Frame, predicted: Mapping[float, Frame]) -> None:
        self.truth, self.predicted = truth, predicted
        self._masks: dict[tuple[float, bool, bool], Masks] = {}
        self._features: dict[float, NDArray[np.float64]] = {}

    @property
    def mask_thresholds(self) -> list[float]:
        """Those at which masks were cut."""
        return list(self.predicted)

    @property
    def cells(self) -> int:
        """How many cells the frame truly has."""
        return len(self.truth.cells)

    def cleaned(self, config: CategoryConfig) -> Masks:
        """The masks as cut and cleaned under the configuration."""
        mask_threshold = thresholds.nearest(self.mask_thresholds, config.mask_threshold)
        key = mask_threshold, config.fill_holes, config.largest_only
        if key not in self._masks:
            found = self.predicted[mask_threshold]
            cleaned = thresholds.clean_masks(found, config).cells
            unchanged = all(a.mask is b.mask for a, b in zip(cleaned, found.cells, strict=True))
            as_found = mask_threshold, False, False
            if unchanged and key != as_found:
                self._masks[key] = self.cleaned(CategoryConfig(mask_threshold=mask_threshold))
            else:
                self._masks[key] = Masks(cleaned, self.truth)
        return self._masks[key]

    def features(self, mask_threshold: float) -> NDArray[np.float64]:
        """What the learned score is calculated from."""
        if mask_threshold not in self._features:
            self._features[mask_threshold] = scores.features(self.predicted[mask_threshold])
        return self._features[mask_threshold]

    def samples(self) -> scores.Samples:
        """What to learn the learned score from."""
        first = self.mask_thresholds[0]
        return scores.samples(self.truth, self.predicted[first], self.features(first))


class Masks:
    """The predicted masks of a frame; indices are those of its cells.

    What better masks leave of a mask depends on those alone that overlap it, and most orders and
    configurations leave the same of most masks: each such part is cut out and measured once.
    """

    def __init__(self, cells: Sequence[Cell], truth: Frame) -> None:
        self._masks = [cell.mask for cell in cells]
        self._true_masks = [cell.mask for cell in truth.cells]
        self.areas = rle.areas(self._masks)
        self.texts = [mask["counts"] for mask in self._masks]
        self._alike: dict[float, dict[int, list[int]]] = {}

    @cached_property
    def best_iou(self) -> NDArray[np.float64]:
        """The best IoU of each whole mask with any true cell."""
        return self._iou_with_true.max(axis=0, initial=0.0)

    @cached_property
    def _iou_with_true(self) -> NDArray[np.float64]:
        return np.nan_to_num(rle.iou(self._true_masks, self._masks))

    @cached_property
    def _overlaps(self) -> Pairs:
        """Pairs of different masks that overlap, in both orders."""
        iou = np.nan_to_num(rle.iou(self._masks, self._masks))
        np.fill_diagonal(iou, 0)
        return of_matrix(iou)

    def _alike_above(self, iou: float) -> dict[int, list[int]]:
        """By mask, the masks whose IoU with it is above a threshold; masks without any are absent."""
        if iou not in self._alike:
            pairs = self._overlaps.where(self._overlaps.iou > iou)
            found: dict[int, list[int]] = {}
            for mask, other in zip(pairs.true.tolist(), pairs.predicted.tolist(), strict=True):
                found.setdefault(mask, []).append(other)
            self._alike[iou] = found
        return self._alike[iou]

    @cached_property
    def _parts(self) -> dict[int, MaskParts]:
        """The parts of each mask that has pixels."""
        filled = np.flatnonzero(self.areas).tolist()
        true_filled = np.flatnonzero(rle.areas(self._true_masks)).tolist()
        frame = Atoms([self._masks[i] for i in filled] + [self._true_masks[i] for i in true_filled])
        true_cells = dict(zip(true_filled, frame.of_mask[len(filled) :], strict=True))
        return {
            mask: MaskParts(
                atoms, frame, [true_cells[i] for i in np.flatnonzero(self._iou_with_true[:, mask])]
            )
            for mask, atoms in zip(filled, frame.of_mask[: len(filled)], strict=True)
        }

    def resolve(self, order: NDArray[np.int64], config: CategoryConfig) -> Disjoint:
        """What is left of some masks without overlap.

        Args:
            order: indices, best first.
            config: ``mask_nms``, ``max_clipped`` and ``split``.
        """
        taken = 0
        left: dict[int, Part] = {}
        for mask in self._suppress(order.tolist(), config.mask_nms):
            parts = self._parts[mask]
            clipped = (taken >> parts.first) & parts.whole.atoms
            part = parts.without(clipped).under(config) if clipped else parts.whole
            if part is not None:
                left[mask] = part
                taken |= part.atoms << parts.first
        members = np.fromiter(left, np.int64, len(left))
        areas = np.array([part.area for part in left.values()], np.int64)
        return Disjoint(members, areas, np.array([part.best_iou for part in left.values()], np.float64))

    def _suppress(self, order: list[int], highest: float) -> list[int]:
        """What greedy non-maximum suppression leaves of masks, best first."""
        alike = self._alike_above(highest)
        stay: dict[int, None] = {}
        for mask in order:
            if mask not in alike or stay.keys().isdisjoint(alike[mask]):
                stay[mask] = None
        return list(stay)
