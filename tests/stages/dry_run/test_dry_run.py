"""A forecast: what stages do, what they take by hand, what does not fit, and the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kitlib import cli, stages
from kitlib.data import dataset, proposals, synthetic
from kitlib.errors import KitError
from kitlib.forecast.job import Figures
from kitlib.stages.dry_run import checks, costs, page, result, run, work
from kitlib.stages.notebooks import STAGES

#: A step of one second for what a process trains on, half a second a frame, ten images a core and second.
FIGURES = Figures(1.0, 9.0, 0.5, 3.0, 10.0, 0.2, 2.0, 400_000_000, 300_000_000, 5.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.ensure(tmp_path_factory.mktemp("data"), images=10, size=(64, 64))


def works_of(data: Path, profile: str, *settings: str) -> dict[str, work.StageWork]:
    plan = stages.plan(profile, settings)
    found = work.of_stages(plan, dataset.open_folder(data), STAGES, (), livecell=True)
    return {one.stage: one for one in found}


def machine(devices: int = 8, card: str = "A100") -> Any:
    return costs.Machine(devices, card)


def test_trainings_and_predictions_of_each_stage(data: Path) -> None:
    """Five folds of 2 of 10 images; gold evaluates ten times, and predicts once more to tune."""
    found = works_of(data, "gold")
    unlabelled, test = (len(getattr(dataset.open_folder(data), name)) for name in ("unlabelled", "test"))
    assert list(found) == list(STAGES[1:])
    assert (found["02_pretrain_livecell"].trainings, found["02_pretrain_livecell"].iterations) == (1, 30_000)
    assert found["02_pretrain_livecell"].predictions == 0
    for stage in ("03_train", "05_retrain"):
        assert (found[stage].trainings, found[stage].iterations) == (5, 10_000)
        assert found[stage].predictions == 5 * (10 + 1) * 2
    assert found["04_pseudolabel"].predictions == 5 * unlabelled
    assert found["06_submit"].predictions == 5 * test
    assert found["02_pretrain_livecell"].training.categories == ("cell",)


def test_phases_are_works_of_their_own(data: Path) -> None:
    """One fold of 2 images. Each phase is evaluated at its end, and after the last one two models predict."""
    phases = "05.phases=[{max_iter: 9}, {max_iter: 5, augment: {crop: [64, 64]}}]"
    settings = [phases, "05.ensemble_phases=2", "05.finetune_iter=3", "03.phases=[{}, {}]"]
    plan = stages.plan("demo", settings)
    found = work.of_stages(plan, dataset.open_folder(data), STAGES, (), livecell=False)
    works = {one.name: one for one in found}
    first, last = works["05_retrain phase 0"], works["05_retrain phase 1"]
    assert (first.iterations, first.predictions, first.frames) == (9, 2, 0)
    assert (last.iterations, last.predictions, last.frames) == (5 + 3, (1 + 2) * 2, 2)
    assert (first.training.augment.crop, last.training.augment.crop) == ((192, 192), (64, 64))
    assert works["03_train phase 1"].iterations == 320
    evaluated = stages.plan("demo", [*settings, "05.eval_every=4"])
    found = work.of_stages(evaluated, dataset.open_folder(data), ("05_retrain",), (), livecell=False)
    assert [one.predictions for one in found] == [3 * 2, (2 + 2) * 2]
    row = machine().stage(last, FIGURES, 100, 50.0, 0.0)
    assert (row.stage, row.trained) == ("05_retrain phase 1", "8 x 2")


def test_what_settings_change(data: Path) -> None:
    found = works_of(
        data, "paper", "05.finetune_iter=100", "03.eval_every=2000", "04.predict_config.tta=[none, flip_h]"
    )
    assert found["03_train"].predictions == (3 + 1) * 2
    assert found["05_retrain"].iterations == 5100
    assert found["04_pseudolabel"].training.predict.tta == ("none", "flip_h")
    assert found["03_train"].training.predict.tta == ("none",)


def test_own_cells_decide_what_is_left_to_them(data: Path) -> None:
    """05 takes the crop of 03, whose cells decide, and keeps the scale that it was given."""
    settings = ["03.augment.scale=[1.1, 1.3]", "05.augment.scale=[0.7, 0.9]"]
    plan, found = stages.plan("demo", settings, own_data=True), dataset.open_folder(data)
    works = {w.stage: w for w in work.of_stages(plan, found, STAGES, found.labelled, livecell=False)}
    side = proposals.propose(found.labelled).crop_of(192)
    assert works["03_train"].training.augment.scale == (1.1, 1.3)
    assert works["05_retrain"].training.augment.scale == (0.7, 0.9)
    assert (
        works["03_train"].training.augment.crop == works["05_retrain"].training.augment.crop == (side, side)
    )
    assert "02_pretrain_livecell" not in works


def test_a_stage_takes_its_steps_and_its_predictions(data: Path) -> None:
    """5,000 steps of 1 s and 4 predictions of 0.5 s on 8 GPUs; 16 images/s keep 1.6 cores busy."""
    w = works_of(data, "paper")["03_train"]
    found = machine().stage(w, FIGURES, 100, 50.0, 0.0)
    assert found.hours == pytest.approx((5000 + 4 * 0.5 / 8) / 3600)
    assert (found.limit, found.images_per_second, found.cores) == ("GPU", 16.0, 1.6)
    assert (found.gpu_gib, found.host_gib) == (9.0, pytest.approx(8 * (2.0 + 4 * 0.2)))
    # Two files of weights, and two checkpoints of weights and momentum; two frames of 100 rows of 50 bytes.
    assert found.disk_gb == pytest.approx(0.8 + 2 * (0.4 + 0.3) + 2 * 100 * 50 / 1e9 + 0.05)
    assert found.advice == ()


@pytest.mark.parametrize(
    ("devices", "asked", "rounds", "at_once", "processes"),
    [
        # Five folds on 8 GPUs each, one after the other; two on 4 each; all, and three GPUs idle.
        (8, 1, 5, 1, 8),
        (8, 2, 3, 2, 4),
        (8, 9, 1, 5, 1),
        # Of four GPUs one each; the fifth fold comes afterwards.
        (4, 5, 2, 4, 1),
    ],
)
def test_folds_side_by_side_take_fewer_rounds(
    data: Path, devices: int, asked: int, rounds: int, at_once: int, processes: int
) -> None:
    """The step is what the forecast has for as many processes, here one second for all."""
    w, here = works_of(data, "gold", f"03.folds_at_once={asked}")["03_train"], machine(devices)
    found = here.stage(w, FIGURES, 100, 50.0, 0.0)
    assert (here.at_once(w), here.processes_of(w)) == (at_once, processes)
    iteration = max(1.0, w.training.images_per_batch / (10 * w.training.workers * processes))
    assert found.hours == pytest.approx((rounds * 10_000 * iteration + 110 * 0.5 / devices) / 3600)
    assert found.images_per_second == pytest.approx(at_once * w.training.images_per_batch / iteration)
    workers = at_once * processes
    assert found.host_gib == pytest.approx(max(workers * (2 + 0.2 * w.training.workers), devices * 2))
    assert found.trained.endswith(f", {at_once} at once") == (at_once > 1)


def test_folds_side_by_side_share_the_cores(data: Path) -> None:
    """On the CPU no time is gained; the last of three rounds has one training, on its share of the cores."""
    first, second = (works_of(data, "gold", f"03.folds_at_once={n}")["03_train"] for n in (1, 2))
    one, two = (machine(0, "").stage(w, FIGURES, 100, 50.0, 0.0) for w in (first, second))
    predicting = 110 * 0.5 / 3600
    assert two.hours - predicting == pytest.approx(6 / 5 * (one.hours - predicting))
    assert two.host_gib == 2 * one.host_gib
    assert two.cores == pytest.approx(one.cores)


def test_slow_loading_is_the_limit_and_says_how_many_workers_help(data: Path) -> None:
    """32 workers prepare 9.6 images/s of the 16 that the GPUs take; 7 a process would do."""
    w = works_of(data, "paper")["03_train"]
    found = machine().stage(w, replace(FIGURES, images_per_core_second=0.3), 100, 50.0, 0.0)
    assert found.limit == "loading"
    assert found.images_per_second == pytest.approx(9.6)
    assert found.advice == ("03_train: 4 workers prepare 9.6 images/s of 16.0; --set 03.workers=7",)


@pytest.mark.parametrize(
    ("step_gib", "least_gib", "advice"),
    [
        (39.0, 30.0, ""),
        (45.0, 30.0, "03_train: a step takes 45 GiB of 40; --set 03.accumulate=2 sends"),
        (75.0, 50.0, "03_train: a step takes 75 GiB of 40, and one image alone 50; lower 03.augment.crop"),
    ],
)
def test_too_little_gpu_memory(data: Path, step_gib: float, least_gib: float, advice: str) -> None:
    """paper has two images a GPU."""
    w = works_of(data, "paper")["03_train"]
    figures = replace(FIGURES, step_gib=step_gib, least_gib=least_gib)
    told = " ".join(machine().stage(w, figures, 100, 50.0, 0.0).advice)
    assert told.startswith(advice)
    assert bool(told) == bool(advice)


def test_a_prediction_that_does_not_fit(data: Path) -> None:
    w = works_of(data, "paper")["06_submit"]
    (advice,) = machine().stage(w, replace(FIGURES, frame_gib=41.0), 100, 50.0, 0.0).advice
    assert "06_submit: a prediction takes 41 GiB of 40; lower predict_config.batch" in advice


@pytest.mark.parametrize(
    ("profile", "card", "said"),
    [("paper", "T4", ""), ("gold", "T4", "no bfloat16"), ("gold", "L4", ""), ("gold", "V100", "no bfloat16")],
)
def test_a_card_without_bfloat16_is_noticed(profile: str, card: str, said: str) -> None:
    plan = stages.plan(profile, (), {"gpus": 8})
    found = checks.device(plan, STAGES[1:], card)
    assert found.fine == (not said)
    assert said in found.said


def test_an_unknown_card_is_refused_before_anything_is_counted(data: Path, tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"card.*'A1000'"):
        run.forecast(stages.plan("t4"), data, tmp_path, card="A1000")


def test_a_batch_that_cannot_be_shared_is_noticed() -> None:
    found = checks.device(stages.plan("paper", (), {"gpus": 3}), STAGES[1:], "A100")
    assert not found.fine
    assert "cannot be shared by 3 processes" in found.said


def test_too_little_disk_is_noticed(tmp_path: Path) -> None:
    assert checks.disk(tmp_path / "not" / "there", 0.001).fine
    short = checks.disk(tmp_path, 1e9)
    assert not short.fine
    assert "--out on another disk" in short.said


def test_the_command_calculates_for_a_card(data: Path, tmp_path: Path) -> None:
    """The whole way, with the child process: one page of 98 columns, and the same as JSON."""
    words = ["plan", "--profile", "t4", "--data", str(data), "--card", "T4", "--out", str(tmp_path / "run")]
    words += ["--to", "03"]
    done = CliRunner().invoke(cli.kit, [*words, "--set", "02.preset=tiny", "--set", "03.preset=tiny"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "profile t4 on 1 x T4"
    assert len(lines) < 45
    assert max(map(len, lines[:-1])) <= 98
    assert "Calculated: times and GPU memory" in " ".join(lines)
    document = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert document["calculated_for"] == "T4"
    assert [stage["stage"] for stage in document["stages"]] == list(STAGES[1:3])
    assert all(1.5 < stage["gpu_gib"] < 15 for stage in document["stages"])


def test_the_command_measures_the_device_that_is_here(data: Path, tmp_path: Path) -> None:
    small = ["02", "03"]
    options = [
        f"{s}.model_options={{fpn_channels: 32, roi_batch: 16, rpn_post_nms_topk: [20, 20]}}" for s in small
    ]
    crops = [f"{s}.augment.crop=[64, 64]" for s in ("02", "03", "05")]
    settings = [word for text in (*options, *crops) for word in ("--set", text)]
    words = [
        "run",
        "--dry-run",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
        "--gpus",
        "0",
        *settings,
    ]
    done = CliRunner().invoke(cli.kit, [*words, "--to", "02"])
    assert done.exit_code == 0, done.output
    assert "Measured here: a step and a prediction" in done.output
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["plan.json"]


def test_a_step_that_fails_is_told_as_a_check(data: Path, tmp_path: Path) -> None:
    plan = stages.plan("demo", ["03.augment.scale_by_type={astro: [1.0, 1.0]}"], {"gpus": 0})
    machine_here = machine(0, "")
    found = dataset.open_folder(data)
    no_astro = [frame for frame in found.labelled if frame.category != "astro"]
    works = work.of_stages(plan, found, ["03_train"], (), livecell=False)
    broken = [replace(w, training=replace(w.training, categories=("a", "b", "c"))) for w in works]
    figures, failures = run._figures(broken, no_astro, machine_here, tmp_path)
    assert figures == {}
    assert not failures[0].fine
    assert "scale_by_type" in failures[0].said


def test_the_page_says_what_is_wrong() -> None:
    failed = result.Check("disk", "1 GB free", fine=False)
    found = result.RunForecast(("profile paper on 8 x A100", "data here"), (failed,), (), "A100")
    assert "NO  disk  1 GB free" in page.text(found)
    assert not found.fine
