"""Progress files that are followed while they grow, and the bar that shows their rows."""

from kitlib.runtime.progress import Bar, follow


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
