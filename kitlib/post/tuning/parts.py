"""The parts of predicted masks that better ones leave, as sets of atoms: each is cut out and measured once.

An atom of some masks is an 8-connected set of pixels that the same of these masks cover. What greedy clipping
leaves of a mask, and each piece of that, is a union of atoms. Sets of atoms are the bits of an integer, so that
clipping a mask takes a single operation instead of one for each pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from kitlib.post import overlap
from kitlib.post.config import CategoryConfig


def atoms(pixels: Sequence[NDArray[np.integer]], height: int, width: int) -> NDArray[np.int32]:
    """The number, from 1, of each pixel's atom in the flattened frame; 0 where no mask is.

    Args:
        pixels: the flat indices of each mask in the frame.
        height: of the frame.
        width: of the frame.
    """
    # Each mask divides every set of pixels into those inside and those outside of it.
    found = np.zeros(height * width, np.int32)
    number = 0
    for of_mask in pixels:
        before = found[of_mask]
        divided = np.flatnonzero(np.bincount(before))
        new = np.zeros(number + 1, np.int32)
        new[divided] = np.arange(number + 1, number + 1 + len(divided))
        found[of_mask] = new[before]
        number += len(divided)
    return measure.label(found.reshape(height, width), connectivity=2).ravel().astype(np.int32)


def _to_bits(atoms: NDArray[np.integer]) -> int:
    flags = np.zeros(int(atoms.max(initial=0)) + 1, bool)
    flags[atoms] = True
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


class Part:
    """Some atoms of a mask.

    Args:
        mask: the parts of that mask, of which this is one.
        bits: the atoms.

    Attributes:
        area: its pixels.
    """

    def __init__(self, mask: MaskParts, bits: int) -> None:
        self._mask, self.bits = mask, bits
        self.area = mask.area(bits)

    @cached_property
    def best_iou(self) -> float:
        """The best IoU with any true cell."""
        return self._mask.best_iou(self.bits)

    @cached_property
    def _largest(self) -> Part:
        """The largest piece where the mask was broken up; else this part itself."""
        return self._mask.largest(self)

    def under(self, config: CategoryConfig) -> Part | None:
        """What ``max_clipped`` and ``split`` leave of it, None for nothing; as in ``overlap.disjoint``."""
        most, wanted = config.max_clipped, self._mask.whole.area
        if not overlap.stays(self.area, wanted, most):
            return None
        if self.area == wanted or config.split == "keep_all" or self._largest is self:
            return self
        fits = config.split == "keep_largest" and overlap.stays(self._largest.area, wanted, most)
        return self._largest if fits else None


class MaskParts:
    """The parts of one predicted mask.

    Args:
        pixels: the mask's flat indices in the frame, ascending, (P,).
        width: of the frame.
        atom_of: the atom of each pixel of the flattened frame.
        in_true: for each true cell that overlaps the mask its pixels by atom of the frame, (T, A).
        true_areas: the pixels of each of them, (T,).

    Attributes:
        bits: all atoms of the mask.
        whole: the part with all of them.
    """

    def __init__(
        self,
        pixels: NDArray[np.integer],
        width: int,
        atom_of: NDArray[np.int32],
        in_true: Sequence[NDArray[np.int64]],
        true_areas: NDArray[np.int64],
    ) -> None:
        self._pixels, self._width, self._true_areas = pixels, width, true_areas
        self._atom_of_pixel = atom_of[pixels]
        sizes = np.bincount(self._atom_of_pixel)
        self._atoms = np.flatnonzero(sizes)
        self._sizes = sizes[self._atoms]
        self._in_true = np.array([by_atom[self._atoms] for by_atom in in_true], np.int32)
        self.bits = _to_bits(self._atoms)
        self._parts: dict[int, Part] = {}
        self.whole = self.part(self.bits)

    def part(self, bits: int) -> Part:
        """The part with these atoms; the same object for the same ones."""
        part = self._parts.get(bits)
        if part is None:
            part = self._parts[bits] = Part(self, bits)
        return part

    def area(self, bits: int) -> int:
        """The pixels of a part."""
        return int(self._sizes[self._inside(bits)].sum())

    def best_iou(self, bits: int) -> float:
        """The best IoU of a part with any true cell."""
        if not len(self._in_true):
            return 0.0
        inside = self._inside(bits)
        common = self._in_true[:, inside].sum(axis=1)
        return float((common / (self._true_areas + self._sizes[inside].sum() - common)).max())

    def largest(self, part: Part) -> Part:
        """The largest piece of a part where the mask was broken up; else the part itself."""
        inside = np.zeros(self._atoms[-1] + 1, bool)
        inside[self._atoms[self._inside(part.bits)]] = True
        left = self._pixels[inside[self._atom_of_pixel]]
        largest = overlap.largest_piece(left, self._pixels, self._width)
        if largest is None:
            return part
        return self.part(_to_bits(self._atom_of_pixel[self._pixels.searchsorted(largest)]))

    def _inside(self, bits: int) -> NDArray[np.bool_]:
        """Which of the mask's atoms these bits say."""
        text = bits.to_bytes(int(self._atoms[-1]) // 8 + 1, "little")
        return np.unpackbits(np.frombuffer(text, np.uint8), bitorder="little")[self._atoms].astype(bool)
