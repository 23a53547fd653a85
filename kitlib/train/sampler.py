"""In which order training sees the frames: endless, balanced, the same however many processes share it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kitlib.config import Float, Share, configuration
from kitlib.errors import KitError
from kitlib.records import Frame


@configuration
class SamplerConfig:
    """How often each frame is seen."""

    balance: Share = 0.0
    """A frame of a type with n frames, where the commonest type has N, is seen (N / n) ** balance times as
    often: 0 sees every frame equally often, 1 every type, 0.5 is the repeat factor of LVIS (Gupta et al.
    2019)."""
    pseudo_share: Annotated[Float, Field(ge=0, lt=1)] | None = None
    """Share of pseudo-labelled frames in what is seen; None leaves them as many as they are. Types are then
    balanced among annotated and among pseudo-labelled frames apart."""


class TrainingSampler:
    """An endless stream of (index of a frame, number of the sample), dealt out to the processes in turn.

    The whole stream follows from the frames' ids and the seed: the processes together see the same samples
    in the same order however many they are, and the numbers seed the augmentation of each sample.

    Args:
        frames: the training set; its order does not matter.
        rank: number of this process among ``world``.

    Attributes:
        position: samples of this process consumed so far; where iteration begins. Whoever consumes samples
            moves it on, as ``kitlib.train.loader`` does: workers read ahead of what has been trained on.
    """

    def __init__(
        self, frames: Sequence[Frame], config: SamplerConfig, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if not frames:
            raise KitError(
                "there are no training frames; check the data folder, the fold and what was dropped"
            )
        self.seed, self.rank, self.world = seed, rank, world
        self.position = 0
        self._by_id = np.array(sorted(range(len(frames)), key=lambda i: frames[i].id))
        self._repeats = _integral(repeat_factors(frames, config))[self._by_id]
        self.epoch_length = round(self._repeats.sum())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        number = self.position * self.world + self.rank
        epoch, order = -1, np.empty(0, np.int64)
        while True:
            if number // self.epoch_length != epoch:
                epoch = number // self.epoch_length
                order = self._order(epoch)
            yield int(order[number % self.epoch_length]), number
            number += self.world

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """One epoch, shuffled. A frame that repeats 1.3 times comes once or, in 30 % of epochs, twice."""
        rng = np.random.default_rng((self.seed, epoch))
        frames = rng.permutation(len(self._repeats))
        # Systematic sampling: fractions are drawn so that every epoch has the same length, whatever the draw.
        ends = np.floor(np.cumsum(self._repeats[frames]) + rng.random() + 1e-9).astype(np.int64)
        ends = np.minimum(ends, self.epoch_length)  # an addition may round up beyond the exact sum
        ends[-1] = self.epoch_length
        chosen = np.repeat(frames, np.diff(ends, prepend=0))
        return self._by_id[rng.permutation(chosen)]

    def state_dict(self) -> dict[str, int]:
        """Samples that all processes together have consumed."""
        return {"position": self.position * self.world}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state_dict`` was taken, even with another number of processes."""
        self.position = -(-state["position"] // self.world)


def repeat_factors(frames: Sequence[Frame], config: SamplerConfig) -> NDArray[np.float64]:
    """How often each frame is seen in an epoch, on average, (N,).

    Annotated frames of the commonest type are seen once; pseudo-labelled frames as often as their share asks.
    """
    pseudo = np.array([f.pseudo for f in frames])
    if config.pseudo_share is None or pseudo.all() or not pseudo.any():
        return _balanced(frames, config.balance)
    factors = np.empty(len(frames))
    for part in (pseudo, ~pseudo):
        factors[part] = _balanced(
            [f for f, inside in zip(frames, part, strict=True) if inside], config.balance
        )
    annotated = factors[~pseudo].sum()
    factors[pseudo] *= annotated * config.pseudo_share / (1 - config.pseudo_share) / factors[pseudo].sum()
    return factors


def _balanced(frames: Sequence[Frame], balance: float) -> NDArray[np.float64]:
    counts = Counter(f.category for f in frames)
    most = max(counts.values())
    return np.array([(most / counts[f.category]) ** balance for f in frames])


def _integral(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The factors scaled up so that their sum is a whole number."""
    total = factors.sum()
    return factors * (np.ceil(total - 1e-6) / total)
