"""Runs of small notebooks: what is skipped, moved aside, gone on with, and what is said when one fails."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import nbformat
import pytest

from kitlib import files
from kitlib.errors import KitError
from kitlib.runtime import drivers
from kitlib.stages import profiles, record, runner
from kitlib.stages.report import runs

EDA, PRETRAIN, TRAIN = "01_eda", "02_pretrain_livecell", "03_train"

#: A process that writes into a folder until it is stopped.
HOLD = """
import sys
from pathlib import Path
from kitlib.runtime import lock
with lock.hold(Path(sys.argv[1]), "another"):
    print("ready", flush=True)
    sys.stdin.read()
"""


class Runs:
    """Runs of the small notebooks into one folder, to the end of 02 unless told otherwise."""

    def __init__(self, notebooks: Path, tmp_path: Path) -> None:
        self.notebooks, self.data, self.out = notebooks, tmp_path / "data", tmp_path / "out"
        self.data.mkdir()
        (self.data / "train.csv").write_text("id\n")

    def __call__(
        self,
        *settings: str,
        first: str = EDA,
        last: str = PRETRAIN,
        force: bool = False,
        after: Callable[[Path], object] = lambda folder: None,
    ) -> list[str]:
        """Run; returns, of each stage, its name and what became of it."""
        plan = profiles.plan("demo", settings, folder=self.notebooks).in_folders(self.data, self.out)
        said: list[str] = []
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            self.rows = runner.run(plan, self.data, self.out, first, last, force, said.append, after)
        return said

    def do(self, stage: str, code: str) -> None:
        """Have a stage do more in its middle."""
        (self.notebooks / "do.py").write_text(f"if folder.name == {stage!r}:\n    exec({code!r})")

    def history(self, stage: str) -> list[int]:
        """The max_iter of each time that the stage ran in its folder as it is now."""
        return [int(line) for line in (self.out / stage / "history.txt").read_text().split()]


@pytest.fixture
def run(notebooks: Path, tmp_path: Path) -> Runs:
    return Runs(notebooks, tmp_path)


def test_a_finished_stage_is_skipped(run: Runs) -> None:
    assert run() == ["01_eda: running", "02_pretrain_livecell: running"]
    assert [(row.stage, row.skipped, row.artefacts) for row in run.rows] == [
        (EDA, False, "history.txt"),
        (PRETRAIN, False, "history.txt"),
    ]
    assert all("finished before with the same inputs, skipped" in line for line in run())
    assert [row.skipped for row in run.rows] == [True, True]
    assert run.history(EDA) == [10]
    assert run.history(PRETRAIN) == [80]
    executed = nbformat.read(run.out / EDA / "01_eda.ipynb", as_version=4)
    assert executed.cells[1].metadata.tags == ["parameters"]
    assert f"out = {str(run.out)!r}".replace("'", '"') in executed.cells[2].source


def test_a_run_leaves_a_report_its_notebooks_as_html_and_what_it_ran_on(run: Runs) -> None:
    run()
    assert "2 of 6 stages done" in (run.out / "report.html").read_text()
    assert (run.out / EDA / "01_eda.html").is_file()
    left = record.read(run.out / EDA)
    assert left.profile == "demo"
    assert left.machine["Python"] == platform.python_version()


def test_what_follows_a_stage_costs_no_result(run: Runs) -> None:
    """Neither a tracking server that is gone nor a page that cannot be written."""
    (run.out / "report.html").mkdir(parents=True)
    finished: list[Path] = []

    def after(folder: Path) -> None:
        finished.append(folder)
        raise ConnectionError("no server")

    said = run(last=EDA, after=after)
    assert finished == [run.out / EDA]
    assert said[0] == "01_eda: running"
    assert said[1].startswith("the report was not written: KitError: cannot write")
    assert said[2] == "its record for tracking was not written: ConnectionError: no server"
    assert record.read(run.out / EDA).done
    run(last=EDA, after=after)
    assert len(finished) == 1


def test_a_changed_parameter_reruns_its_stage_and_those_after_it(run: Runs) -> None:
    run()
    said = run("02.max_iter=20")
    assert "skipped" in said[0]
    shelf = run.out / "previous" / "02_pretrain_livecell-1"
    assert said[1:] == [
        f"{PRETRAIN}: other parameters, data or --force; former results moved to {shelf}",
        f"{PRETRAIN}: running",
    ]
    assert run.history(PRETRAIN) == [20]
    assert (shelf / "history.txt").read_text() == "80\n"
    run("02.max_iter=20", "01.few_cells=0.5")
    assert [row.skipped for row in run.rows] == [False, True]  # nothing depends on what 01 finds


def test_what_comes_after_a_training_leaves_it_where_it_is(run: Runs) -> None:
    fold, gain = run.out / TRAIN / "fold_0" / "trained.txt", "03.tuning_methods=[expected gain]"
    run.do(TRAIN, f"p = Path({str(fold)!r}); p.parent.mkdir(exist_ok=True); p.open('a').write('x')")
    run(last=TRAIN)
    said = run(gain, last=TRAIN)
    shelf = run.out / "previous" / "03_train-1"
    assert said[-2:] == [
        f"{TRAIN}: the training stays; what was made of it moved to {shelf}",
        f"{TRAIN}: running",
    ]
    assert fold.read_text() == "xx"
    assert run.history(TRAIN) == [320]
    assert (shelf / "history.txt").is_file()
    assert "skipped" in run(gain, last=TRAIN)[-1]
    run("03.max_iter=20", last=TRAIN)
    assert fold.read_text() == "x"
    assert (run.out / "previous" / "03_train-2" / "fold_0" / "trained.txt").read_text() == "xx"


def test_results_that_no_run_made_are_moved_aside(run: Runs) -> None:
    (run.out / EDA).mkdir(parents=True)
    (run.out / EDA / "metrics.json").write_text("{}")
    assert "former results moved to" in run(last=EDA)[0]
    assert (run.out / "previous" / "01_eda-1" / "metrics.json").read_text() == "{}"


def test_results_may_lie_in_the_data_s_folder(run: Runs) -> None:
    run.out = run.data / "out"
    run(last=EDA)
    assert "skipped" in run(last=EDA)[0]


def test_other_data_or_another_notebook_rerun_all_that_follows(run: Runs) -> None:
    run(last=EDA)
    (run.data / "train.csv").write_text("id\na\n")
    assert "moved to" in run(last=EDA)[0]
    path = run.notebooks / "01_eda.ipynb"
    path.write_text(path.read_text().replace("# 01_eda", "# A better title"))
    assert "skipped" in run(last=EDA)[0]
    path.write_text(path.read_text().replace("max_iter / 100", "max_iter / 200"))
    assert "moved to" in run(last=EDA)[0]


def test_where_and_on_what_it_runs_changes_nothing(run: Runs, tmp_path: Path) -> None:
    run(last=EDA)
    run.out = run.out.rename(tmp_path / "elsewhere")
    assert "skipped" in run(last=EDA)[0]


def test_force_runs_again_and_keeps_what_was(run: Runs) -> None:
    run(last=EDA)
    assert "--force; former results moved to" in run(last=EDA, force=True)[0]
    assert run.history(EDA) == [10]
    assert (run.out / "previous" / "01_eda-1" / "metrics.json").is_file()


def test_a_learning_curve_leaves_later_stages_as_they_are(run: Runs) -> None:
    plans = [
        profiles.plan("demo", given, folder=run.notebooks) for given in ([], ["03.learning_curve=[0.5]"])
    ]
    keys = [
        {step.stage: step.begun.key for step in runner._steps(p, "data", run.out, 6, False)} for p in plans
    ]
    assert {stage for stage in keys[0] if keys[0][stage] != keys[1][stage]} == {TRAIN}


def test_force_keeps_what_was_made_by_hand(run: Runs) -> None:
    """A notebook run in JupyterLab leaves results without stage.json."""
    (run.out / EDA).mkdir(parents=True)
    (run.out / EDA / "history.txt").write_text("1\n")
    run(last=EDA, force=True)
    assert (run.out / "previous" / "01_eda-1" / "history.txt").read_text() == "1\n"
    assert run.history(EDA) == [10]


def test_an_interrupted_stage_goes_on_where_it_was(run: Runs) -> None:
    """The first time the stage ends in its middle; the same parameters find what it had written."""
    run.do(EDA, "1/0")
    with pytest.raises(KitError):
        run(last=EDA)
    assert not record.read(run.out / EDA).done
    # As a killed process leaves it; a report would show it otherwise.
    half = files.make_folder(run.out / EDA / "figures") / ".unfinished-x.png"
    half.touch()
    assert runs.read(run.out).stages[0].figures == []
    run.do(EDA, "")
    assert run(last=EDA) == ["01_eda: was interrupted, goes on", "01_eda: running"]
    assert run.history(EDA) == [10, 10]
    assert record.read(run.out / EDA).done
    assert not half.exists()


@pytest.mark.parametrize("change", ["03.workers=0", "03.checkpoint_every=5", "03.eval_every=5"])
def test_an_interrupted_training_goes_on_with_what_only_its_speed_or_evaluation_depends_on(
    run: Runs, change: str
) -> None:
    checkpoint, own = run.out / TRAIN / "fold_0" / "checkpoint", "03.weights=own.pth"
    train = f"p = Path({str(checkpoint)!r}); p.parent.mkdir(exist_ok=True); p.open('a').write('x')"
    run.do(TRAIN, f"{train}; 1/0")
    with pytest.raises(KitError):
        run(own, first=TRAIN, last=TRAIN)
    run.do(TRAIN, train)
    said = run(own, change, first=TRAIN, last=TRAIN)
    assert "other parameters" not in said[0]
    assert checkpoint.read_text() == "xx"
    # Finished, it is the same whatever its speed was; another way to evaluate asks for another training.
    assert ("skipped" in run(own, first=TRAIN, last=TRAIN)[0]) == ("eval_every" not in change)


@pytest.mark.parametrize(("schedule", "goes_on"), [("cosine_periodic", True), ("cosine", False)])
def test_an_interrupted_training_may_be_made_longer_where_its_rates_stay(
    run: Runs, schedule: str, goes_on: bool
) -> None:
    settings = ["03.weights=own.pth", f"03.schedule.name={schedule}"]
    run.do(TRAIN, "1/0")
    with pytest.raises(KitError):
        run(*settings, first=TRAIN, last=TRAIN)
    run.do(TRAIN, "")
    said = run(*settings, "03.max_iter=500", first=TRAIN, last=TRAIN)
    assert ("other parameters" not in said[0]) == goes_on


def test_an_interrupted_stage_of_other_parameters_is_moved_aside(run: Runs) -> None:
    run.do(EDA, "1/0")
    with pytest.raises(KitError):
        run(last=EDA)
    run.do(EDA, "")
    assert "moved to" in run("01.seed=1", last=EDA)[0]
    assert run.history(EDA) == [10]


def test_results_that_were_deleted_are_made_again(run: Runs) -> None:
    run(last=EDA)
    (run.out / EDA / "metrics.json").unlink()
    assert "running" in run(last=EDA)[-1]


def test_from_takes_what_earlier_stages_left(run: Runs) -> None:
    missing = r"03_train needs the results of 02_pretrain_livecell, but .*livecell has none; start earlier"
    with pytest.raises(KitError, match=missing):
        run(first=TRAIN, last=TRAIN)
    assert not run.out.exists()
    assert run(first=PRETRAIN) == ["02_pretrain_livecell: running"]  # nobody reads what 01 finds
    assert run(first=TRAIN, last=TRAIN) == ["03_train: running"]
    assert [row.stage for row in run.rows] == [TRAIN]


def test_what_a_stage_does_not_read_need_not_be_there(run: Runs) -> None:
    run("03.weights=own.pth", first=TRAIN, last=TRAIN)
    run("03.weights=own.pth", first="06_submit", last="06_submit")
    assert [row.stage for row in run.rows] == ["06_submit"]


def test_from_after_to_is_refused(run: Runs) -> None:
    with pytest.raises(
        KitError, match="--from 03_train comes after --to 02_pretrain_livecell; exchange them"
    ):
        run(first=TRAIN)


def test_the_score_is_in_the_row(run: Runs) -> None:
    run(last=EDA)
    for stage in (EDA, PRETRAIN):
        (run.out / stage).mkdir(exist_ok=True)
        (run.out / stage / "metrics.json").write_text("{}")
    run("03.max_iter=41", first=TRAIN, last=TRAIN)
    assert run.rows[0].score == "0.410"


# ------------------------------------------------------------------- folders' names, and other runs


def test_any_name_of_a_folder_will_do(run: Runs, tmp_path: Path) -> None:
    """papermill takes paths as format strings, and parameters are written as Python's source."""
    odd = tmp_path / "-{max_iter} {nobody} }{ 'a' \"b\" #c %d [e] $f \\g * ü~"
    odd.mkdir()
    for name in ("notebooks", "data"):
        (tmp_path / name).rename(odd / name)
    run.notebooks, run.data, run.out = (odd / name for name in ("notebooks", "data", "out"))
    assert run(last=EDA) == ["01_eda: running"]
    assert run.history(EDA) == [10]
    assert (run.out / EDA / "01_eda.ipynb").is_file()
    assert record.read(run.out / EDA).parameters["data"] == str(run.data)
    assert "skipped" in run(last=EDA)[0]


def test_finished_results_stay_whatever_the_locale(run: Runs, tmp_path: Path) -> None:
    """Their record is UTF-8, and read as that."""
    folder = tmp_path / "01_eda"
    record.Record("key", True, 1.0, {"data": "/Zellkultur-Präparate"}).save(folder)
    code = f"from kitlib.stages import record; print(record.read(record.Path({str(folder)!r})))"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert "Zellkultur-Präparate" in done.stdout.decode()


def test_results_whose_record_is_damaged_stay(run: Runs) -> None:
    (run.out / EDA).mkdir(parents=True)
    (run.out / EDA / "stage.json").write_bytes(b'{"key": "\xff')
    with pytest.raises(KitError, match=r"stage\.json is not whole JSON"):
        run(last=EDA)
    assert list((run.out / EDA).iterdir()) == [run.out / EDA / "stage.json"]


def test_a_second_run_into_the_same_folder_is_refused_and_changes_nothing(run: Runs) -> None:
    run(last=EDA)
    before = sorted(run.out.rglob("*"))
    command = [sys.executable, "-c", HOLD, str(run.out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(KitError, match=rf"in use by the run 'another' \(process {other.pid} "):
            run("01.seed=20", last=EDA)
        assert sorted(run.out.rglob("*")) == before
        other.kill()
    assert "skipped" in run(last=EDA)[0]


def test_the_machine_is_checked_before_the_first_stage_that_runs(run: Runs) -> None:
    if drivers.may_have_gpus():
        pytest.skip("there is a GPU driver")
    with pytest.raises(KitError, match="8 GPUs are asked for but this machine has 0"):
        run("02.gpus=8")
    assert not run.out.exists()
    run(last=EDA)
    assert "skipped" in run("02.gpus=8", last=EDA)[0]


# ---------------------------------------------------------------------------------------- failures


def failure(run: Runs, code: str) -> str:
    run.do(EDA, code)
    with pytest.raises(KitError) as caught:
        run()
    assert not (run.out / PRETRAIN).exists()
    assert (run.out / EDA / "history.txt").is_file()
    assert not record.read(run.out / EDA).done
    return str(caught.value)


def test_a_mendable_error_is_its_own_sentence(run: Runs) -> None:
    """And stands so in the executed notebook, without a traceback."""
    code = "from kitlib.stages.notebooks import quiet_errors; quiet_errors()"
    code += "; from kitlib.masks.rle import parse; parse('1 2 3', 4, 5)"
    assert failure(run, code) == "01_eda: 3 numbers, an odd count; every start needs a length"
    executed = nbformat.read(run.out / EDA / "01_eda.ipynb", as_version=4)
    (error,) = [o for c in executed.cells for o in c.get("outputs", ()) if o.output_type == "error"]
    assert (error.ename, len(error.traceback)) == ("RleError", 1)
    assert "3 numbers, an odd count" in error.traceback[0]


def test_any_other_error_says_where_to_look(run: Runs) -> None:
    executed = run.out / EDA / "01_eda.ipynb"
    assert failure(run, "1/0") == (
        f"01_eda failed: ZeroDivisionError: division by zero (the executed notebook shows where: {executed})"
    )
    assert "division by zero" in executed.with_suffix(".html").read_text()


def test_a_notebook_that_leaves_no_metrics_has_not_finished(run: Runs) -> None:
    path = run.notebooks / "01_eda.ipynb"
    path.write_text(path.read_text().replace("metrics.json", "other.json"))
    with pytest.raises(KitError, match=r"01_eda/metrics\.json does not exist"):
        run(last=EDA)
    assert not record.read(run.out / EDA).done


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_closed_folder_is_named(run: Runs) -> None:
    run.out.mkdir(mode=0o500)
    with pytest.raises(
        KitError, match="the folder is not writable; change its permissions or choose another"
    ):
        run()


def test_a_file_in_the_place_of_the_folder_is_named(run: Runs) -> None:
    run.out.write_text("in the way")
    with pytest.raises(KitError, match=r"cannot write .*/out: "):
        run()
    assert run.out.read_text() == "in the way"
