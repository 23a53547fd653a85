"""The masks of a validation frame, true and predicted: all of its scoring that no score has a part in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from kitlib.masks import rle
from kitlib.post import overlap, scores, thresholds
from kitlib.post.config import CategoryConfig
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
        self._true_cells = _TrueCells(truth)
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
                self._masks[key] = Masks(cleaned, self._true_cells)
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


class _TrueCells:
    """The true cells of a frame; they may overlap."""

    def __init__(self, frame: Frame) -> None:
        self.masks = [c.mask for c in frame.cells]
        self.width = frame.width
        self.areas = rle.areas(self.masks)
        flat = np.concatenate([*rle.pixels(self.masks), np.empty(0, np.int64)])
        self.y, self.x = np.divmod(flat.astype(np.int32), np.int32(frame.width))
        self.owner = np.repeat(np.arange(len(self.masks)), self.areas)


class Masks:
    """The predicted masks of a frame; indices are those of its cells.

    Masks that overlap, directly or over others, make a group. Groups do not change each other, and most
    configurations and scores leave most groups as others do: each is resolved once for each order of its
    masks.
    """

    def __init__(self, cells: Sequence[Cell], true_cells: _TrueCells) -> None:
        self._masks = [c.mask for c in cells]
        self._true_cells = true_cells
        self.areas = rle.areas(self._masks)
        self.texts = [mask["counts"] for mask in self._masks]

    @cached_property
    def best_iou(self) -> NDArray[np.float64]:
        """The best IoU of each whole mask with any true cell."""
        return np.nan_to_num(rle.iou(self._true_cells.masks, self._masks)).max(axis=0, initial=0.0)

    @cached_property
    def _grouped(self) -> tuple[NDArray[np.int32], list[_Group]]:
        """The group of each mask, and the groups by number."""
        iou = np.nan_to_num(rle.iou(self._masks, self._masks))
        group_of = connected_components(csr_array(iou > 0), directed=False)[1]
        order = np.argsort(group_of, kind="stable")
        pixels = [p.astype(np.int32) for p in rle.pixels(self._masks)]
        groups = [
            _Group(part, iou[np.ix_(part, part)], [pixels[i] for i in part], self._true_cells)
            for part in np.split(order, np.cumsum(np.bincount(group_of))[:-1])
        ]
        return group_of, groups

    def resolve(self, order: NDArray[np.int64], config: CategoryConfig) -> Disjoint:
        """What is left of some masks without overlap.

        Args:
            order: indices, best first.
            config: ``mask_nms``, ``max_clipped`` and ``split``.
        """
        if not len(order):
            return Disjoint(order, np.zeros(0, np.int64), np.zeros(0))
        group_of, groups = self._grouped
        group = group_of[order]
        sorted_by_group = np.argsort(group, kind="stable")
        ends = np.cumsum(np.bincount(group))
        begins = np.concatenate([[0], ends[:-1]])
        grouped = order[sorted_by_group]
        used = np.flatnonzero(begins < ends)
        found = [
            groups[g].resolve(grouped[a:b], config)
            for g, a, b in zip(used.tolist(), begins[used].tolist(), ends[used].tolist(), strict=True)
        ]
        joined = Disjoint(
            np.concatenate([part.members for part in found]),
            np.concatenate([part.areas for part in found]),
            np.concatenate([part.best_iou for part in found]),
        )
        place = np.empty(len(self.areas), np.int64)
        place[order] = np.arange(len(order))
        best_first = np.argsort(place[joined.members])
        return Disjoint(joined.members[best_first], joined.areas[best_first], joined.best_iou[best_first])


class _Group:
    """Masks that overlap, with the part of the frame around them.

    Args:
        members: (M,) their indices, ascending.
        iou: (M, M) with each other.
        pixels: of each the flat indices in the frame.
        true_cells: of the whole frame.
    """

    def __init__(
        self,
        members: NDArray[np.int64],
        iou: NDArray[np.float64],
        pixels: list[NDArray[np.int32]],
        true_cells: _TrueCells,
    ) -> None:
        self._members, self._iou = members, iou
        y, x = np.divmod(np.concatenate(pixels), np.int32(true_cells.width))
        top, left = (y.min(), x.min()) if len(y) else (0, 0)
        self._size = (int(y.max() - top + 1), int(x.max() - left + 1)) if len(y) else (1, 1)
        cuts = np.cumsum([len(p) for p in pixels])[:-1]
        self._pixels = np.split((y - top) * self._size[1] + x - left, cuts)
        inside = (true_cells.y >= top) & (true_cells.y < top + self._size[0])
        inside &= (true_cells.x >= left) & (true_cells.x < left + self._size[1])
        self._true = (true_cells.y[inside] - top) * self._size[1] + true_cells.x[inside] - left
        owners, self._owner = np.unique(true_cells.owner[inside], return_inverse=True)
        self._true_areas = true_cells.areas[owners]
        # Above the highest IoU of two members, suppression leaves all.
        self._most_alike = float(np.triu(iou, 1).max(initial=0.0))
        self._resolved: dict[tuple[bytes, float, float, str], Disjoint] = {}
        self._chosen: dict[tuple[bytes, float], NDArray[np.int64]] = {}
        self._painted: dict[tuple[bytes, float | None, str | None], Disjoint] = {}

    def resolve(self, order: NDArray[np.int64], config: CategoryConfig) -> Disjoint:
        """As ``Masks.resolve``, for members of this group; in any order."""
        key = order.tobytes(), config.mask_nms, config.max_clipped, config.split
        if key not in self._resolved:
            self._resolved[key] = self._paint(self._suppress(order, config.mask_nms), config)
        return self._resolved[key]

    def _suppress(self, order: NDArray[np.int64], highest: float) -> NDArray[np.int64]:
        """The places among the members of those that non-maximum suppression leaves, best first."""
        key = order.tobytes(), min(highest, self._most_alike)
        if key not in self._chosen:
            places = np.searchsorted(self._members, order)
            if highest < self._most_alike:
                places = places[overlap.suppress(self._iou[np.ix_(places, places)], highest)]
            self._chosen[key] = places
        return self._chosen[key]

    def _paint(self, chosen: NDArray[np.int64], config: CategoryConfig) -> Disjoint:
        """The chosen members without overlap, painted once for all ways of clipping that give the same."""
        names, most, split = chosen.tobytes(), config.max_clipped, config.split
        for key in ((names, None, None), (names, most, None), (names, most, split)):
            if key in self._painted:
                return self._painted[key]
        pixels = [self._pixels[i] for i in chosen.tolist()]
        painted = overlap.paint(pixels, *self._size, most, split)
        areas = np.array([len(p) for p in painted.pixels], np.int64)
        members = self._members[chosen[painted.index]]
        result = Disjoint(members, areas, self._best_iou(painted.labels, areas))
        if areas.sum() == sum(map(len, pixels)):
            self._painted[names, None, None] = result
        elif split != "keep_all" and not painted.broken:
            self._painted[names, most, None] = result
        else:
            self._painted[names, most, split] = result
        return result

    def _best_iou(self, labels: NDArray[np.int32], areas: NDArray[np.int64]) -> NDArray[np.float64]:
        """The best IoU with any true cell of each instance of a flat label map, (K,)."""
        shape = len(self._true_areas), len(areas) + 1
        pairs = self._owner * shape[1] + labels[self._true]
        common = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)[:, 1:]
        union = self._true_areas[:, None] + areas - common
        return (common / np.maximum(union, 1)).max(axis=0, initial=0.0)
