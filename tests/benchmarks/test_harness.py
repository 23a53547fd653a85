"""The harness: ratios and bars by hand, races and memory for real, the runner on a small folder."""

import json
import math
import time

import harness
import pytest
import run
from harness import Row, Skip, peak_mib, race, seconds

from kitlib.errors import KitError


@pytest.mark.parametrize(
    ("row", "ratio", "met"),
    [
        (Row("r", "w", ours=2.0, peer=10.0, bar=5), 5.0, True),  # exactly at the bar
        (Row("r", "w", ours=2.0, peer=10.0, bar=5.1), 5.0, False),
        (Row("r", "w", ours=2.0, peer=10.0), 5.0, None),  # nothing was promised
        (Row("r", "w", ours=10.0, peer=2.0, unit="images/s", better="higher", bar=5), 5.0, True),
        (Row("r", "w", ours=3.0, peer=6.0, better="higher", bar=1), 0.5, False),
        (Row("r", "w", ours=2.9, bar=3), None, True),  # a limit of its own
        (Row("r", "w", ours=3.1, bar=3), None, False),
        (Row("r", "w", ours=0.39, unit="mAP", better="higher", bar=0.4), None, False),
        (Row("r", "w", ours=0.0, peer=1.0, bar=10), math.inf, True),
    ],
)
def test_ratio_and_bar(row, ratio, met):
    assert row.ratio == ratio
    assert row.met is met


def test_better_is_lower_or_higher():
    with pytest.raises(ValueError, match="'faster'"):
        Row("r", "w", 1.0, better="faster")


def test_race_takes_turns_after_a_round_that_does_not_count():
    order = []
    race(lambda: order.append("ours"), lambda: order.append("peer"), rounds=3)
    assert order == ["ours", "peer"] * 4


def test_seconds_is_the_best_round():
    waits = iter([0.0, 0.2, 0.01, 0.2])
    assert 0.01 <= seconds(lambda: time.sleep(next(waits)), rounds=3) < 0.15


def allocate():
    held = bytearray(64 << 20)
    return lambda: held.count(1) + len(bytearray(32 << 20))


def allocate_and_fail():
    raise ValueError("no input here")


def test_peak_memory_counts_the_work_and_not_what_was_held():
    assert 30 < peak_mib(allocate) < 40  # the kernel counts pages in lots


def test_peak_memory_tells_what_failed():
    with pytest.raises(RuntimeError, match=r"(?s)allocate_and_fail failed.*no input here"):
        peak_mib(allocate_and_fail)


def test_real_data_is_skipped_where_it_is_not_named(monkeypatch):
    monkeypatch.delenv("KIT_REAL_DATA", raising=False)
    with pytest.raises(Skip, match="KIT_REAL_DATA"):
        harness.real_data()


BENCHES = {
    "good_x": "from harness import Row\ndef rows():\n    yield Row('fast', '3 cells', 1.0, 4.0, bar=3)\n",
    "slow_x": "from harness import Row\ndef rows():\n    yield Row('slow', '3 cells', 1.0, 2.0, bar=3)\n",
    "absent_x": "from harness import Skip\ndef rows():\n    raise Skip('no data')\n    yield\n",
    "broken_x": "from harness import Row\ndef rows():\n    yield Row('half', 'w', 1.0)\n    1 / 0\n",
}


@pytest.fixture
def benches(tmp_path, monkeypatch):
    for name, text in BENCHES.items():
        (tmp_path / f"bench_{name}.py").write_text(text)
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_runner_writes_what_it_prints(benches, capsys):
    assert run.main(["good_x", "absent_x"], benches / "out" / "bench.json") == 0
    written = json.loads((benches / "out" / "bench.json").read_text())
    (row,) = written["rows"]
    assert row.items() >= {"name": "fast", "work": "3 cells", "ours": 1.0, "peer": 4.0}.items()
    assert row.items() >= {"ratio": 4.0, "bar": 3, "met": True}.items()
    assert written["machine"]["cores"] >= 1
    printed = capsys.readouterr().out
    assert "absent_x: skipped: no data" in printed
    assert "below their bar: none" in printed


def test_runner_keeps_the_figures_when_a_bar_is_missed_or_a_benchmark_breaks(benches, capsys):
    assert run.main([], benches / "bench.json") == 1
    written = json.loads((benches / "bench.json").read_text())
    assert sorted(row["name"] for row in written["rows"]) == ["fast", "half", "slow"]
    assert written["failed"] == ["broken_x"]
    assert "below their bar: slow" in capsys.readouterr().out


def test_runner_suggests_the_nearest_name(benches):
    with pytest.raises(KitError, match="did you mean 'good_x'"):
        run.main(["god_x"], benches / "bench.json")
