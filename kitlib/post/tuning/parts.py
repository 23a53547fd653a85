"""The parts of predicted masks that better ones leave, as sets of atoms: each is cut out and measured once.

An atom of a frame is an 8-connected set of pixels that the same masks cover. What greedy clipping leaves of a
mask, and each piece of that, is a union of atoms. A set of atoms is an integer with a bit for each, so that
clipping a mask takes one operation instead of one for each pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from kitlib.post import overlap
from kitlib.post.config import CategoryConfig


class Atoms:
    """The atoms of some masks of a frame, numbered from 1 as their first pixels come.

    Args:
        masks: the flat indices of each mask's pixels in the frame.
        height: of the frame.
        width: of the frame.

    Attributes:
        width: of the frame.
        numbers: the atom of each pixel of the flattened frame, 0 where no mask is.
        digits: for each binary digit of the atoms' numbers of pixels the atoms that have it, the ones first.
    """

    def __init__(self, masks: Sequence[NDArray[np.integer]], height: int, width: int) -> None:
        self.width = width
        # Each mask divides every set of pixels into those inside and those outside of it.
        sets = np.zeros(height * width, np.int32)
        count = 0
        for pixels in masks:
            before = sets[pixels]
            divided = np.flatnonzero(np.bincount(before))
            inside = np.zeros(count + 1, np.int32)
            inside[divided] = np.arange(count + 1, count + 1 + len(divided))
            sets[pixels] = inside[before]
            count += len(divided)
        labels = measure.label(sets.reshape(height, width), connectivity=2)
        self.numbers = labels.ravel().astype(np.int32)
        sizes = np.bincount(self.numbers)
        # The sizes in binary: of each digit the atoms that have it.
        places = range(int(sizes[1:].max(initial=0)).bit_length())
        self.digits = [_from_flags((sizes >> place) & 1) for place in places]

    def of(self, pixels: NDArray[np.integer]) -> int:
        """The atoms of one of the masks."""
        return _to_bits(self.numbers[pixels])


def _to_bits(numbers: NDArray[np.integer]) -> int:
    """The set of these numbers."""
    flags = np.zeros(int(numbers.max(initial=0)) + 1, bool)
    flags[numbers] = True
    return _from_flags(flags)


def _from_flags(flags: NDArray) -> int:
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
        pixels: the mask's flat indices in the frame, ascending, (P,) with P > 0.
        frame: the atoms of all masks, true and predicted.
        true_cells: of each true cell that overlaps the mask its atoms in the frame, and its area.

    Attributes:
        first: the number of the mask's first atom in the frame.
        area: the pixels of the whole mask.
        whole: the part with all of its atoms.
    """

    def __init__(
        self, pixels: NDArray[np.integer], frame: Atoms, true_cells: Sequence[tuple[int, int]]
    ) -> None:
        self._pixels, self._width, self.area = pixels, frame.width, len(pixels)
        numbers = frame.numbers[pixels]
        self.first = int(numbers.min())
        self._atom_of_pixel = numbers - self.first
        atoms = _to_bits(self._atom_of_pixel)
        self._digits = [(digit >> self.first) & atoms for digit in frame.digits]
        self._true_cells = [((cell >> self.first) & atoms, area) for cell, area in true_cells]
        self.whole = Part(self, atoms, self.area)
        self._parts = {atoms: self.whole}

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
        text = part.atoms.to_bytes(self.whole.atoms.bit_length() // 8 + 1, "little")
        inside = np.unpackbits(np.frombuffer(text, np.uint8), bitorder="little")
        left = self._pixels[inside[self._atom_of_pixel].view(bool)]
        largest = overlap.largest_piece(left, self._pixels, self._width)
        if largest is None:
            return part
        return self._part(_to_bits(self._atom_of_pixel[self._pixels.searchsorted(largest)]))

    def _part(self, atoms: int) -> Part:
        part = self._parts.get(atoms)
        if part is None:
            part = self._parts[atoms] = Part(self, atoms, self._count(atoms))
        return part

    def _count(self, atoms: int) -> int:
        """The pixels of some of the mask's atoms."""
        return sum((atoms & digit).bit_count() << place for place, digit in enumerate(self._digits))
