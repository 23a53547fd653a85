"""The six notebooks, as `kit run` runs them, on a handful of tiny synthetic frames."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from kitlib import config, records
from kitlib.data import competition, synthetic, tables
from kitlib.stages import STAGES, record
from kitlib.submission import writer
from kitlib.train import TrainConfig

pytestmark = pytest.mark.slow

#: A model that learned nothing: what it finds passes as a pseudo label only if anything does. All folds are
#: trained, retrained and fine-tuned. No gain passes the gate, and the new weights are used all the same.
SETTINGS = [
    *(f"{stage}.max_iter=3" for stage in ("02", "03", "05")),
    *(f"{stage}.workers=0" for stage in ("02", "03", "05")),
    *(f"{stage}.augment.crop=[96, 96]" for stage in ("02", "03", "05")),
    *('04.score_threshold={"default": 0.0}', '04.min_area={"default": 1}', "04.min_cells=1"),
    *("03.fold=-1", "03.folds=2", "05.finetune_iter=2", "05.margin=1.0", "05.use_retrained=always"),
]
FOLDS = ("fold_0", "fold_1")

LEFT = {
    "01_eda": ["summary.json", "figures/examples.png", "figures/folds.png"],
    "02_pretrain_livecell": ["weights_last.pth", "metrics.jsonl", "curves.csv", "figures/curves.png"],
    "03_train": [
        *(f"{fold}/weights_best.pth" for fold in FOLDS),
        *("predictions.csv", "post.yaml"),
        *("figures/mask_loss.png", "figures/predictions.png"),
    ],
    "04_pseudolabel": ["pseudo.csv", "pseudo.npz", "predictions.csv"],
    "05_retrain": [
        *(f"{fold}/finetune/weights_best.pth" for fold in FOLDS),
        *("predictions.csv", "post.yaml", "figures/before_after.png"),
    ],
    "06_submit": ["submission.csv", "predictions.csv", "figures/predictions.png"],
}


class Run:
    """Runs into one folder; ``rows`` and ``said`` are of the last."""

    def __init__(self, folder: Path, run: Callable[..., list[record.Row]]) -> None:
        self._run = run
        self.data = synthetic.write(folder / "cells", images=6, size=(96, 96))
        self.out = folder / "out"

    def __call__(self, *settings: str) -> Run:
        self.said: list[str] = []
        self.rows = self._run(self.data, self.out, [*SETTINGS, *settings], say=self.said.append)
        return self

    def metrics(self, stage: str) -> dict:
        return json.loads((self.out / stage / "metrics.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, run_notebooks: Callable[..., list[record.Row]]) -> Run:
    """The first run, from images to a submission."""
    return Run(tmp_path_factory.mktemp("notebooks"), run_notebooks)()


def test_all_stages_leave_what_they_say(run: Run) -> None:
    for stage, names in LEFT.items():
        for name in [f"{stage}.ipynb", f"{stage}.html", "metrics.json", "stage.json", *names]:
            path = run.out / stage / name
            assert path.is_file(), path
            assert path.stat().st_size, path
        assert all((run.out / stage / name).is_file() for name in run.metrics(stage)["artefacts"])


def test_executed_notebooks_have_run_to_their_end_without_a_warning(run: Run) -> None:
    for stage in STAGES:
        executed = nbformat.read(run.out / stage / f"{stage}.ipynb", as_version=4)
        outputs = [o for cell in executed.cells for o in cell.get("outputs", ())]
        assert not [o for o in outputs if o.output_type == "error"]
        said = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stderr")
        assert "Warning" not in said, said
        shown = executed.cells[-1].outputs[0].data
        assert shown["text/plain"].splitlines()[0].split() == ["stage", stage]
        assert shown["text/html"].startswith("<table>")


def test_the_report_has_every_stage_and_figure(run: Run) -> None:
    page = (run.out / "report.html").read_text()
    assert "6 of 6 stages done" in page
    assert page.count("data:image/webp;base64,") == len(list(run.out.glob("*/figures/*.png")))
    assert "submission.csv is valid" in page
    assert all(f'href="{stage}/{stage}.html"' in page for stage in STAGES)


def test_the_data_are_described(run: Run) -> None:
    found = json.loads((run.out / "01_eda" / "summary.json").read_text())
    frames = competition.labelled(run.data)
    assert found["images"] == {"labelled": 6, "unlabelled": 3, "test": 3}
    assert found["images_by_type"] == {"astro": 2, "cort": 2, "shsy5y": 2}
    assert sum(found["cells_by_type"].values()) == sum(len(f.cells) for f in frames)
    assert sum(found["folds"].values()) == 6


def test_the_held_out_images_were_predicted_and_never_trained_on(run: Run) -> None:
    everything = {f.id for f in competition.labelled(run.data)}
    judged: list[str] = []
    for fold in FOLDS:
        folder = run.out / "03_train" / fold
        training = {f.id for f in records.read_frames(folder / "train.npz")}
        judging = [f.id for f in records.read_frames(folder / "val.npz")]
        assert training == everything - set(judging)
        retraining = records.read_frames(run.out / "05_retrain" / fold / "train.npz")
        assert {f.id for f in retraining if not f.pseudo} == training
        finetuning = config.load(TrainConfig, run.out / "05_retrain" / fold / "finetune" / "job.yaml")
        assert finetuning.train == str(folder / "train.npz")
        judged += judging
    assert sorted(judged) == sorted(everything)
    for stage in ("03_train", "05_retrain"):
        assert {f.id for f in tables.read_cells(run.out / stage / "predictions.csv")} == everything


def test_pseudo_labels_are_of_unlabelled_images_and_are_trained_on(run: Run) -> None:
    pseudo = records.read_frames(run.out / "04_pseudolabel" / "pseudo.npz")
    unlabelled = {f.id for f in competition.unlabelled(run.data)}
    assert {f.id for f in pseudo} <= unlabelled
    labelling = run.metrics("04_pseudolabel")
    assert sum(labelling["images"].values()) >= len(unlabelled)
    assert labelling["teacher"] == [str(run.out / "03_train" / fold / "weights_best.pth") for fold in FOLDS]
    for fold in FOLDS:
        retraining = records.read_frames(run.out / "05_retrain" / fold / "train.npz")
        assert [f for f in retraining if f.pseudo] == [f for f in pseudo if f.pseudo]


def test_the_scores_are_in_the_table(run: Run) -> None:
    for stage in ("03_train", "05_retrain", "06_submit"):
        assert 0 <= run.metrics(stage)["map"] <= 1
    for stage in ("03_train", "05_retrain"):
        assert {"all", "cort"} <= run.metrics(stage)["coco_ap"].keys()
    lines = record.table(run.rows).splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(STAGES)
    assert f"{run.metrics('03_train')['map']:.3f}" in lines[4]


def test_the_retrained_weights_submit_whatever_the_gate_says(run: Run) -> None:
    retrained = run.metrics("05_retrain")
    assert (retrained["accepted"], retrained["gate_passed"]) == (True, False)
    assert retrained["weights"] == [f"{fold}/finetune/weights_best.pth" for fold in FOLDS]
    folds = [str(run.out / "05_retrain" / name) for name in retrained["weights"]]
    assert run.metrics("06_submit")["weights"] == folds


def test_the_submission_is_valid_and_names_every_test_image(run: Run) -> None:
    path = run.out / "06_submit" / "submission.csv"
    assert writer.check(path, run.data) == []
    with path.open(newline="") as file:
        named = [row["id"] for row in csv.DictReader(file)]
    with (run.data / "sample_submission.csv").open(newline="") as file:
        assert list(dict.fromkeys(named)) == [row["id"] for row in csv.DictReader(file)]


def test_a_second_run_skips_all_and_a_changed_parameter_what_comes_before(run: Run) -> None:
    run()
    assert [row.skipped for row in run.rows] == [True] * 6
    run("06.predict_config.scales=[1.0]")
    assert [row.skipped for row in run.rows] == [True] * 5 + [False]
    assert [p.name for p in (run.out / "previous").iterdir()] == ["06_submit-1"]
    assert writer.check(run.out / "06_submit" / "submission.csv", run.data) == []
