"""What each stage of a run does: trainings of so many images, frames predicted by so many models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kitlib.data import proposals
from kitlib.data.dataset import Dataset
from kitlib.data.livecell import CATEGORY as LIVECELL
from kitlib.records import Frame
from kitlib.stages import fitting, parameters
from kitlib.stages.profiles import Plan
from kitlib.train.config import TrainConfig, in_phases


@dataclass(frozen=True)
class StageWork:
    """The computing of one stage, or of one phase of its trainings.

    Attributes:
        stage: "03_train".
        training: how it trains, and how its model, or the one that it is given, predicts.
        trainings: how many trainings; 0 where it predicts alone.
        asked_at_once: how many of them are to run side by side.
        iterations: of each training.
        predictions: frames times the models that predict each of them.
        frames: frames whose predictions are written.
        phase: its number, where the trainings of the stage have phases.
    """

    stage: str
    training: TrainConfig
    trainings: int
    asked_at_once: int
    iterations: int
    predictions: int
    frames: int
    phase: int | None = None

    @property
    def name(self) -> str:
        """The stage, with the phase where it trains in several."""
        return self.stage if self.phase is None else f"{self.stage} phase {self.phase}"


def of_stages(
    plan: Plan, data: Dataset, stages: Sequence[str], deciding: Sequence[Frame], livecell: bool
) -> list[StageWork]:
    """The work of those stages that train or predict.

    Args:
        plan: the parameters.
        data: the frames.
        stages: which.
        deciding: of the user's own data, the frames whose cells decide what the parameters leave to them;
            none of the competition's.
        livecell: whether there is LIVECell to pretrain on.
    """
    read = {stage: parameters.read(stage, values) for stage, values in plan.parameters.items()}
    first, again = read["03_train"], read["05_retrain"]
    if deciding:
        pretraining = "02_pretrain_livecell"
        start = first.weights or (pretraining if livecell else read[pretraining].weights)
        first, _ = fitting.fitted(first, proposals.propose(deciding), start)
        again = fitting.as_before(again, first.augment)
    trained, retrained = _trained(first, data.categories), _retrained(first, again, data.categories)
    folds = first.folds if first.fold < 0 else 1
    held_out = -(-len(data.labelled) // first.folds)
    models = folds * first.ensemble_phases
    works = [
        *_validated("03_train", trained, first, folds, held_out),
        _predicting("04_pseudolabel", trained, first, read["04_pseudolabel"], len(data.unlabelled), models),
        _predicting("06_submit", trained, first, read["06_submit"], len(data.test), models),
    ]
    if livecell:
        works.append(_pretraining(read["02_pretrain_livecell"]))
    if data.unlabelled:
        repeats = folds if again.fold < 0 else 1
        works += _validated("05_retrain", retrained, again, repeats, held_out, again.finetune_iter)
    chosen = [work for work in works if work.stage in stages and work.iterations + work.predictions]
    return sorted(chosen, key=lambda work: work.name)


def _trained(first: Any, categories: tuple[str, ...]) -> TrainConfig:
    common = {"out": "", "train": "", "categories": categories, "model": first.model(len(categories))}
    return TrainConfig(**{**parameters.training_settings(first), **common, "predict": first.predict_config})


def _retrained(first: Any, again: Any, categories: tuple[str, ...]) -> TrainConfig:
    settings, predict = parameters.training_settings(again), parameters.predict_config_after(first, again)
    return replace(_trained(first, categories), **settings, predict=predict)


def _predicting(
    stage: str, trained: TrainConfig, first: Any, given: Any, frames: int, models: int
) -> StageWork:
    """Frames that are predicted by the weights that are named, or by all that 03 trains for an ensemble."""
    models = len(given.weights) or models
    training = replace(trained, predict=parameters.predict_config_after(first, given))
    return StageWork(stage, training, 0, 1, 0, models * frames, frames)


def _pretraining(given: Any) -> StageWork:
    common = {"out": "", "train": "", "categories": (LIVECELL,), "model": given.model(1)}
    training = TrainConfig(**{**parameters.training_settings(given), **common})
    return StageWork("02_pretrain_livecell", training, 1, 1, given.max_iter, 0, 0)


def _validated(
    stage: str, training: TrainConfig, given: Any, folds: int, held_out: int, finetuned: int = 0
) -> list[StageWork]:
    """The phases of a training whose validation frames are predicted at each evaluation, and at the end once
    more to tune on, by each model of the ensemble.

    Args:
        stage: "03_train".
        training: what all phases have in common.
        given: the parameters of the stage.
        folds: how many are trained.
        held_out: validation frames of each.
        finetuned: iterations that follow the last phase.
    """
    works, phases = [], in_phases(training, given.phases)
    for number, phase in enumerate(phases):
        last = number == len(phases) - 1
        iterations = phase.max_iter + (finetuned if last else 0)
        looks = -(-iterations // (phase.eval_every or iterations)) + (given.ensemble_phases if last else 0)
        written = folds * held_out
        works.append(
            StageWork(
                stage,
                phase,
                folds,
                given.folds_at_once,
                iterations,
                looks * written,
                written if last else 0,
                number if given.phases else None,
            )
        )
    return works
