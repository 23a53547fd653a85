"""Validation frames shared among processes, one for each core: each scores its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from kitlib import metric
from kitlib.post import forest, thresholds
from kitlib.post.config import CategoryConfig, PostConfig
from kitlib.post.forest import Forest
from kitlib.post.scores import Samples
from kitlib.post.tuning.frame import FrameScorer, ScoreCurve, any_threshold
from kitlib.post.tuning.masks import FrameMasks
from kitlib.records import Frame
from kitlib.runtime import launch, workers
from kitlib.runtime.workers import Caller

_INSTANCES = 2000
"""Of a process, the fewest that make up for its start, which takes a second."""

#: A true frame, and the predicted one at each mask threshold.
Pair = tuple[Frame, Mapping[float, Frame]]


class Judged(NamedTuple):
    """A frame after post-processing, and its competition score."""

    frame: Frame
    score: float


class Share:
    """The frames of one process."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._masks = [FrameMasks(*pair) for pair in pairs]
        self._scorers: dict[int, FrameScorer] = {}

    def samples(self) -> list[Samples]:
        """What each frame gives to learn from."""
        return [masks.samples() for masks in self._masks]

    def grow(self, parts: Sequence[Samples], seed: int) -> list[Forest]:
        """Trees that are fitted to each of some samples, whichever process's frames they are from."""
        return [forest.grow(part.features, part.targets, seed) for part in parts]

    def rank(self, configs: Mapping[int, PostConfig]) -> None:
        """Make scorers of frames, by their numbers here, in place of those before."""
        self._scorers = {i: FrameScorer(self._masks[i], config) for i, config in configs.items()}

    def curves(self, wanted: Sequence[tuple[int, CategoryConfig]]) -> list[ScoreCurve]:
        """The curve of each frame and configuration."""
        return [self._scorers[i].curve(config) for i, config in wanted]

    def judge(self, configs: Mapping[int, PostConfig]) -> list[Judged]:
        """Frames, by their numbers here, post-processed and scored."""
        return [_judged(self._masks[i], config) for i, config in configs.items()]


def _judged(masks: FrameMasks, config: PostConfig) -> Judged:
    final = thresholds.apply(thresholds.at_mask_threshold(masks.predicted, config), config)
    return Judged(final, metric.score([masks.truth], [final]).mean)


class SharedScorer:
    """The scorer of a frame that another process may hold; as ``FrameScorer`` for ``search``.

    Curves are asked for by ``load``, those of many frames together.
    """

    def __init__(self, shares: Shares, number: int, pair: Pair) -> None:
        truth, predicted = pair
        self.shares, self.number = shares, number
        self.true_category, self.category = truth.category, next(iter(predicted.values())).category
        self.mask_thresholds, self.cells = list(predicted), len(truth.cells)
        self.curves: dict[CategoryConfig, ScoreCurve] = {}

    def curve(self, config: CategoryConfig) -> ScoreCurve:
        """The score by score threshold, whatever the configuration's own threshold is."""
        load([(self, config)])
        return self.curves[any_threshold(config)]


def load(wanted: Iterable[tuple[FrameScorer | SharedScorer, CategoryConfig]]) -> None:
    """Calculate curves that will be asked for; processes that share the frames do it at the same time."""
    missing: dict[tuple[int, CategoryConfig], SharedScorer] = {}
    for scorer, config in wanted:
        key = any_threshold(config)
        if isinstance(scorer, SharedScorer) and key not in scorer.curves:
            missing[scorer.number, key] = scorer
    if missing:
        shares = next(iter(missing.values())).shares
        found = shares.each("curves", list(missing))
        for ((_, config), scorer), curve in zip(missing.items(), found, strict=True):
            scorer.curves[config] = curve


class Shares:
    """Frames by number, each of them with one of some processes.

    Args:
        pairs: the frames.
        callers: of the ``Share`` of each process.
        share_of: for each frame its process, and its number there.
    """

    def __init__(
        self, pairs: Sequence[Pair], callers: Sequence[Caller], share_of: Sequence[tuple[int, int]]
    ) -> None:
        self._pairs, self._callers, self._share_of = pairs, callers, share_of

    def each(self, method: str, wanted: Sequence[tuple[int, Any]]) -> list[Any]:
        """The results of a method of ``Share`` that takes pairs of a frame's number and something."""
        places: list[list[int]] = [[] for _ in self._callers]
        parts: list[list[tuple[int, Any]]] = [[] for _ in self._callers]
        for place, (number, what) in enumerate(wanted):
            process, local = self._share_of[number]
            places[process].append(place)
            parts[process].append((local, what))
        return self._joined(places, self._call(method, [(part,) for part in parts]))

    def samples(self) -> list[Samples]:
        """What each frame gives to learn from."""
        return self._joined(self._numbers(), self._call("samples", [()] * len(self._callers)))

    def grow(self, parts: Sequence[Samples], seed: int) -> list[Forest]:
        """Trees that are fitted to each of some samples."""
        count = len(self._callers)
        places = [list(range(process, len(parts), count)) for process in range(count)]
        return self._joined(places, self._call("grow", [([parts[i] for i in mine], seed) for mine in places]))

    def rank(self, configs: Sequence[PostConfig]) -> list[SharedScorer]:
        """A scorer of each frame under its configuration; the scorers that were made before are void."""
        self._call("rank", [(part,) for part in self._by_process(configs)])
        return [SharedScorer(self, number, pair) for number, pair in enumerate(self._pairs)]

    def judge(self, configs: Sequence[PostConfig]) -> list[Judged]:
        """Each frame post-processed under its configuration, and scored."""
        parts = self._call("judge", [(part,) for part in self._by_process(configs)])
        return self._joined(self._numbers(), parts)

    def _call(self, method: str, args: Sequence[tuple[Any, ...]]) -> list[Any]:
        return workers.call_each(self._callers, method, args)

    def _numbers(self) -> list[list[int]]:
        """The frames of each process, in the order of their numbers there."""
        numbers: list[list[int]] = [[] for _ in self._callers]
        for number, (process, _) in enumerate(self._share_of):
            numbers[process].append(number)
        return numbers

    def _by_process(self, configs: Sequence[PostConfig]) -> list[dict[int, PostConfig]]:
        return [
            {local: configs[number] for local, number in enumerate(numbers)} for numbers in self._numbers()
        ]

    def _joined(self, places: Sequence[Sequence[int]], parts: Sequence[Sequence[Any]]) -> list[Any]:
        """The processes' results in one list, each at its place."""
        found: dict[int, Any] = {}
        for mine, part in zip(places, parts, strict=True):
            found |= zip(mine, part, strict=True)
        return [found[place] for place in range(len(found))]


@contextmanager
def shared(pairs: Sequence[Pair]) -> Iterator[Shares]:
    """The frames, shared among as many processes as there are cores and enough instances for."""
    sizes = [sum(len(frame.cells) for frame in predicted.values()) for _, predicted in pairs]
    count = max(min(launch.cores(), sum(sizes) // _INSTANCES, len(pairs)), 1)
    share_of = _deal(sizes, count)
    parts: list[list[Pair]] = [[] for _ in range(count)]
    for pair, (process, _) in zip(pairs, share_of, strict=True):
        parts[process].append(pair)
    if count == 1:
        yield Shares(pairs, [workers.Here(Share, pairs)], share_of)
        return
    with workers.started(Share, [(part,) for part in parts]) as callers:
        yield Shares(pairs, callers, share_of)


def _deal(sizes: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Each frame's process, so that all have as much to do, and its number there."""
    process = np.empty(len(sizes), np.int64)
    process[np.argsort(sizes, kind="stable")] = np.arange(len(sizes)) % count
    taken = [0] * count
    dealt = []
    for mine in process.tolist():
        dealt.append((mine, taken[mine]))
        taken[mine] += 1
    return dealt
