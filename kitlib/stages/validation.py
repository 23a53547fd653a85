"""The validation of trained models, which 03 and 05 have in common: predictions, post-processing, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from kitlib import config as configs
from kitlib import metric, predict, records
from kitlib.analysis import errors, oracle, steps, suspects
from kitlib.analysis import instances as found_instances
from kitlib.analysis.errors import Error
from kitlib.analysis.oracle import Cost
from kitlib.analysis.steps import Removal
from kitlib.analysis.suspects import Suspect
from kitlib.data import tables
from kitlib.metric import Score, average_precision
from kitlib.post import thresholds
from kitlib.post.config import ScoreKind, TuningMethod
from kitlib.post.tuning import cross_validation
from kitlib.post.tuning.cross_validation import Validation
from kitlib.predict import PredictConfig
from kitlib.records import Frame


@dataclass(frozen=True)
class ValidationResult:
    """What models find in the validation images, each predicted by the model that never saw it.

    Attributes:
        truth: the validation images with their annotated cells.
        predicted: all instances, by mask threshold; the first is the one that predictions.csv has.
        in_true_boxes: the same images with what the mask heads draw in the boxes of the annotated cells.
        cross_validated: how each method of tuning does, and the best one, tuned on all of the images.
    """

    truth: list[Frame]
    predicted: dict[float, list[Frame]]
    in_true_boxes: list[Frame]
    cross_validated: Validation

    @property
    def instances(self) -> list[Frame]:
        """All instances at the first mask threshold, before post-processing."""
        return next(iter(self.predicted.values()))

    @property
    def final(self) -> list[Frame]:
        """The cells after post-processing that was tuned on other images."""
        return self.cross_validated.frames

    @cached_property
    def score(self) -> Score:
        """The metric of ``final``."""
        return metric.score(self.truth, self.final)

    @cached_property
    def coco_ap(self) -> dict[str, float]:
        """COCO's AP of ``instances`` by type, and under "all" the mean over the types.

        It is that of the instances before post-processing, for it judges how scores rank them, and thresholds
        and the removal of overlap only take recall from it.
        """
        values = average_precision.by_type(self.truth, self.instances)
        mean = average_precision.mean_over_types(values)
        return {name: value.mean for name, value in {**values, **({"all": mean} if mean else {})}.items()}

    @property
    def scores(self) -> pd.DataFrame:
        """A row for each type and one for all: the metric of ``final`` and COCO's AP of ``instances``."""
        metric_by_type = {**self.score.by_category, "all": self.score.mean}
        found = pd.DataFrame({"metric": metric_by_type, "COCO AP": self.coco_ap}).round(3)
        return found.reindex([*sorted(set(found.index) - {"all"}), "all"])

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A row for each method of tuning: its cross-validated score with its interval."""
        found = pd.DataFrame([vars(row) for row in self.cross_validated.rows])
        return found.set_index("name").drop(columns="by_category").round(3)

    @cached_property
    def errors(self) -> list[Error]:
        """The errors of ``final`` by kind."""
        return errors.find(self.truth, self.final)

    @property
    def error_counts(self) -> pd.DataFrame:
        """What becomes of the true cells, by type and size."""
        return errors.counts(self.truth, self.final, self.errors)

    @property
    def error_costs(self) -> list[Cost]:
        """What each kind of error costs in the metric."""
        return oracle.costs(self.truth, self.final, self.errors)

    @property
    def recall(self) -> pd.DataFrame:
        """By type, the share of the cells whose box and whose mask any instance reaches, and the median mask
        IoU where the box is right, found or given."""
        return found_instances.recall(self.truth, self.instances, self.in_true_boxes).round(2)

    @property
    def reliability(self) -> list[found_instances.Bin]:
        """The share of instances that match a true cell, by their score."""
        return found_instances.reliability(self.truth, self.instances)

    @cached_property
    def steps(self) -> list[Removal]:
        """What each step of post-processing removed, as it was tuned on all of these images."""
        post = self.cross_validated.tuned.post
        found = thresholds.by_mask_threshold(self.predicted)
        chosen = [
            thresholds.at_mask_threshold({mask: table[name] for mask, table in found.items()}, post)
            for name in next(iter(found.values()))
        ]
        return steps.follow(self.truth, chosen, post)

    @cached_property
    def suspects(self) -> list[Suspect]:
        """Likely annotation errors, the likeliest first."""
        return suspects.find(self.truth, self.instances)

    def by_suspicion(self) -> list[Frame]:
        """The validation images, those with the likeliest annotation errors first."""
        return suspects.worst_first(self.truth, self.suspects)


def validate(
    models: Mapping[str, tuple[Sequence[Path], Path]],
    folder: Path,
    config: PredictConfig,
    gpus: int,
    seed: int,
    score_kinds: Sequence[ScoreKind],
    tuning_methods: Sequence[TuningMethod],
) -> ValidationResult:
    """Predict the validation images of each fold, tune post-processing and judge it by cross-validation.

    Args:
        models: by fold, the files of weights, an ensemble if several, of which the first draws the masks in
            true boxes, and the validation frames, a file of ``records.write_frames``.
        folder: where predictions.csv, each fold's and that of all, post.yaml and out_of_fold.csv go.
        config: how images are predicted.
        gpus: how many to use; 0 for the CPU, -1 for all there are.
        seed: of the cross-validation.
        score_kinds: what may rank instances.
        tuning_methods: what to try.
    """
    truth: list[Frame] = []
    predicted: dict[float, list[Frame]] = {}
    in_true_boxes: list[Frame] = []
    for name, (weights, frames) in models.items():
        truth += records.read_frames(frames)
        table = folder / name / "predictions.csv"
        ensemble = tuple(map(str, weights))
        job = predict.PredictJob(ensemble, str(frames), str(table), config, in_true_boxes=True)
        found = predict.run(job, predict.gpu_count(gpus))
        in_true_boxes += found.in_true_boxes
        for threshold, at_threshold in found.by_mask_threshold.items():
            predicted.setdefault(threshold, []).extend(at_threshold)
    tables.write_predictions(folder / "predictions.csv", next(iter(predicted.values())))
    judged = cross_validation.cross_validate(
        truth, predicted, seed=seed, kinds=score_kinds, methods=tuning_methods
    )
    configs.save(judged.tuned, folder / "post.yaml")
    tables.write_predictions(folder / "out_of_fold.csv", judged.frames)
    return ValidationResult(truth, predicted, in_true_boxes, judged)
