"""The cross-validated score of post-processing: no image is judged with what was tuned on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np

from kitlib import metric
from kitlib.data import folds as splits
from kitlib.errors import KitError
from kitlib.metric import interval
from kitlib.post import thresholds
from kitlib.post.config import (
    SCORE_KINDS,
    THRESHOLD_METHODS,
    PostConfig,
    ScoreKind,
    Tuned,
    TuningMethod,
    tables,
)
from kitlib.post.forest import Forest
from kitlib.post.scores import choose
from kitlib.post.tuning import search
from kitlib.post.tuning.search import Tuning
from kitlib.post.tuning.shares import SharedScorer, Shares, shared
from kitlib.records import Frame

_MIN_FOLDS = 2


@dataclass(frozen=True)
class Row:
    """One tuning method with one kind of score, and the metric on images that had no part in its tuning.

    Attributes:
        name: of both.
        mean: the metric's mean over images.
        low: the lower end of its bootstrap interval.
        high: the upper end.
        by_category: the mean of each type.
    """

    name: str
    mean: float
    low: float
    high: float
    by_category: dict[str, float]


@dataclass(frozen=True)
class Validation:
    """What cross-validation found.

    Attributes:
        rows: the methods that were tried, the untuned one first.
        best: the row of the best of them.
        tuned: that method, tuned on all images, with the row's metric.
        frames: post-processed frames of the best method, each judged with what was tuned on others.
        tuning: of the best method on all images; its curves.
    """

    rows: tuple[Row, ...]
    best: Row
    tuned: Tuned
    frames: list[Frame]
    tuning: Tuning


def cross_validate(
    truth: Sequence[Frame],
    predictions: thresholds.Predictions,
    folds: int = 5,
    seed: int = 0,
    kinds: Sequence[ScoreKind] = SCORE_KINDS,
    methods: Sequence[TuningMethod] = THRESHOLD_METHODS,
) -> Validation:
    """Tune on all folds but one and judge on that one, for each fold; then tune the best method on all.

    The rows are no tuning at all, and for each kind of score each method: one score threshold for all types
    and nothing else (``search.tune_score_threshold``), all thresholds alike for all types (the best method
    where a type has a handful of images), thresholds by type, and expected gain. The learned score of an
    image always comes from trees that were fitted on other folds, also while tuning. The best of many rows is
    expected to be a little too good; of equals the first, and simplest, is taken. Images that make a single
    fold, as one image does, are judged with what was tuned on them, and the row's name says so.

    Args:
        truth: validation frames with their true cells.
        predictions: all instances found in them by models that did not train on them, not post-processed; or
            such frames for each mask threshold.
        folds: with two, no fold is left to learn the learned score from while tuning; where there are fewer
            frames, each is a fold.
        seed: draws the folds, and the samples of the learned score.
        kinds: scores that may rank the instances, at least one.
        methods: how to tune, at least one.

    Raises:
        KitError: no frames, predictions for none of them, or no kind of score or method.
    """
    with _study(truth, predictions, min(folds, len(truth)), seed) as study:
        if len(set(study.fold)) < _MIN_FOLDS:
            return _on_the_same_images(study, methods)
        rows = [study.judge("untuned", lambda _: study.start).row]
        best: tuple[Row, _Fits, TuningMethod] | None = None
        for kind in kinds:
            fits = _Fits(study, kind, methods)
            for method in methods:
                rows.append(fits.row(method))
                if best is None or rows[-1].mean > best[0].mean:
                    best = rows[-1], fits, method
        if best is None:
            raise KitError("there is nothing to tune: name at least one kind of score and one tuning method")
        row, fits, method = best
        frames = study.judge(row.name, lambda fold: fits.without(fold).methods[method]).frames
        tuning = fits.described(method)
        tuned = Tuned(tuning.config, row.mean, row.low, row.high)
        return Validation(tuple(rows), row, tuned, frames, tuning)


def _on_the_same_images(study: _Study, methods: Sequence[TuningMethod]) -> Validation:
    """Thresholds by type, or the score threshold if only that is asked for; no image is left to judge on."""
    tuning = _Fits(study, "box", methods).without(None).tuning
    method = "thresholds by type" if set(methods) & set(THRESHOLD_METHODS) else "score threshold"
    untuned = study.judge("untuned", lambda _: study.start).row
    row, frames = study.judge(f"{method}, tuned on these images", lambda _: tuning.config)
    return Validation((untuned, row), row, Tuned(tuning.config, row.mean, row.low, row.high), frames, tuning)


class _Judged(NamedTuple):
    """A row, and the post-processed frames that it judges."""

    row: Row
    frames: list[Frame]


@contextmanager
def _study(
    truth: Sequence[Frame], predictions: thresholds.Predictions, folds: int, seed: int
) -> Iterator[_Study]:
    """The frames of a study; the processes that share them end with the block."""
    pairs = list(zip(truth, search.match(truth, predictions), strict=True))
    fold = splits.assign(truth, folds, seed) if folds > 1 else {f.id: 0 for f in truth}
    with shared(pairs) as shares:
        yield _Study(truth, [fold[f.id] for f in truth], shares, seed)


class _Study:
    """Validation frames in folds, what was predicted in them, and the trees learned without some folds."""

    def __init__(self, truth: Sequence[Frame], fold: Sequence[int], shares: Shares, seed: int) -> None:
        self.truth, self.fold, self.shares, self.seed = truth, fold, shares, seed
        self.types = [f.category or "unknown" for f in truth]
        # A wrong guess costs nothing in an image with cells, and all in one without.
        self.start = PostConfig(keep_best=all(f.cells for f in truth))

    @cached_property
    def forests(self) -> dict[frozenset[int], Forest]:
        """Trees that were fitted without no fold, each fold, and each two of them."""
        found = self.shares.samples()
        folds = sorted(set(self.fold))
        without = [frozenset(some) for count in (0, 1, 2) for some in combinations(folds, count)]
        chosen = [
            choose([part for part, fold in zip(found, self.fold, strict=True) if fold not in some], self.seed)
            for some in without
        ]
        return dict(zip(without, self.shares.grow(chosen, self.seed), strict=True))

    def judge(self, name: str, config_without: Callable[[int], PostConfig]) -> _Judged:
        """A row of this name, of each frame post-processed with what was tuned without its fold."""
        configs = {fold: config_without(fold) for fold in sorted(set(self.fold))}
        judged = self.shares.judge([configs[fold] for fold in self.fold])
        return _Judged(self.row(name, [each.score for each in judged]), [each.frame for each in judged])

    def row(self, name: str, scores: Sequence[float]) -> Row:
        """A row of this name, from the score of each frame."""
        by_category = metric.means_by_category(self.types, np.array(scores))
        return Row(name, float(np.mean(scores)), *interval(scores), by_category)


@dataclass(frozen=True)
class _Fit:
    """What tuning without a fold found.

    Attributes:
        tuning: its curves.
        methods: the configuration of each method that was asked for.
        held_out: for each of them the scores of the fold's frames, in their order.
    """

    tuning: Tuning
    methods: dict[TuningMethod, PostConfig]
    held_out: dict[TuningMethod, list[float]]


class _Fits:
    """Fits to frames that are ranked by one kind of score."""

    def __init__(self, study: _Study, kind: ScoreKind, methods: Sequence[TuningMethod]) -> None:
        self.study, self.kind, self.methods = study, kind, frozenset(methods)
        self._fits: dict[int | None, _Fit] = {}
        self._shared: list[SharedScorer] = []

    def without(self, fold: int | None) -> _Fit:
        """The fit to all frames but those of a fold; None for all."""
        if fold not in self._fits:
            if self.kind == "learned" or not self._shared:
                self._shared = self._scorers(fold)
            places = list(zip(self._shared, self.study.fold, strict=True))
            used, held_out = ([f for f, its in places if (its == fold) is of_it] for of_it in (False, True))
            tuning, methods = self._fit(used, self._start(fold))
            scores = {name: search.frame_scores(held_out, config) for name, config in methods.items()}
            self._fits[fold] = _Fit(tuning, methods, scores)
        return self._fits[fold]

    def row(self, method: TuningMethod) -> Row:
        """The row of a method, each frame judged with what was tuned without its fold."""
        scores = {fold: iter(self.without(fold).held_out[method]) for fold in sorted(set(self.study.fold))}
        return self.study.row(f"{method}, {self.kind} score", [next(scores[f]) for f in self.study.fold])

    def described(self, method: TuningMethod) -> Tuning:
        """What a method that was tuned on all frames gives on them."""
        # Another kind of score may have ranked the frames since.
        self._shared = self._scorers(None)
        return search.described(self._shared, self._start(None), self.without(None).methods[method])

    def _fit(
        self, scorers: Sequence[SharedScorer], start: PostConfig
    ) -> tuple[Tuning, dict[TuningMethod, PostConfig]]:
        """Every method fitted to these frames; those that take minutes only if one is asked for."""
        if self.methods.isdisjoint(THRESHOLD_METHODS):
            tuning = search.tune_score_threshold(scorers, start)
            return tuning, {"score threshold": tuning.config}
        tuning = search.tune_by_category(scorers, start)
        shared = replace(tuning.config, **tables({"default": tuning.config.for_category(None)}))
        found = (shared, tuning.config, search.calibrated(scorers, tuning.config))
        configs: dict[TuningMethod, PostConfig] = dict(zip(THRESHOLD_METHODS, found, strict=True))
        if "score threshold" in self.methods:
            configs["score threshold"] = search.tune_score_threshold(scorers, start).config
        return tuning, configs

    def _scorers(self, without: int | None) -> list[SharedScorer]:
        """A scorer of each frame; its learned scores, other ones for each fold, are from trees that were
        fitted without that fold and without the frame's own."""
        return self.study.shares.rank([self._start(without, fold) for fold in self.study.fold])

    def _start(self, *without: int | None) -> PostConfig:
        """The configuration that tuning starts from; the learned score's trees were fitted without folds."""
        if self.kind != "learned":
            return replace(self.study.start, score_kind=self.kind)
        forest = self.study.forests[frozenset(fold for fold in without if fold is not None)]
        return replace(self.study.start, score_kind=self.kind, forest=forest)
