"""The parts of predicted masks that better ones leave, as sets of atoms: each is cut out and measured once.

An atom of a frame is an 8-connected set of pixels that the same masks cover. What greedy clipping leaves of a
mask, and each piece of that, is a union of atoms. A set of atoms is an integer with a bit for each, so that
clipping a mask takes one operation instead of one for each pixel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from kitlib.masks import rle
from kitlib.post import overlap
from kitlib.post.config import CategoryConfig

_INT64 = np.iinfo(np.int64).min, np.iinfo(np.int64).max


class MaskAtoms(NamedTuple):
    """The atoms of a mask.

    Attributes:
        pixels: the mask's flat indices in the frame, ascending, (P,).
        first: the number of its first atom in the frame.
        atom: of each pixel, counted from the first one, (P,).
        bits: bit ``i`` is atom ``i``, counted from the first one.
    """

    pixels: NDArray[np.int32]
    first: int
    atom: NDArray[np.int32]
    bits: int


class Atoms:
    """The atoms of some masks of a frame, numbered from 1 as their first pixels come.

    Args:
        masks: none of them empty, at least one.

    Attributes:
        width: of the frame.
        of_mask: those of each mask.
        digits: for each binary digit of the atoms' numbers of pixels, the ones first, the atoms that have it:
            bit ``i`` is atom ``i``.
    """

    def __init__(self, masks: Sequence[rle.RLE]) -> None:
        pixels = [each.astype(np.int32) for each in rle.pixels(masks)]
        height, self.width = rle.height_width(masks[0])
        # A sum of random numbers, one for each mask that covers the pixel, tells which masks these are: two
        # neighbours that differ have the same sum with a probability of 2 to the -64.
        sums = np.zeros(height * self.width, np.int64)
        for of_mask, drawn in zip(
            pixels, np.random.default_rng(0).integers(*_INT64, len(masks)), strict=True
        ):
            sums[of_mask] += drawn
        numbers = measure.label(sums.reshape(height, self.width), connectivity=2).ravel()
        self.of_mask = _of_each(pixels, numbers)
        sizes = np.bincount(numbers)
        places = range(int(sizes[1:].max()).bit_length())
        self.digits = [_from_flags((sizes >> place) & 1) for place in places]


def _of_each(masks: Sequence[NDArray[np.int32]], numbers: NDArray[np.int64]) -> list[MaskAtoms]:
    """The atoms of masks, found for all of them at once.

    Args:
        masks: the flat indices of each mask's pixels.
        numbers: the atom of each pixel of the flattened frame.
    """
    lengths = np.array([len(pixels) for pixels in masks])
    number = numbers[np.concatenate(masks)].astype(np.int32)
    begins = np.cumsum(lengths) - lengths
    firsts, lasts = np.minimum.reduceat(number, begins), np.maximum.reduceat(number, begins)
    number -= np.repeat(firsts, lengths)
    # The flags of each mask begin with a byte of their own.
    bounds = np.concatenate([[0], np.cumsum((lasts - firsts) // 8 + 1)])
    flags = np.zeros(8 * bounds[-1], bool)
    flags[number + np.repeat(8 * bounds[:-1], lengths)] = True
    packed = np.packbits(flags, bitorder="little").tobytes()
    bits = [int.from_bytes(packed[a:b], "little") for a, b in itertools.pairwise(bounds.tolist())]
    return list(map(MaskAtoms, masks, firsts.tolist(), np.split(number, begins[1:]), bits))


def _from_flags(flags: NDArray) -> int:
    """Flags as the bits of an integer."""
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


class Part:
    """Some atoms of a mask.

    Args:
        mask: the parts of that mask, of which this is one.
        atoms: their set, numbered as ``MaskParts`` does.
        area: their pixels.

    Attributes:
        atoms: as given.
        area: as given.
    """

    def __init__(self, mask: MaskParts, atoms: int, area: int) -> None:
        self._mask, self.atoms, self.area = mask, atoms, area

    @cached_property
    def best_iou(self) -> float:
        """The best IoU with any true cell."""
        return self._mask.best_iou(self)

    @cached_property
    def _largest(self) -> Part:
        """The largest piece where the mask was broken up; else this part itself."""
        return self._mask.largest(self)

    def under(self, config: CategoryConfig) -> Part | None:
        """What ``max_clipped`` and ``split`` leave of it, None for nothing; as in ``overlap.disjoint``."""
        most, wanted = config.max_clipped, self._mask.area
        if not overlap.stays(self.area, wanted, most):
            return None
        if self.area == wanted or config.split == "keep_all" or self._largest is self:
            return self
        fits = config.split == "keep_largest" and overlap.stays(self._largest.area, wanted, most)
        return self._largest if fits else None


class MaskParts:
    """The parts of one predicted mask. Its atoms are numbered from its first one.

    Args:
        mask: its atoms.
        frame: those of all masks, true and predicted.
        true_cells: those of each true cell that overlaps it.

    Attributes:
        first: the number of the mask's first atom in the frame.
        area: the pixels of the whole mask.
        whole: the part with all of its atoms.
    """

    def __init__(self, mask: MaskAtoms, frame: Atoms, true_cells: Sequence[MaskAtoms]) -> None:
        self._mask, self._width = mask, frame.width
        self.first, self.area = mask.first, len(mask.pixels)
        self._digits = [(digit >> mask.first) & mask.bits for digit in frame.digits]
        self._true_cells = [
            (((cell.bits << cell.first) >> mask.first) & mask.bits, len(cell.pixels)) for cell in true_cells
        ]
        self.whole = Part(self, mask.bits, self.area)
        self._parts = {mask.bits: self.whole}

    def without(self, atoms: int) -> Part:
        """The part without some of the mask's atoms; the same object for the same ones."""
        return self._part(self.whole.atoms ^ atoms)

    def best_iou(self, part: Part) -> float:
        """The best IoU of a part with any true cell."""
        best = 0.0
        for cell, area in self._true_cells:
            common = self._count(part.atoms & cell)
            best = max(best, common / (area + part.area - common))
        return best

    def largest(self, part: Part) -> Part:
        """The largest piece of a part where the mask was broken up; else the part itself."""
        pixels, atom = self._mask.pixels, self._mask.atom
        text = part.atoms.to_bytes(self._mask.bits.bit_length() // 8 + 1, "little")
        inside = np.unpackbits(np.frombuffer(text, np.uint8), bitorder="little").view(bool)
        largest = overlap.largest_piece(pixels[inside[atom]], pixels, self._width)
        if largest is None:
            return part
        flags = np.zeros(len(inside), bool)
        flags[atom[pixels.searchsorted(largest)]] = True
        return self._part(_from_flags(flags))

    def _part(self, atoms: int) -> Part:
        part = self._parts.get(atoms)
        if part is None:
            part = self._parts[atoms] = Part(self, atoms, self._count(atoms))
        return part

    def _count(self, atoms: int) -> int:
        """The pixels of some of the mask's atoms."""
        return sum((atoms & digit).bit_count() << place for place, digit in enumerate(self._digits))
