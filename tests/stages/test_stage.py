"""What notebooks call: folders, earlier stages, figures, last words, and errors as one sentence."""

from __future__ import annotations

import base64
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from PIL import Image

from kitlib import config, files
from kitlib.data import synthetic
from kitlib.data.config import ReadingConfig
from kitlib.errors import KitError
from kitlib.inputs.config import AugmentConfig
from kitlib.masks.rle import RleError
from kitlib.stages import checks, parameters, record, results, stage
from kitlib.stages import notebooks as nb


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """As much of a competition's folder as it takes to be recognised."""
    folder = tmp_path / "sartorius-cell-instance-segmentation"
    (folder / "train").mkdir(parents=True)
    (folder / "train.csv").write_text("id\n")
    return folder


@pytest.fixture
def train(data: Path, tmp_path: Path) -> stage.Stage:
    return stage.begin("03_train", str(data), str(tmp_path / "out"))


def left(run: Path, name: str, **metrics) -> Path:
    files.write_json(run / name / "metrics.json", {"stage": name, **metrics})
    return run / name


def test_a_stage_finds_its_data_and_makes_its_folder(data: Path, tmp_path: Path) -> None:
    begun = stage.begin("03_train", str(tmp_path), str(tmp_path / "out"))
    assert (begun.data, begun.folder) == (data, tmp_path / "out" / "03_train")
    assert begun.folder.is_dir()


def test_own_data_do_not_meet_the_demo_s_results(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nb, "ROOT", data.parent)
    assert stage.begin("03_train", str(data)).out == data.parent / "outputs" / data.name


def test_paths_may_be_relative(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begun = stage.begin("03_train", data.name, "out")
    assert (begun.data, begun.out) == (data, tmp_path / "out")


def test_a_wrong_stage_or_missing_data_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="'3_train' is no stage; the stages are 01_eda"):
        stage.begin("3_train", str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(KitError, match="nowhere"):
        stage.begin("03_train", str(tmp_path / "nowhere"), str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(KitError, match=r"cannot write .*out/03_train"):
        stage.begin("03_train", str(data), str(tmp_path / "out"))


def test_no_run_gets_in_while_a_notebook_works(train: stage.Stage) -> None:
    code = "import pathlib, sys; from kitlib.runtime import lock\n"
    code += "with lock.hold(pathlib.Path(sys.argv[1]), ''): pass"
    run = [sys.executable, "-c", code, str(train.out)]
    begun = subprocess.run(run, capture_output=True, text=True, check=False)
    assert f"in use by the notebook '03_train' (process {os.getpid()} " in begun.stderr
    train.finish()
    assert subprocess.run(run, check=False).returncode == 0


# ----------------------------------------------------------------------------------- earlier stages


def test_an_earlier_stage_that_was_run_is_taken(train: stage.Stage) -> None:
    folder = left(train.out, "02_pretrain_livecell", weights="fold_0/w.pth")
    assert train.need("02_pretrain_livecell") == folder
    assert train.weights("02_pretrain_livecell") == (folder / "fold_0" / "w.pth",)


def test_an_earlier_stage_may_have_kept_several_weights(train: stage.Stage) -> None:
    folder = left(train.out, "03_train", weights=["fold_0/w.pth", "fold_1/w.pth"])
    assert train.weights("03_train") == (folder / "fold_0" / "w.pth", folder / "fold_1" / "w.pth")


def test_an_earlier_stage_that_was_not_run_is_run(
    train: stage.Stage, notebooks: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(stage, "notebook", lambda name: nb.notebook(name, notebooks))
    folder = train.need("02_pretrain_livecell")
    assert (folder / "history.txt").read_text() == "80\n"
    assert (folder / "02_pretrain_livecell.ipynb").is_file()
    left = record.read(folder)
    assert (left.done, left.parameters["max_iter"], "CPU" in left.machine) == (True, 80, True)
    said = capfd.readouterr().out
    assert "02_pretrain_livecell (two minutes on a CPU) has to run first\n" in said
    assert "running 02_pretrain_livecell, 1 of 1\n" in said
    assert train.need("02_pretrain_livecell") == folder
    assert (folder / "history.txt").read_text() == "80\n"


def test_all_that_has_to_run_first_is_said_before_it_runs(
    data: Path, tmp_path: Path, notebooks: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(stage, "notebook", lambda name: nb.notebook(name, notebooks))
    submit = stage.begin("06_submit", str(data), str(tmp_path / "out"))
    submit.need("03_train")
    lines = [line for line in capfd.readouterr().out.splitlines() if "run" in line]
    assert lines == [
        "02_pretrain_livecell (two minutes on a CPU) and 03_train (two minutes on a CPU) have to run first",
        "running 02_pretrain_livecell, 1 of 2",
        "running 03_train, 2 of 2",
    ]
    assert (submit.out / "03_train" / "03_train.html").is_file()


def test_what_a_stage_needs_is_run_in_order_and_once(train: stage.Stage) -> None:
    retrain = stage.Stage("05_retrain", train.data, train.out)
    names = ["02_pretrain_livecell", "03_train", "04_pseudolabel"]
    assert retrain._missing("03_train") == names
    left(train.out, "03_train")
    assert retrain._missing("04_pseudolabel") == ["04_pseudolabel"]
    assert train._missing("02_pretrain_livecell") == ["02_pretrain_livecell"]


def test_weights_by_the_fold_that_they_have_not_seen(train: stage.Stage) -> None:
    folder = left(train.out, "03_train", weights=["fold_1/w.pth", "fold_3/w.pth"])
    assert train.folds("03_train") == {f"fold_{k}": folder / f"fold_{k}" / "w.pth" for k in (1, 3)}
    assert train.folds("03_train", 3) == {"fold_3": folder / "fold_3" / "w.pth"}
    with pytest.raises(KitError, match="unknown fold of 03_train: 'fold_2'"):
        train.folds("03_train", 2)


def test_of_several_phases_a_fold_goes_on_from_the_last_one(train: stage.Stage) -> None:
    names = [f"fold_{fold}/phase_{phase}/w.pth" for phase in (2, 1) for fold in (0, 1)]
    folder = left(train.out, "03_train", weights=names)
    assert list(train.folds("03_train").items()) == [
        (f"fold_{k}", folder / f"fold_{k}" / "phase_2" / "w.pth") for k in (0, 1)
    ]


def test_retrained_weights_are_taken_only_if_they_passed_the_gate(train: stage.Stage) -> None:
    assert train.chosen() == "03_train"
    left(train.out, "03_train", map=0.25)
    left(train.out, "05_retrain", map=0.9)
    assert train.chosen() == "03_train"
    left(train.out, "05_retrain", map=0.9, accepted=False)
    assert train.chosen() == "03_train"
    left(train.out, "05_retrain", map=0.3, accepted=True)
    assert train.chosen() == "05_retrain"


# ------------------------------------------------------------------------------------ what is left


def test_a_figure_is_kept_and_shown(train: stage.Stage) -> None:
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    image = train.show("curves", figure)
    path = train.folder / "figures" / "curves.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    data = image._repr_png_()
    assert base64.b64decode(data) == path.read_bytes()


@dataclass(frozen=True)
class Config:
    name: str = "<b>&"
    rate: float = 1e-3


def test_the_configuration_is_shown_folded_and_kept_with_the_results(train: stage.Stage) -> None:
    shown = train.describe(Config())._repr_html_()
    assert not (train.folder / "config.yaml").exists()  # training may yet refuse it
    train.finish([], Config())
    assert config.load(Config, train.folder / "config.yaml") == Config()
    assert "<b>" not in shown
    assert "name: &lt;b&gt;&amp;" in shown


def test_the_last_words(train: stage.Stage) -> None:
    values = train.finish([train.folder / "fold_0" / "w.pth", "thresholds.yaml"], map=0.5, weights="w.pth")
    assert values == files.read_json(train.folder / "metrics.json")
    assert values == {
        "stage": "03_train",
        "map": 0.5,
        "weights": "w.pth",
        "artefacts": ["fold_0/w.pth", "thresholds.yaml"],
    }


def test_a_stage_that_was_run_by_hand_brings_the_report_up_to_date(
    train: stage.Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """In a run the report waits until the stage is recorded, which the run does."""
    monkeypatch.setattr(nb, "injected", lambda: ["data", "out"])
    begun = record.Record("of the run", False, 0.0, {})
    begun.save(train.folder)
    train.finish(map=0.5)
    assert not (train.out / "report.html").exists()
    assert record.read(train.folder) == begun
    monkeypatch.undo()
    shown = train.finish(map=0.25)
    assert "0.250" in (train.out / "report.html").read_text()
    assert "0.250 on 0 validation images" in repr(shown)
    left(train.out, "01_eda").joinpath("metrics.json").write_text("{")
    assert train.finish(map=0.25)["map"] == 0.25
    assert "the report was not written: KitError" in capsys.readouterr().out


def test_results_made_by_hand_are_not_taken_for_the_run_s(train: stage.Stage) -> None:
    train.finish(map=0.5)
    record.Record("of the run", True, 1.0, {}).save(train.folder)
    train.finish(map=0.5)
    assert record.read(train.folder).key == "of the run"
    train.finish(map=0.6)
    assert record.read(train.folder).key == "by hand"


def test_cells_run_by_hand_leave_the_record_of_a_run(shell, data: Path, tmp_path: Path) -> None:
    """Parameters, machine and the time of the cells, without that between them."""
    begin = f"stage = stages.begin('03_train', {str(data)!r}, {str(tmp_path / 'out')!r})"
    start = time.monotonic()
    shell.run_cell(f"from kitlib import stages\nimport time\nmax_iter, seed = 7, 0\n{begin}")
    shell.run_cell("given = stage.parameters(globals())\ntime.sleep(0.2)")
    time.sleep(0.5)
    shell.run_cell("shown = stage.finish(map=0.5)")
    out = tmp_path / "out"
    left = record.read(out / "03_train")
    assert left.parameters == {"max_iter": 7, "seed": 0, "data": str(data), "out": str(out)}
    assert (left.done, left.machine["Python"]) == (True, platform.python_version())
    assert 0.2 <= left.seconds <= time.monotonic() - start - 0.5
    report = (out / "report.html").read_text()
    assert platform.python_version() in report
    assert "max_iter" in report


def test_the_training_of_an_interrupted_run_stays_its_own(train: stage.Stage) -> None:
    train.parameters({"max_iter": 7})
    begun = record.Record("key", False, 0.0, train.session.parameters, "training", "resumable")
    begun.save(train.folder)
    train.finish(map=0.5)
    left = record.read(train.folder)
    assert (left.key, left.done, left.training) == ("by hand", True, "training")
    replace(begun, parameters={"max_iter": 8}).save(train.folder)
    train.finish(map=0.5)
    assert record.read(train.folder).training == "by hand"


# ------------------------------------------------------------------------------------------ errors


@pytest.fixture
def shell():
    """The shell of a notebook, with its errors told plainly."""
    made = InteractiveShell.instance()
    nb.quiet_errors()
    yield made
    InteractiveShell.clear_instance()


@pytest.mark.parametrize("kind", [KitError, RleError])
def test_a_mendable_error_shows_as_one_sentence(shell, capsys: pytest.CaptureFixture, kind: type) -> None:
    shell.push({"kind": kind})
    result = shell.run_cell("raise kind('train.csv row 7: write a number')")
    assert isinstance(result.error_in_exec, kind)
    said = capsys.readouterr()
    lines = (said.out + said.err).strip().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(f"{kind.__name__}\x1b[0m: train.csv row 7: write a number")


def test_other_errors_keep_their_traceback(shell, capsys: pytest.CaptureFixture) -> None:
    shell.run_cell("1 / 0")
    said = capsys.readouterr()
    assert "Traceback" in said.out + said.err


def test_outside_a_notebook_nothing_is_changed() -> None:
    nb.quiet_errors()


# ---------------------------------------------------------------------------- images of the user's own


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "plates"
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True)
    pixels = np.full((40, 60), 90, np.uint8)
    labels = np.zeros((40, 60), np.uint8)
    labels[5:17, 5:17], labels[20:32, 30:42] = 1, 2
    for name in ("train/a", "train/b", "test/c"):
        Image.fromarray(pixels).save(folder / f"{name}.png")
        Image.fromarray(labels).save(folder / f"{name}_masks.png")
    return folder


def test_own_images_are_read_as_03_has_read_them(own: Path, tmp_path: Path) -> None:
    train = stage.begin("03_train", str(own), str(tmp_path / "out"))
    assert train.is_own
    assert train.categories == ()
    reading = ReadingConfig(folders_are="category", mask_suffixes=("_cells", "_masks"))
    assert train.dataset(reading).layout == "2 images with label images; 1 test images"
    submit = stage.Stage("06_submit", train.data, train.out)
    assert [(f.id, f.cells) for f in submit.test()] == [("c", ())]
    assert [len(f.cells) for f in submit.truth()] == [2]
    (own / "test" / "c_masks.png").rename(own / "test" / "c_cells.png")
    submit = stage.Stage("06_submit", train.data, train.out)
    assert [len(f.cells) for f in submit.truth()] == [2]


def test_their_cells_decide_scales(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train = stage.begin("03_train", str(own), str(tmp_path / "out"))
    left(train.out, "02_pretrain_livecell", nothing_to_do="No LIVECell.", start="")
    given = train.fit(parameters.read("03_train", {}), train.dataset(ReadingConfig()).labelled)
    assert given.predict_config.scales == (1.77,)  # squares of 12 pixels: discs of 13.5
    assert given.model(1).architecture.pixel_mean == 90.0
    assert "augment.scale = [1.33, 2.35]: the median cell is 14 pixels across" in capsys.readouterr().out


def test_the_competition_s_images_decide_nothing(train: stage.Stage) -> None:
    given = parameters.read("03_train", {})
    assert train.fit(given, []) == given
    retraining = parameters.read("05_retrain", {"augment": {"crop": [64, 64]}})
    assert train.refit(retraining, AugmentConfig()) == retraining


def test_a_run_remembers_whether_its_images_are_the_user_s_own(own: Path, tmp_path: Path) -> None:
    data = synthetic.write(tmp_path / "cells", images=3, size=(64, 64))
    for folder, is_own in ((own, True), (data, False)):
        train = stage.begin("03_train", str(folder), str(tmp_path / "out"))
        train.dataset(ReadingConfig())
        train.finish()
        assert results.is_own(train.out) == is_own


def test_a_training_looks_at_no_other_images_of_the_competition(tmp_path: Path) -> None:
    data = synthetic.write(tmp_path / "cells", images=3, size=(64, 64))
    train = stage.begin("03_train", str(data), str(tmp_path / "out"))
    whole = train.dataset(ReadingConfig())
    for path in [*data.glob("test/*.png"), *data.glob("train_semi_supervised/*.png")]:
        path.write_text("damaged")
    found = train.dataset(ReadingConfig(), only_labelled=True)
    assert (found.labelled, found.categories) == (whole.labelled, whole.categories)
    assert (found.unlabelled, found.test, found.findings) == ([], [], [])


def test_a_training_starts_where_an_idle_pretraining_would_have(train: stage.Stage) -> None:
    left(train.out, "02_pretrain_livecell", nothing_to_do="No LIVECell.", start="coco")
    assert train.start("02_pretrain_livecell") == "coco"
    folder = left(train.out, "02_pretrain_livecell", weights="w.pth")
    assert train.start("02_pretrain_livecell") == str(folder / "w.pth")


def test_without_anything_to_do_the_cells_below_do_nothing(
    shell, train: stage.Stage, capsys: pytest.CaptureFixture
) -> None:
    shell.push({"stage": train, "done": []})
    shell.run_cell("stage.nothing_to_do('There are no test images.', start='')")
    said = capsys.readouterr().out
    assert said == "Nothing to do: There are no test images. The cells below do nothing.\n"
    assert files.read_json(train.folder / "metrics.json")["nothing_to_do"] == "There are no test images."
    shell.run_cell("done.append(1)\n1 / 0")
    assert shell.user_ns["done"] == []
    shell.run_cell("'stages.begin()'; done.append(2)")  # the notebook is run again
    shell.run_cell("done.append(3)")
    assert shell.user_ns["done"] == [2, 3]


def test_types_in_tables_are_those_of_the_data(own: Path, train: stage.Stage, tmp_path: Path) -> None:
    with pytest.raises(KitError, match="unknown cell type 'neuron'"):
        checks.check_cell_types(
            parameters.read("04_pseudolabel", {"min_area": {"default": 1, "neuron": 5}}), train.categories
        )
    files.write_text(tmp_path / "out" / "03_train" / "config.yaml", "categories: [neuron]\n")
    later = stage.Stage("04_pseudolabel", own, tmp_path / "out")
    given = parameters.read("04_pseudolabel", {"min_area": {"default": 1, "neuron": 5}})
    checks.check_cell_types(given, later.categories)


def test_images_without_any_cells_are_told_what_they_lack(own: Path, tmp_path: Path) -> None:
    for path in own.rglob("*_masks.png"):
        path.unlink()
    train = stage.begin("03_train", str(own), str(tmp_path / "out"))
    with pytest.raises(KitError, match="plates holds the cells of no image; put label images beside"):
        train.dataset(ReadingConfig())
