"""How good the results of a stage are, against what, and what to try next: sentences made of its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitlib import config as configs
from kitlib.data.competition import has_truth
from kitlib.post.config import Tuned
from kitlib.post.gate import Decision
from kitlib.stages.report.runs import Run, StageResults

#: The private score on Kaggle of the paper that the notebooks follow.
_PAPER = 0.338
# Fewer labelled images than this leave a score uncertain by several hundredths.
_FEW_IMAGES = 50
# A score below this says no more than that a network has learned next to nothing.
_HARDLY_ANY = 0.05
# A type whose score is below this share of the mean is worth a look of its own.
_LOW_SHARE = 0.6


@dataclass(frozen=True)
class Advice:
    """Sentences on the results of one stage.

    Attributes:
        verdict: how good they are, and against what.
        steps: what to try next; empty where the figures suggest nothing.
    """

    verdict: str
    steps: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Both in one paragraph."""
        return " ".join([self.verdict, *(["To try next:"] if self.steps else []), *self.steps])


def advise(run: Run, stage: StageResults) -> Advice:
    """What the figures of a finished stage say; each rule reads nothing but what the run left."""
    if stage.idle:
        return Advice(stage.idle)
    given = stage.record.parameters if stage.record is not None else {}
    return _RULES[stage.name](run, stage, given)


def gate_sentence(run: Run) -> str:
    """The decision on the retrained weights in words; empty where 05_retrain was not run."""
    stage = run.stage("05_retrain")
    if stage is None or "gain" not in stage.metrics:
        return ""
    given = stage.record.parameters if stage.record is not None else {}
    found = stage.metrics
    decision = Decision(
        found["gate_passed"],
        found["gain"],
        found["gain_at_least"],
        given.get("confidence", 0.8),
        found.get("validation_images", 0) or _validation_images(run),
        given.get("margin", 0.0),
    )
    overruled = found["accepted"] and not found["gate_passed"]
    return decision.sentence + ("; they are used all the same, as use_retrained asks" if overruled else "")


def expected(folder: Path) -> Tuned | None:
    """What ``post.yaml`` of a stage says of the score to expect; None where there is none."""
    path = folder / "post.yaml"
    return configs.load(Tuned, path) if path.is_file() else None


def _exploration(run: Run, stage: StageResults, given: Mapping[str, Any]) -> Advice:
    found = stage.metrics
    labelled = found.get("images", {}).get("labelled", 0)
    cells, faults = found.get("cells_by_type", {}), found.get("faults", {})
    verdict = (
        f"{_count(labelled, 'labelled image')} with {_count(sum(cells.values()), 'cell')} of "
        f"{_count(len(cells), 'type')}; {faults.get('holes', 0):,} masks have holes, "
        f"{faults.get('overlaps', 0):,} pairs of masks overlap."
    )
    steps = []
    if labelled < _FEW_IMAGES and run.stage("03_train") is None:
        steps.append(
            f"{_count(labelled, 'image')} are few to judge by: 03.fold=-1 validates on each of them once."
        )
    if faults.get("holes", 0):
        steps.append("With 03.cleaning.fill_holes=true the network trains on masks without holes.")
    if not found.get("livecell", {}).get("images", 0):
        steps.append("There is no LIVECell to pretrain on: give 03.weights published weights, such as coco.")
    return Advice(verdict, tuple(steps))


def _pretraining(run: Run, stage: StageResults, given: Mapping[str, Any]) -> Advice:
    found = stage.metrics
    iterations, images = found.get("iterations", 0), max(found.get("images", 0), 1)
    seen = iterations * given.get("images_per_batch", 1) / images
    verdict = (
        f"{_count(iterations, 'iteration')}, in which each of {_count(images, 'image')} was seen {seen:.1f} "
        "times; nothing validates this stage, 03_train shows what it is worth."
    )
    if seen < 1:
        return Advice(verdict, ("Raise 02.max_iter: it is too low for every image to be seen once.",))
    return Advice(verdict)


def _training(run: Run, stage: StageResults, given: Mapping[str, Any]) -> Advice:
    score, tuned = stage.score or 0.0, expected(stage.folder)
    images = stage.metrics.get("validation_images", 0)
    verdict = f"{score:.3f} on {_count(images, 'validation image')}, cross-validated"
    if tuned is not None:
        verdict += f" (90 % interval {tuned.low:.3f} to {tuned.high:.3f})"
    return Advice(f"{verdict}{_beside(run)}.", tuple(_training_steps(stage, given, tuned)))


def _training_steps(stage: StageResults, given: Mapping[str, Any], tuned: Tuned | None) -> list[str]:
    score, by_type = stage.score or 0.0, stage.metrics.get("by_type", {})
    if score < _HARDLY_ANY:
        return [
            "Hardly any cell is matched: train for longer, 03.max_iter, and look at figures/predictions.png."
        ]
    steps = []
    if tuned is not None and tuned.high - tuned.low > score / 3 and given.get("fold", 0) >= 0:
        steps.append("The interval is wide: 03.fold=-1 trains once a fold and judges on all labelled images.")
    lowest = min(by_type, key=by_type.__getitem__, default=None)
    if lowest is not None and by_type[lowest] < _LOW_SHARE * score:
        steps.append(
            f"Type {lowest} is far below the others ({by_type[lowest]:.3f}): its cells may need a scale of "
            "their own, augment.scale_by_type and predict_config.scales_by_type."
        )
    if given.get("preset") == "tiny":
        steps.append(
            "The network 'tiny' is made for a CPU; the profiles t4 and gold have larger ones for GPUs."
        )
    if "more_images" in stage.metrics:
        steps.append(stage.metrics["more_images"])
    return steps


def _pseudo_labelling(run: Run, stage: StageResults, given: Mapping[str, Any]) -> Advice:
    images, cells = stage.metrics.get("images", {}), stage.metrics.get("cells", {})
    labelled, total = images.get("pseudo-labelled", 0), sum(images.values())
    kinds = ", ".join(f"{number:,} {name}" for name, number in cells.items())
    verdict = (
        f"{labelled:,} of {_count(total, 'unlabelled image')} became pseudo labels ({kinds or 'no cells'})."
    )
    if not labelled:
        return Advice(
            verdict,
            (
                "No image had enough confident cells: lower 04.score_threshold or 04.min_cells, or train "
                "03_train for longer first.",
            ),
        )
    if len(cells) == 1:
        return Advice(verdict, (f"Only {next(iter(cells))} passed: 04.score_threshold can differ by type.",))
    return Advice(verdict)


def _retraining(run: Run, stage: StageResults, given: Mapping[str, Any]) -> Advice:
    found = stage.metrics
    before, after = found.get("map_before", 0.0), stage.score or 0.0
    verdict = f"{after:.3f} after retraining, {before:.3f} before, on the same images; {gate_sentence(run)}."
    if not found.get("accepted"):
        return Advice(
            verdict, ("More unlabelled images, or better models to label them, may pass the gate.",)
        )
    if not found.get("pseudo_images", 0):
        return Advice(
            verdict,
            ("No pseudo labels took part, so that the gain comes of longer training: try 03.max_iter.",),
        )
    return Advice(verdict, ("The new weights can make a further round of pseudo labels, see the README.",))


def _submission(run: Run, stage: StageResults, given: Mapping[str, Any]) -> Advice:
    found, chosen = stage.metrics, run.chosen
    verdict = (
        f"submission.csv is valid: {_count(found.get('cells', 0), 'cell')} in "
        f"{_count(found.get('images', 0), 'image')}"
    )
    tuned = expected(chosen.folder) if chosen is not None else None
    if tuned is not None:
        verdict += f"; {tuned.expected:.3f} is to be expected ({tuned.low:.3f} to {tuned.high:.3f})"
    if stage.score is not None:
        verdict += f", and {stage.score:.3f} is what the known truth of the test images says"
    steps = []
    if found.get("skipped"):
        steps.append(f"{_count(len(found['skipped']), 'image')} could not be predicted and have no cells.")
    if found.get("reduced"):
        steps.append("The time limit left views or models out: raise 06.hours, or predict with fewer.")
    if _is_competition(run):
        steps.append(
            f"`kit bundle {run.folder}` packs this for Kaggle, `kit rehearse` runs it as Kaggle would."
        )
    return Advice(f"{verdict}.", tuple(steps))


_RULES: dict[str, Callable[[Run, StageResults, Mapping[str, Any]], Advice]] = {
    "01_eda": _exploration,
    "02_pretrain_livecell": _pretraining,
    "03_train": _training,
    "04_pseudolabel": _pseudo_labelling,
    "05_retrain": _retraining,
    "06_submit": _submission,
}


def _is_competition(run: Run) -> bool:
    """Whether the data are the competition's, or made like them, and no images of the user's own."""
    return bool(run.data) and Path(run.data, "train.csv").is_file()


def _beside(run: Run) -> str:
    """What a score on validation images may be compared with; empty where nothing is known."""
    if run.data and has_truth(run.data):
        return "; these cells are synthetic, so that it compares with other runs on them alone"
    if _is_competition(run):
        return f"; the paper's model reached {_PAPER} on Kaggle's private images, which are others"
    return ""


def _validation_images(run: Run) -> int:
    stage = run.stage("03_train")
    return 0 if stage is None else stage.metrics.get("validation_images", 0)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
