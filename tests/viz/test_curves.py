"""Learning curves from the rows that a training writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kitlib import viz


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """400 iterations of three cascade stages, evaluated four times."""
    rng, path = np.random.default_rng(0), tmp_path / "metrics.jsonl"
    with path.open("w") as out:
        for iteration in range(1, 401):
            level = 3 * np.exp(-iteration / 80) + 0.5 + rng.normal(0, 0.1)
            losses = {f"loss_{part}": level * share for part, share in SHARES.items()}
            row = {"iteration": iteration, "total_loss": sum(losses.values()), **losses, "lr": 1e-3}
            out.write(json.dumps(row) + "\n")
            if iteration % 100 == 0:
                value = 1 - np.exp(-iteration / 150)
                out.write(json.dumps({"iteration": iteration, "map": value / 2, "map/cort": value}) + "\n")
    return path


SHARES = {
    **{"rpn_cls": 0.3, "rpn_loc": 0.1, "cls_stage0": 0.4, "cls_stage1": 0.3, "box_reg_stage0": 0.4},
    **{"mask_stage0": 1.0, "mask_stage1": 0.45, "mask_stage2": 0.2},
}


def labelled(axes) -> dict:
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def test_the_parts_of_the_loss_add_up_over_stages(drawn, metrics: Path) -> None:
    total, parts, maps = drawn(viz.learning_curves(metrics)).axes
    lines = labelled(parts)
    assert list(lines) == ["rpn", "cls", "box", "mask"]
    share = {name: line.get_ydata()[200:].mean() for name, line in lines.items()}
    assert share["mask"] / share["rpn"] == pytest.approx(1.65 / 0.4, rel=1e-3)
    assert share["cls"] / share["box"] == pytest.approx(0.7 / 0.4, rel=1e-3)
    assert len(labelled(total)["total loss"].get_xdata()) == 400
    assert labelled(maps)["all"].get_xdata().tolist() == [100, 200, 300, 400]
    assert labelled(maps)["cort"].get_ydata()[-1] == pytest.approx(1 - np.exp(-400 / 150))


def test_phases_follow_each_other_on_one_axis(drawn, metrics: Path) -> None:
    total, _, maps = drawn(viz.learning_curves(metrics, metrics)).axes
    assert labelled(total)["total loss"].get_xdata().tolist() == list(range(1, 801))
    assert labelled(maps)["all"].get_xdata().tolist() == list(range(100, 801, 100))
    marks = [line for line in total.lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in marks] == [400]
    assert [text.get_text().strip() for text in total.texts] == ["phase 1"]


def test_the_mask_loss_has_a_line_a_stage_and_all_are_in_view(drawn, metrics: Path) -> None:
    (axes,) = drawn(viz.mask_loss(metrics)).axes
    lines = labelled(axes)
    assert list(lines) == ["stage 1", "stage 2", "stage 3"]
    highest = max(line.get_ydata()[4:].max() for line in lines.values())  # but for the very first
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] >= highest


def test_a_spike_does_not_press_the_rest_down(drawn, tmp_path: Path) -> None:
    losses = [1000.0, *[1.0] * 199]
    rows = [json.dumps({"iteration": n, "total_loss": loss}) for n, loss in enumerate(losses, 1)]
    (tmp_path / "m.jsonl").write_text("\n".join(rows))
    axes = drawn(viz.learning_curves(tmp_path / "m.jsonl")).axes[0]
    assert axes.get_ylim()[1] < 30


@pytest.mark.parametrize(
    ("rows", "panels"),
    [
        ([{"iteration": 1, "total_loss": 2.0, "loss_mask": 1.0}], 2),
        ([{"iteration": 1, "total_loss": 2.0}, {"iteration": 1, "map": 0.0, "map/cort": 0.0}], 3),
        ([{"iteration": 1, "total_loss": 2.0, "map": None}, {"iteration": 2, "total_loss": None}], 2),
    ],
    ids=["one iteration", "one evaluation", "a step that was skipped"],
)
def test_short_trainings_are_drawn(drawn, tmp_path: Path, rows: list[dict], panels: int) -> None:
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert len(drawn(viz.learning_curves(tmp_path / "m.jsonl")).axes) == panels
    drawn(viz.mask_loss(tmp_path / "m.jsonl"))


def test_one_mask_head_is_named_plainly(drawn, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"iteration": 1, "total_loss": 2.0, "loss_mask": 1.0}\n')
    assert list(labelled(drawn(viz.mask_loss(tmp_path / "m.jsonl")).axes[0])) == ["mask loss"]


def test_the_schedule_is_drawn_iteration_by_iteration(drawn) -> None:
    rates = [1e-3, 5e-4, 1e-5]
    (axes,) = drawn(viz.schedule(rates)).axes
    assert axes.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert axes.lines[0].get_ydata().tolist() == rates
    drawn(viz.schedule([]))


def test_one_evaluation_is_bars_and_a_sentence_says_what_is_normal(drawn, tmp_path: Path) -> None:
    rows = [{"iteration": n, "total_loss": 2.0, "loss_mask": 1.0} for n in (1, 2, 3)]
    rows.append({"iteration": 3, "map": 0.25, "map/cort": 0.3, "map/astro": 0.2})
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    figure = drawn(viz.learning_curves(tmp_path / "m.jsonl"))
    last = figure.axes[2]
    assert [bar.get_height() for bar in last.patches] == pytest.approx([0.2, 0.3, 0.25])
    assert [text.get_text() for text in last.get_xticklabels()] == ["astro", "cort", "all"]
    assert last.get_title(loc="left") == "Score before tuning, iteration 3"
    assert "may rise while the model improves" in " ".join(figure.get_supxlabel().split())


def test_losses_of_runs_share_an_axis() -> None:
    first = pd.DataFrame({"iteration": [1, 2], "total_loss": [3.0, 2.0], "loss_mask_stage0": [1.0, 0.5]})
    second = first.assign(loss_mask_stage1=[0.25, None])
    total, masks = viz.curves.losses_of_runs({"demo": first, "mine": second}).axes
    drawn = {line.get_label(): line.get_ydata().tolist() for line in masks.get_lines()}
    assert drawn["demo"] == [1.0, 0.5]
    assert drawn["mine"] == [1.25, 0.5]
    assert [text.get_text() for text in total.get_legend().get_texts()] == ["demo", "mine"]
