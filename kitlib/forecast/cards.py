"""GPUs by name, and how long a card takes for a number of operations: calculated, not measured.

detectron2's authors measured a V100 (their MODEL_ZOO.md: cascade R50, 0.328 s for two images of a training
step on each of eight GPUs, 0.053 s for an image at inference). By the same counting of operations that is
44 % and 52 % of its peak, which is taken for every model. Another card is taken to be as much faster as its
memory or its arithmetic, whichever gains less, and mixed precision as 1.5 times as fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kitlib.errors import unknown

Work = Literal["training", "prediction"]

SHARE_OF_PEAK: dict[Work, float] = {"training": 0.44, "prediction": 0.52}
"""What detectron2's published cascade R50 reaches of a V100's peak in fp32."""
MIXED_PRECISION = 1.5


@dataclass(frozen=True)
class Card:
    """A GPU, by NVIDIA's data sheet.

    Attributes:
        capability: the compute capability, (7, 5) for 7.5.
        gib: its memory.
        single: peak TFLOP/s of convolutions in fp32; in TF32 where the card has it, PyTorch's default.
        half: peak TFLOP/s of tensor cores in fp16, and in bf16 from compute capability 8.0 on.
        bandwidth: of its memory in GB/s.
    """

    capability: tuple[int, int]
    gib: float
    single: float
    half: float
    bandwidth: float


CARDS = {
    "V100": Card((7, 0), 16, 15.7, 125, 900),
    "T4": Card((7, 5), 15, 8.1, 65, 320),
    "RTX3090": Card((8, 6), 24, 35.6, 71, 936),
    "A100": Card((8, 0), 40, 156, 312, 1555),
    "L4": Card((8, 9), 22, 60, 121, 300),
    "H100": Card((9, 0), 80, 495, 989, 3350),
}
_MEASURED = CARDS["V100"]


def named(name: str) -> Card:
    """The card of a name.

    Raises:
        KitError: there is no such card; the nearest name is in the message.
    """
    if name not in CARDS:
        raise unknown("card", name, CARDS)
    return CARDS[name]


def speed(card: Card, half: bool) -> float:
    """How many times as fast as a V100 in fp32 a card is, in mixed precision if ``half``."""
    memory = card.bandwidth / _MEASURED.bandwidth
    if not half:
        return min(card.single / _MEASURED.single, memory)
    return min(card.half / _MEASURED.single, MIXED_PRECISION * memory)


def seconds(operations: float, card: Card, half: bool, work: Work) -> float:
    """What a card takes.

    Args:
        operations: floating-point operations; a multiplication and an addition are two.
        card: the card.
        half: in mixed precision.
        work: of a training, or of a prediction.
    """
    return operations / (SHARE_OF_PEAK[work] * 1e12 * _MEASURED.single * speed(card, half))
