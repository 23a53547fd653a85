"""What more annotated images would bring: trainings on shares of those that there are, and their curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kitlib import metric, predict, records
from kitlib.analysis import growth
from kitlib.analysis.growth import Growth, Point
from kitlib.data import folds
from kitlib.post.tuning import cross_validation
from kitlib.records import Frame
from kitlib.stages import trainings
from kitlib.stages.parameters import Training
from kitlib.stages.validation import ValidationResult
from kitlib.train import TrainConfig


def measure(given: Training, config: TrainConfig, fold: Path, validated: ValidationResult) -> Growth | None:
    """Train on shares of a fold's training images, and fit a curve through the scores.

    All trainings differ in nothing but these images: a larger share holds all of a smaller one, each type is
    in it in proportion. They have the same validation images, of which predictions are judged after
    post-processing that was tuned on others of them. A training that is finished is not done again, and one
    that was interrupted goes on.

    Args:
        given: the parameters of 03; ``learning_curve`` has the shares.
        config: of the fold's training.
        fold: its folder, with train.npz and val.npz; the trainings lie in it, each in "<n>_images".
        validated: what the models of all folds find.

    Returns:
        The curve; None without shares.
    """
    if not given.learning_curve:
        return None
    training, truth = (records.read_frames(fold / name) for name in ("train.npz", "val.npz"))
    parts = {
        len(part): part for part in (folds.subset(training, s, given.seed) for s in given.learning_curve)
    }
    points = [_point(len(training), truth, validated.predicted, given)]
    for number in sorted(parts.keys() - {len(training)}):
        print(f"{number} of {len(training)} images train, the same {len(truth)} validate")
        folder = fold / f"{number}_images"
        frames = records.write_frames(folder / "train.npz", parts[number])
        job = replace(config, out=str(folder), train=str(frames), val=str(fold / "val.npz"))
        points.append(_point(number, truth, _predicted(job, given), given))
    return growth.fit(points)


def _predicted(job: TrainConfig, given: Training) -> dict[float, list[Frame]]:
    """The validation images by mask threshold, as the best weights of a training predict them."""
    (trained,) = trainings.run({Path(job.out).name: job}, given).values()
    models, table = tuple(map(str, trained.weights)), Path(job.out) / "predictions.csv"
    found = predict.run(
        predict.PredictJob(models, job.val, str(table), job.predict), predict.gpu_count(given.gpus)
    )
    return found.by_mask_threshold


def _point(
    images: int, truth: Sequence[Frame], predicted: Mapping[float, Sequence[Frame]], given: Training
) -> Point:
    """The cross-validated score with its interval.

    Args:
        images: how many trained.
        truth: the validation images.
        predicted: all instances by mask threshold, of other images as well.
        given: how to tune.
    """
    ids = {frame.id for frame in truth}
    judged = cross_validation.cross_validate(
        list(truth),
        {threshold: [f for f in found if f.id in ids] for threshold, found in predicted.items()},
        seed=given.seed,
        kinds=given.score_kinds,
        methods=given.tuning_methods,
    )
    score = metric.score(truth, judged.frames)
    # One image says nothing of how much images differ.
    low, high = metric.interval(list(score.by_image.values())) if len(truth) > 1 else (0.0, 1.0)
    return Point(images, score.mean, low, high)
