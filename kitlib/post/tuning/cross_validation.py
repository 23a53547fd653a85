"""What post-processing is worth, honestly: no image is judged with limits that were tuned on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kitlib import metric
from kitlib.data import folds as splits
from kitlib.metric import interval
from kitlib.post import thresholds
from kitlib.post.config import KINDS, THRESHOLD_METHODS, Kind, PostConfig, Tuned, TuningMethod, tables
from kitlib.post.forest import Forest
from kitlib.post.scores import learn
from kitlib.post.tuning import search
from kitlib.post.tuning.frame import Held
from kitlib.post.tuning.search import Tuning
from kitlib.records import Frame

LEAST = 2  # folds


@dataclass(frozen=True)
class Row:
    """One tuning method, and the metric on images that had no part in its tuning: ``mean`` over images,
    ``low`` and ``high`` ends of its bootstrap interval, and the mean of each type."""

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
    kinds: Sequence[Kind] = KINDS,
    methods: Sequence[TuningMethod] = THRESHOLD_METHODS,
) -> Validation:
    """Tune on all folds but one, judge on that one, in turns; the best method is then tuned on everything.

    Ways are no tuning at all, and for each kind of score: one score threshold for all types and nothing else
    (see ``tune.tune_score``), one set of thresholds for all types (the surest where a type has a handful of
    images), thresholds by type, and expected gain. The learned score of an image always comes from trees that
    were fitted on other folds, also while tuning. The best of many is expected a little too well; where
    several are alike the first, and simplest, is taken. Images that make a single fold, as one image does,
    are judged with what was tuned on them, and the row's name says so.

    Args:
        truth: held-out frames with their true cells.
        predictions: all instances found in them by models that did not train on them, not post-processed; or
            such frames for each mask threshold.
        folds: with two, the learned score has nothing left to learn from while tuning; where there are fewer
            frames, each is a fold.
        kinds: scores that may rank the instances, at least one.
        methods: how to tune, at least one.

    Raises:
        KitError: no frames, or predictions for none of them.
    """
    study = _Study(truth, predictions, min(folds, len(truth)), seed)
    if len(set(study.fold.values())) < LEAST:
        return _on_the_same_images(study, methods)
    rows, best = [_row("untuned", truth, study.judge(lambda _: study.start))], None
    for kind in kinds:
        fits = _Fits(study, kind, methods)
        for method in methods:
            frames = study.judge(lambda fold, fits=fits, method=method: fits.without(fold).methods[method])
            rows.append(_row(f"{method}, {kind} score", truth, frames))
            if best is None or rows[-1].mean > best[0].mean:
                best = rows[-1], frames, fits, method
    row, frames, fits, method = best
    everything = fits.without(None)
    tuned = Tuned(everything.methods[method], row.mean, row.low, row.high)
    return Validation(tuple(rows), row, tuned, frames, everything.tuning)


def _on_the_same_images(study: _Study, methods: Sequence[TuningMethod]) -> Validation:
    """Thresholds by type, or the score threshold if only that is asked for; no image is left to judge on."""
    tuning = _Fits(study, "box", methods).without(None).tuning
    method = "thresholds by type" if set(methods) & set(THRESHOLD_METHODS) else "score threshold"
    frames = study.judge(lambda _: tuning.config)
    untuned = _row("untuned", study.truth, study.judge(lambda _: study.start))
    row = _row(f"{method}, tuned on these images", study.truth, frames)
    return Validation((untuned, row), row, Tuned(tuning.config, row.mean, row.low, row.high), frames, tuning)


def _row(name: str, truth: Sequence[Frame], frames: Sequence[Frame]) -> Row:
    score = metric.score(truth, frames)
    return Row(name, score.mean, *interval(list(score.by_image.values())), score.by_category)


class _Study:
    """Held-out frames in folds, what was predicted in them, and the trees learned without some folds."""

    def __init__(
        self, truth: Sequence[Frame], predictions: thresholds.Predictions, folds: int, seed: int
    ) -> None:
        found = thresholds.by_level(predictions)
        search.check(truth, found)
        self.truth, self.seed = truth, seed
        self.fold = splits.assign(truth, folds, seed) if folds > 1 else {f.id: 0 for f in truth}
        self.found = {
            f.id: {level: table.get(f.id, replace(f, cells=())) for level, table in found.items()}
            for f in truth
        }
        self._forests: dict[frozenset[int], Forest] = {}
        # A wrong guess costs nothing in an image with cells, and all in one without.
        self.start = PostConfig(keep_best=all(f.cells for f in truth))

    def forest(self, without: frozenset[int]) -> Forest:
        """Trees that never saw some folds."""
        if without not in self._forests:
            seen = [f for f in self.truth if self.fold[f.id] not in without]
            found = [next(iter(self.found[f.id].values())) for f in seen]
            self._forests[without] = learn(seen, found, self.seed)
        return self._forests[without]

    def judge(self, config_without: Callable[[int], PostConfig]) -> list[Frame]:
        """Each frame post-processed with what was tuned without its fold."""
        configs = {fold: config_without(fold) for fold in sorted(set(self.fold.values()))}
        return [
            thresholds.apply(thresholds.pick(self.found[f.id], config), config)
            for f in self.truth
            for config in [configs[self.fold[f.id]]]
        ]


@dataclass(frozen=True)
class _Fit:
    """What tuning found: its curves, and the configuration of each method that was asked for."""

    tuning: Tuning
    methods: dict[TuningMethod, PostConfig]


class _Fits:
    """Fits to frames that are ranked by one kind of score."""

    def __init__(self, study: _Study, kind: Kind, methods: Sequence[TuningMethod]) -> None:
        self.study, self.kind, self.methods = study, kind, frozenset(methods)
        self._fits: dict[int | None, _Fit] = {}
        self._held: dict[str, Held] = {}

    def without(self, fold: int | None) -> _Fit:
        """The fit to all frames but those of a fold; None for all."""
        if fold not in self._fits:
            held = [self._hold(f, fold) for f in self.study.truth if self.study.fold[f.id] != fold]
            self._fits[fold] = self._fit(held, self._start(fold))
        return self._fits[fold]

    def _fit(self, held: Sequence[Held], start: PostConfig) -> _Fit:
        """Every method fitted to these frames; those that take minutes only if one is asked for."""
        if self.methods.isdisjoint(THRESHOLD_METHODS):
            tuning = search.tune_score(held, start)
            return _Fit(tuning, {"score threshold": tuning.config})
        tuning = search.tune_held(held, start)
        shared = replace(tuning.config, **tables({"default": tuning.config.limits(None)}))
        found = (shared, tuning.config, search.calibrated(held, tuning.config))
        configs: dict[TuningMethod, PostConfig] = dict(zip(THRESHOLD_METHODS, found, strict=True))
        if "score threshold" in self.methods:
            configs["score threshold"] = search.tune_score(held, start).config
        return _Fit(tuning, configs)

    def _hold(self, frame: Frame, without: int | None) -> Held:
        """The frame; its learned scores, other ones for each fold, are from trees that saw neither fold."""
        found = self.study.found[frame.id]
        if self.kind == "learned":
            return Held(frame, found, self._start(without, self.study.fold[frame.id]))
        if frame.id not in self._held:
            self._held[frame.id] = Held(frame, found, self._start())
        return self._held[frame.id]

    def _start(self, *without: int | None) -> PostConfig:
        if self.kind != "learned":
            return replace(self.study.start, score_kind=self.kind)
        forest = self.study.forest(frozenset(without) - {None})
        return replace(self.study.start, score_kind=self.kind, forest=forest)
