"""LZW streams in TIFF files, checked before they are decoded: imagecodecs crashes on some damaged ones."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from tifffile import TiffFrame, TiffPage

_COMPRESSION = 5
# Codes that empty the table and that end the stream; codes from 258 on are entries of the table.
_CLEAR, _END = 256, 257
# The table is full before so many codes, so that one of them empties it.
_CODES = np.arange(4096)
# Of the codes after the table was emptied: bits, the bits before each, and the largest that may stand there,
# which is the entry that the code itself completes.
_BITS = 9 + np.searchsorted([254, 766, 1790], _CODES, side="right")
_BEFORE = np.cumsum(_BITS) - _BITS
_LARGEST = np.where(_CODES == 0, 255, np.minimum(257 + _CODES, 4095))


def check_pages(pages: Iterable[TiffPage | TiffFrame]) -> None:
    """See that the strips and tiles of pages can be decoded, where they are compressed by LZW.

    Raises:
        ValueError: a stream has a code that is not in its table, or is of the kind before TIFF 6.
    """
    for page in pages:
        described = page.keyframe
        if described is None or int(described.compression) != _COMPRESSION:
            continue
        for place, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            page.parent.filehandle.seek(place)
            data = page.parent.filehandle.read(size)
            _check(_bits_reversed(data) if int(described.fillorder) == 2 else data)


def _bits_reversed(data: bytes) -> bytes:
    """With the bits of each byte in the opposite order."""
    return np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little").tobytes()


def _check(data: bytes) -> None:
    if data[:1] == b"\0" and data[1:2] and data[1] & 1:
        # As imagecodecs tells it, which crashes on damaged streams of this kind as well.
        raise ValueError("its LZW stream is of the kind before TIFF 6")
    bits, place = 8 * len(data), 0
    # A code of 12 bits reaches into three bytes.
    padded = np.frombuffer(data + bytes(3), np.uint8).astype(np.uint32)
    while count := int(np.searchsorted(_BEFORE + _BITS, bits - place, side="right")):
        at, width = place + _BEFORE[:count], _BITS[:count]
        first = at >> 3
        word = padded[first] << 16 | padded[first + 1] << 8 | padded[first + 2]
        codes = word >> (24 - (at & 7) - width) & (1 << width) - 1
        special = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        stop = int(special[0]) if len(special) else count
        if (codes[:stop] > _LARGEST[:stop]).any() or stop == len(_CODES):
            raise ValueError("its LZW stream is damaged")
        if stop == count or codes[stop] == _END:
            return
        place = int(at[stop] + width[stop])
