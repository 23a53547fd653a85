"""The command kit: what it prints, where, and with which exit status."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result
from PIL import Image

from kitlib.cli import kit
from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.records import Cell, Frame


def square(x: int, y: int, side: int = 10) -> rle.RLE:
    return rle.from_runs([(y + row) * 40 + x for row in range(side)], [side] * side, 30, 40)


def frame(name: str, category: str, *corners: tuple[int, int]) -> Frame:
    return Frame(name, None, 30, 40, tuple(Cell(square(*c), category) for c in corners), category)


TRUTH = [frame("0030e5", "cort", (0, 0), (20, 0)), frame("1e12", "astro", (5, 5))]
#: One cell as it is, one moved by two (IoU 80 / 120 = 2/3: 4 of 10 thresholds), one far off.
FOUND = [frame("0030e5", "cort", (0, 0), (22, 0)), frame("1e12", "astro", (25, 15))]
#: Of the first image: at 4 thresholds 2 / 2, at 6 thresholds 1 / 3.
BY_IMAGE = {"0030e5": (4 + 6 / 3) / 10, "1e12": 0.0}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return tables.write_annotations(tmp_path / "truth.csv", TRUTH)


@pytest.fixture
def found(tmp_path: Path) -> Path:
    return tables.write_predictions(tmp_path / "found.csv", FOUND)


def call(*arguments: object) -> Result:
    """Run kit in this process; errors that are not click's own come through."""
    return CliRunner().invoke(kit, [str(a) for a in arguments], catch_exceptions=False)


def command(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Run kit as users do, in a process of its own."""
    line = [sys.executable, "-m", "kitlib.cli", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)


# ------------------------------------------------------------------------------------------- score


def column(text: str, name: str) -> dict[str, str]:
    """A column of a printed table, by the first one."""
    head, *rows = [re.split(r"\s{2,}", line) for line in text.split("\n\n")[-1].splitlines()]
    return {row[0]: row[head.index(name)] for row in rows if row[0]}


def test_score_by_hand(truth: Path, found: Path) -> None:
    text = call("score", truth, found).stdout
    assert text.splitlines()[0].split() == ["astro", "cort", "all"]
    shown = column(text, "all")
    assert shown["the competition's metric"] == "0.3000"
    assert (shown["images"], shown["true cells"], shown["predicted cells"]) == ("2", "3", "3")
    assert (shown["precision, IoU 0.50"], shown["AP, IoU 0.50"]) == ("0.6667", "0.5000")
    assert shown["COCO AP, IoU 0.50"] == "-"
    assert column(text, "cort")["the competition's metric"] == "0.6000"
    assert column(text, "astro")["panoptic quality PQ"] == "0.0000"


def test_score_by_image(truth: Path, found: Path) -> None:
    text = call("score", truth, found, "--by", "image").stdout
    assert column(text, "metric") == {name: f"{value:.4f}" for name, value in BY_IMAGE.items()}
    assert column(text, "true") == {"0030e5": "2", "1e12": "1"}


def test_score_by_threshold(truth: Path, found: Path) -> None:
    text = call("score", truth, found, "--by", "threshold").stdout
    assert list(column(text, "tp").values()) == ["2"] * 4 + ["1"] * 6
    assert list(column(text, "ap").values()) == ["0.5000"] * 4 + ["0.2000"] * 6


def test_score_as_one_json_object(truth: Path, found: Path, tmp_path: Path) -> None:
    values = json.loads(call("score", truth, found, "--json", "--out", tmp_path / "out.json").stdout)
    assert values == json.loads((tmp_path / "out.json").read_text())
    assert values["map"] == values["all"]["map"] == pytest.approx(0.3)
    assert {name: image["map"] for name, image in values["by_image"].items()} == pytest.approx(BY_IMAGE)
    by_type = {name: quality["map"] for name, quality in values["by_type"].items()}
    assert by_type == pytest.approx({"astro": 0, "cort": 0.6})
    assert (values["notes"], values["unpredicted"]) == ([], [])
    rates = values["all"]["rates"][0]
    assert [rates[name] for name in ("threshold", "tp", "fp", "fn")] == [0.5, 2, 1, 1]


def test_score_as_csv(truth: Path, found: Path, tmp_path: Path) -> None:
    call("score", truth, found, "--out", tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [(row["of"], row["name"]) for row in rows] == [
        *(("all", ""), ("type", "astro"), ("type", "cort"), ("image", "0030e5"), ("image", "1e12"))
    ]
    assert [float(row["map"]) for row in rows] == pytest.approx([0.3, 0, 0.6, 0.6, 0])
    assert (rows[0]["tp_0.50"], rows[0]["fp_0.95"], rows[0]["coco_ap"]) == ("2", "2", "")
    with pytest.raises(KitError, match=r"out\.txt must end in \.json or \.csv"):
        call("score", truth, found, "--out", tmp_path / "out.txt")


def test_a_submission_is_scored_at_the_size_of_the_truth(truth: Path, tmp_path: Path) -> None:
    rows = [f"{f.id},{rle.to_text(c.mask)}" for f in TRUTH for c in f.cells]
    (tmp_path / "submission.csv").write_text("\n".join(["id,predicted", *rows]))
    text = call("score", truth, tmp_path / "submission.csv").stdout
    assert column(text, "all")["the competition's metric"] == "1.0000"


def test_an_image_without_predictions_is_said_and_left_out_on_demand(truth: Path, tmp_path: Path) -> None:
    found = tmp_path / "submission.csv"
    found.write_text(f"id,predicted\n0030e5,{rle.to_text(TRUTH[0].cells[0].mask)}\n")
    every = call("score", truth, found).stdout
    assert every.startswith(
        "1 of 2 images have no predictions: all their cells count as missed; --predicted-only"
    )
    assert column(every, "all")["the competition's metric"] == "0.2500"
    some = call("score", truth, found, "--predicted-only").stdout
    assert some.startswith("1 of 2 images have no predictions: they are left out\n")
    assert column(some, "all")["the competition's metric"] == "0.5000"


def test_predictions_of_another_size_are_refused(truth: Path, tmp_path: Path) -> None:
    found = tables.write_predictions(tmp_path / "found.csv", [Frame("1e12", None, 40, 30)])
    with pytest.raises(KitError, match="image '1e12' are of a frame 30 wide, 40 high"):
        call("score", truth, found)


# ------------------------------------------------------------------------------------------- check


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "cells"
    result = call("synth", folder, "--images", 6, "--size", "64x80", "--seed", 3)
    assert result.stdout.strip() == str(folder)
    return folder


@pytest.fixture
def submission(synthetic: Path, tmp_path: Path) -> Path:
    ids = (synthetic / "sample_submission.csv").read_text().splitlines()[1:]
    path = tmp_path / "submission.csv"
    path.write_text("\n".join(["id,predicted", *(f"{line.split(',')[0]},1 2" for line in ids)]) + "\n")
    return path


def test_a_sound_submission_passes(synthetic: Path, submission: Path) -> None:
    result = call("check", submission, "--data", synthetic)
    assert (result.exit_code, result.stdout) == (0, f"{submission}: valid\n")


def test_every_problem_is_a_line_and_the_exit_status_is_one(synthetic: Path, submission: Path) -> None:
    lines = submission.read_text().splitlines()
    first, second, last = lines[1].split(",")[0], lines[2].split(",")[0], lines.pop().split(",")[0]
    lines[1:3] = [f"{first},1 2 3", f"{second}.png,5 2"]
    submission.write_text("\n".join([*lines, "who,1 1"]) + "\n")
    done = command("check", submission, "--data", synthetic)
    assert done.returncode == 1
    problems = done.stdout.splitlines()
    assert problems[0].startswith("row 2: ")
    assert "odd count" in problems[0]
    assert problems[1] == f"row 3: id '{second}.png' has a file extension; write '{second}'"
    assert problems[2] == f"row {len(lines) + 1}: 'who' is not a test image; delete it"
    assert problems[3].startswith(f"image {last} has no row; add")
    assert done.stderr == f"{submission}: 4 problems\n"


def test_check_without_submission_or_data(synthetic: Path, submission: Path, tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"nowhere\.csv"):
        call("check", tmp_path / "nowhere.csv", "--data", synthetic)
    with pytest.raises(KitError, match="nowhere"):
        call("check", submission, "--data", tmp_path / "nowhere")
    assert call("check", submission).exit_code == 2
    assert "Missing option '--data'" in call("check", submission).output


# ------------------------------------------------------------------------------------------- synth


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_seed_gives_the_same_bytes(synthetic: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert command("synth", again, "--images", 6, "--size", "64X80", "--seed", 3).returncode == 0
    assert contents(again) == contents(synthetic)


def test_a_folder_that_is_there_already_is_left_alone(synthetic: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in synthetic.rglob("*")}
    assert call("synth", synthetic, "--images", 6, "--size", "64x80", "--seed", 3).exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in synthetic.rglob("*")} == before


@pytest.mark.parametrize("size", ["64", "64x", "x64", "64x80x3", "-64x80", "64.5x80", "axb", "", "²x80"])
def test_a_bad_size_is_named_and_nothing_is_made(tmp_path: Path, size: str) -> None:
    with pytest.raises(KitError, match="must look like 256x256"):
        call("synth", tmp_path / "cells", "--size", size)
    assert list(tmp_path.iterdir()) == []


def test_a_share_of_the_published_numbers_is_made(tmp_path: Path) -> None:
    arguments = ("synth", tmp_path / "cells", "--like", "competition", "--share", "0.001", "--size", "64x64")
    lines = call(*arguments).stdout.splitlines()
    assert lines[-1] == str(tmp_path / "cells")
    assert any(line.startswith("livecell_coco_train.json: 4 images") for line in lines)
    assert call(*arguments).stdout.splitlines() == lines[-1:]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--like", "competition", "--images", "24"), "--share instead of --images"),
        (("--share", "0.5"), "give --like competition"),
    ],
)
def test_options_that_exclude_each_other_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(KitError, match=words):
        call("synth", tmp_path / "cells", *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("--images", "0"), ("--size", "1x1"), ("--images", "-3")])
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, arguments: tuple[str, str]) -> None:
    with pytest.raises(KitError):
        call("synth", tmp_path / "cells", *arguments)
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------- run


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--profile", "dmeo"], "unknown profile 'dmeo': did you mean 'demo'?"),
        (["--from", "3_train"], "unknown stage '3_train': did you mean '03_train'?"),
        (["--to", "0"], "stage '0' may be any of 01_eda"),
        (["--from", "05", "--to", "03"], "--from 05_retrain comes after --to 03_train; exchange them"),
        (["--from", "03"], "03_train needs the results of 02_pretrain_livecell"),
        (
            ["--set", "03.max_itre=3"],
            "unknown parameter of 03_train: 'max_itre': did you mean 'max_iter'?",
        ),
        (["--set", "03.max_iter=many"], "03_train.max_iter must be a whole number, not 'many'"),
        (["--data", "DATA/nowhere"], "nowhere"),
    ],
)
def test_a_run_that_cannot_be_is_refused_at_once(
    synthetic: Path, tmp_path: Path, arguments: list[str], problem: str
) -> None:
    options = {"--data": str(synthetic), "--out": str(tmp_path / "out")}
    for option, value in zip(arguments[0::2], arguments[1::2], strict=True):
        options[option] = value.replace("DATA", str(tmp_path))
    with pytest.raises(KitError, match=problem.replace("?", r"\?")):
        call("run", *(part for option in options.items() for part in option))
    assert list(tmp_path.iterdir()) == []


def test_the_parameters_of_a_stage_are_listed() -> None:
    lines = call("run", "--help-parameters", "06").stdout.splitlines()
    assert lines[0].split() == ["06_submit", "default", "affects", "type", "and", "bounds"]
    assert any(line.startswith("hours ") for line in lines)
    assert "--help-parameters" in call("run", "--help").stdout
    everything = call("run", "--help-parameters", "all").stdout
    assert "01_eda" in everything
    assert "\n05_retrain " in everything
    with pytest.raises(KitError, match="unknown stage '7'"):
        call("run", "--help-parameters", "7")


def test_a_name_that_is_no_utf8_is_named_and_nothing_is_made(synthetic: Path, tmp_path: Path) -> None:
    folder = os.fsdecode(bytes(tmp_path) + b"/caf\xe9")
    for option in ("--out", "--data"):
        done = command("run", option, folder)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert r"caf\xe9" in done.stderr
    done = command("run", "--set", f"03.weights={folder}")
    assert done.stderr.endswith("has bytes that are no UTF-8; rename that file or folder\n")
    assert list(tmp_path.iterdir()) == []


def test_the_home_of_an_unknown_user_is_named() -> None:
    with pytest.raises(
        KitError, match="~nobody-here/out: there is no such user's home folder; write the whole"
    ):
        call("run", "--data", "~nobody-here/out")


def test_files_are_utf8_in_any_locale(tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    folder = tmp_path / "Präparate 細胞"
    done = command("synth", folder, "--images", 3, "--size", "64x80", env=environment, encoding="utf-8")
    assert (done.returncode, done.stdout) == (0, f"{folder}\n")
    assert (folder / "train.csv").is_file()
    done = command("run", "--data", tmp_path / "Zürich", env=environment, encoding="utf-8")
    assert done.stderr.startswith(f"error: {tmp_path / 'Zürich'} is not a folder")


# --------------------------------------------------------------------------------- as a process


def test_an_error_is_one_sentence_on_stderr(truth: Path, tmp_path: Path) -> None:
    done = command("score", truth, tmp_path / "nowhere.csv", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {tmp_path / 'nowhere.csv'} does not exist\n"


def test_json_is_all_that_is_on_stdout(truth: Path, found: Path) -> None:
    done = command("score", truth, found, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["map"] == pytest.approx(0.3)


def test_a_closed_pipe_is_no_error(truth: Path, found: Path) -> None:
    line = f"'{sys.executable}' -m kitlib.cli score '{truth}' '{found}' --by threshold | true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_the_command_is_installed(truth: Path) -> None:
    program = shutil.which("kit", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("kit is not installed beside this Python")
    done = subprocess.run([program, "score", truth, truth], capture_output=True, text=True, check=False)
    assert column(done.stdout, "all")["the competition's metric"] == "1.0000"


@pytest.mark.parametrize("name", ["score", "check", "synth", "run"])
def test_every_command_has_help(name: str) -> None:
    assert name in call("--help").output
    assert call(name, "-h").exit_code == 0


def test_the_command_starts_without_what_is_slow_to_import(truth: Path, found: Path) -> None:
    """torch takes seconds to import; a score must take less in all."""
    code = (
        "import sys; sys.argv = ['kit', 'score', *sys.argv[1:]]\n"
        "from kitlib.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "slow = {'torch', 'pandas', 'matplotlib', 'scipy', 'skimage', 'cv2', 'PIL', 'papermill', 'IPython'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, truth, found], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# ----------------------------------------------------------------------------------------- predict


def test_help_of_predict_names_every_format() -> None:
    from kitlib.export import FORMATS

    text = " ".join(call("predict", "--help").output.split())
    assert [name for name in FORMATS if f"{name}: " not in text] == []
    assert "predict" in call("--help").output


def test_predict_says_what_it_left_out_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kitlib.stages import segment

    given = []

    def instead(recipe, found, out, formats, gpus, pixel_size):
        given.append(([image.frame.id for image in found], out, formats, gpus, pixel_size))
        return segment.Segmented(2, 1234, 1, 1, {"b": "too dark"} if len(found) > 2 else {})

    monkeypatch.setattr(segment, "segment", instead)
    for name in "abc":
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "weights.pth").write_bytes(b"")
    line = ["predict", tmp_path / "weights.pth", "--out", tmp_path / "out", "--pixel-size", 0.5]
    done = call(*line, "--format", "labels, rois", "--gpus", 0, tmp_path)
    assert done.exit_code == 1
    assert "left out: b: too dark" in done.output
    assert "images at the limit of 100,000 instances: 1" in done.output
    assert f"{tmp_path / 'out'}: 2 images, 1 of them finished before, 1,234 cells" in done.output
    assert call(*line, tmp_path / "a.png").exit_code == 0
    assert given == [
        (["a", "b", "c"], tmp_path / "out", ("labels", "rois"), 0, 0.5),
        (["a"], tmp_path / "out", None, -1, 0.5),
    ]
    # Of two channels in three planes.
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((3, 2, 8, 8), np.uint8), imagej=True)
    call(*line, "--channel", "1", "--projection", "max", tmp_path / "s.tif")
    call(*line, "--channel", "grey", tmp_path / "s.tif")
    assert [ids for ids, *_ in given[2:]] == [["s"], ["s_p0000", "s_p0001", "s_p0002"]]
    assert "neither a number from 0 nor grey" in call(*line, "--channel", "red", tmp_path).output
    (tmp_path / "c.png").write_bytes(b"")
    with pytest.raises(KitError, match=r"not one image can be read; .*c\.png"):
        call(*line, tmp_path / "c.png")
    with pytest.raises(KitError, match="did you mean 'rois'"):
        call(*line, "--format", "roi", tmp_path)
