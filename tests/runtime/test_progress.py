"""Progress files that are followed while they grow, and the bar that shows their rows."""

import io
import os
import pty
from contextlib import redirect_stdout

from kitlib.runtime.progress import Bar, PlainLines, follow, for_bars


def test_following_a_file_that_grows_and_is_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = follow(path)
    next(rows)
    assert next(rows) == []  # not there yet
    path.write_text('{"iteration": 1}\n{"iteration": 2}\n{"itera')
    assert [r["iteration"] for r in next(rows)] == [1, 2]
    with path.open("a") as file:
        file.write('tion": 3}\n')
    assert next(rows) == [{"iteration": 3}]
    path.write_text('{"iteration": 1}\n')  # cut back by a resumed run
    assert next(rows) == []
    with path.open("a") as file:
        file.write('{"iteration": 2}\n')
    assert next(rows) == [{"iteration": 2}]


def test_the_bar_follows_the_rows_and_shows_notes(capsys):
    with Bar(10, "train") as bar:
        bar({"iteration": 4, "total_loss": 0.51234, "seconds": 1.0})
        bar({"iteration": 4, "note": "skipped a step"})
        bar({"iteration": 3})  # a resumed run starts a little before
        assert bar.bar.n == 3
        assert bar.latest == {"total_loss": "0.512"}
    assert "skipped a step" in capsys.readouterr().out


def test_notes_and_values_of_several_jobs_say_whose_they_are(capsys):
    with Bar(20, "fold_0, fold_1") as bar:
        bar({"iteration": 1, "total_loss": 0.5, "map": 0.2}, "fold_0")
        assert bar.bar.postfix == "fold_0: total_loss=0.5, map=0.2"
        bar({"iteration": 2, "total_loss": 0.9}, "fold_1")
        assert bar.bar.postfix == "fold_1: total_loss=0.9"
        bar({"iteration": 3, "total_loss": 0.4}, "fold_0")
        assert bar.bar.postfix == "fold_0: total_loss=0.4, map=0.2"
        bar({"iteration": 3, "note": "a step skipped"}, "fold_1")
    assert "fold_1: a step skipped" in capsys.readouterr().out


def plain(*texts: str, seconds: float) -> list[str]:
    """The lines of a log that these texts leave."""
    log = io.StringIO()
    stream = PlainLines(log, seconds)
    for text in texts:
        stream.write(text)
    assert "\r" not in log.getvalue()
    return log.getvalue().splitlines()


def test_a_log_has_the_first_and_the_last_state_of_a_bar():
    assert plain("\r10%", "\r20%", "\r30%\n", seconds=3600) == ["10%", "30%"]


def test_a_log_has_every_state_that_stood_long_enough():
    assert plain("\r10%", "\r20%", "\r30%\n", seconds=0) == ["10%", "20%", "30%"]


def test_other_lines_of_a_log_stay_as_they_are():
    assert plain("a\nb", "c\n", "\n", "\r     \rnote\n", seconds=3600) == ["a", "bc", "", "note"]


def test_a_real_bar_in_a_log():
    log = io.StringIO()
    with redirect_stdout(log), Bar(3, "train") as bar:
        for number in range(4):
            bar({"iteration": number, "total_loss": 0.5})
    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue()
    assert lines[-1].startswith("train: 100%")
    assert "3/3" in lines[-1]


def test_a_terminal_redraws_its_bar():
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as terminal:
        assert for_bars(terminal) is terminal
    os.close(parent)
    assert isinstance(for_bars(io.StringIO()), PlainLines)
