"""A tiny model's bundle, run as on Kaggle: it passes, and faults of every kind end in a valid submission."""

import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from kitlib import config, files, model
from kitlib.data import competition, synthetic
from kitlib.errors import KitError
from kitlib.kaggle import bundle
from kitlib.kaggle.bundle import Bundle
from kitlib.kaggle.rehearsal import execution, faults, hidden, processes, rehearse, sandbox
from kitlib.post.config import PostConfig, Tuned
from kitlib.runtime import launch
from kitlib.stages.notebooks import NOTEBOOKS
from kitlib.submission import writer

OPTIONS = {"detections": 20, "rpn_post_nms_topk": [30, 30]}
PARAMETERS = {"predict_config": {"scales": [1.0]}, "gpus": 0, "hours": 9.0}
WORK = (96, 128)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two folds' random weights, and its bundle."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    stage = files.make_folder(folder / "03_train")
    weights = [save_weights(stage / f"fold_{fold}" / "weights_best.pth") for fold in (0, 1)]
    config.save(Tuned(PostConfig(), 0.1, 0.0, 0.2), stage / "post.yaml")
    files.write_text(stage / "config.yaml", "predict: {max_cells: 20}\n")
    data = synthetic.write(folder.parent / "data", images=3, size=WORK)
    files.write_json(stage / "stage.json", {"parameters": {"data": str(data)}})
    best = bundle.Best("03_train", tuple(weights), stage / "post.yaml")
    bundle.write(folder, best, NOTEBOOKS / "06_submit.ipynb", PARAMETERS)
    return folder


def save_weights(path):
    torch.manual_seed(0)
    network = model.build("tiny", **OPTIONS)
    described = {"preset": "tiny", "num_classes": 3, "mask_stages": "all", "options": OPTIONS}
    files.make_folder(path.parent)
    torch.save(
        {
            "model_config": described,
            "categories": list(competition.CATEGORIES),
            "iteration": 1,
            "model": network.state_dict(),
            "ema": None,
        },
        path,
    )
    return path


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    return sandbox.make(tmp_path_factory.mktemp("sandbox") / "environment")


@pytest.fixture
def stage_set(run, tmp_path):
    """A function that makes a tree whose parts may be spoilt before the notebook runs."""

    def make(images=2):
        pictures = hidden.pictures(run, tmp_path / "synthetic")
        tree = hidden.make(tmp_path / "play" / "kaggle", "old", bundle.load(run), pictures, images)
        hidden.unseal(tree.inputs)
        return tree

    return make


def act(run, box, tree):
    """How the notebook ended, and the rows that are left."""
    kernel = run / "kaggle" / "kernel" / "06_submit.ipynb"
    kept = tree.root.parent / "kept.ipynb"
    namespace = execution.close_network(box)
    ended, _ = execution.execute(box, tree, kernel, kept, namespace)
    return ended["error"], execution.read_rows(tree.working / "submission.csv")


def spoil(path, data=b"spoilt"):
    """Put other bytes in the place of a link, and leave alone what it leads to."""
    path.unlink()
    path.write_bytes(data)


def ids(tree):
    return sorted(path.stem for path in (tree.competition / "test").iterdir())


def test_a_bundle_passes_and_the_report_says_what_was_measured(run, box, capfd, monkeypatch):
    monkeypatch.setattr(sandbox, "make", lambda *_: box)  # test_sandbox has it made
    before = set(Path(os.environ.get("TMPDIR", "/tmp")).glob("kit-rehearsal-*"))
    said = []
    (played,) = rehearse.rehearse(run, ["new"], images=2, say=said.append)
    report = files.read_json(run / "kaggle" / "rehearsal.json")
    assert report["passed"]
    assert report["layouts"] == [played.values()]
    assert report["versions"]["torch"]["here"] == torch.__version__.partition("+")[0]
    assert played.images == 2
    assert played.rows >= 2
    assert 0 < played.seconds_per_image < played.seconds
    assert 100 * 2**20 < played.peak_bytes < 16 * 2**30
    assert played.projected_hours > 238 * played.seconds_per_image / 3600
    assert "unreachable" in played.proof
    assert "submission.csv is valid" in "\n".join(said)
    assert "installed: detectron2" in capfd.readouterr().out  # the notebook's own words, as they come
    executed = json.loads((run / "kaggle" / "rehearsal_new.ipynb").read_text())
    assert any(cell.get("outputs") for cell in executed["cells"])
    assert set(Path(os.environ.get("TMPDIR", "/tmp")).glob("kit-rehearsal-*")) == before


def test_faults_of_every_kind_cost_only_what_they_touch(run, box, stage_set):
    tree = stage_set(images=8)
    damage_bundle(tree.dataset)
    names = ids(tree)
    damage_images(tree.competition / "test", names)
    (tree.competition / "sample_submission.csv").write_bytes(b"name,predicted\nz\xfcrich,\n")
    tree = tree._replace(competition=tree.competition.rename(tree.inputs / "my-cells"))
    move_the_clocks(4, box, tree)
    try:
        error, rows = act(run, box, tree)
    finally:
        sandbox.reset(box)
    assert error is None
    assert writer.check(tree.working / "submission.csv", competition.submitted(tree.competition)) == []
    found = files.read_json(tree.working / "metrics.json")
    assert set(found["skipped"]) == {names[0], names[2], *names[6:]}
    assert "cannot be read" in found["skipped"][names[0]]
    assert "exceeds limit" in found["skipped"][names[2]]
    assert "no time left" in found["skipped"][names[7]]
    assert [Path(path).name for path in found["weights"]] == ["fold_1.pth"]
    assert {name for name, text in rows if text} == {names[i] for i in (1, 3, 4, 5)}
    with Image.open(tree.working / "figures" / "predictions.png") as figure:
        assert max(figure.size) < 6600  # 60 inches
    said = notebook_output(tree)
    for name in ("fold_0.pth", "config.yaml", "post.yaml", "kit_offline.py", "SHA256SUMS"):
        assert f"{name} " in said
    assert "sample_submission.csv has no ids that can be read" in said


def damage_bundle(dataset):
    """One of two weights, and one of two copies of each small file."""
    spoil(dataset / "fold_0.pth")
    (dataset / "config.yaml").unlink()
    spoil(dataset / "post.yaml", b"post: [")
    spoil(dataset / "kit_offline.py", b"import nothing_of_the_kind")
    sums = (dataset / "SHA256SUMS").read_text()
    spoil(dataset / "SHA256SUMS", sums.replace("0", "1", 1).encode())


def damage_images(folder, names):
    """The first is cut short, the second small, the third claims 900 million pixels, the fourth is a line.

    The fifth is there twice; beside the sixth lies a note of macOS.
    """
    cut, small, huge, line, twice = (folder / f"{name}.png" for name in names[:5])
    cut.write_bytes(cut.read_bytes()[:2000])
    Image.fromarray(np.full((70, 50), 128, np.uint8)).save(small)
    size = struct.pack(">II", 30_000, 30_000)
    content = huge.read_bytes()
    header = b"IHDR" + size + content[24:29]
    huge.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    Image.fromarray(np.full((520, 1), 128, np.uint8)).save(line)
    Image.open(twice).convert("L").resize((90, 60)).save(twice.with_suffix(".jpg"))
    (folder / f"._{names[5]}.png").write_bytes(b"\0\5\x16\7")


def move_the_clocks(count, box, tree):
    """The host's clock jumps by a day once an image is predicted, which is nothing to the kit; in the process
    that predicts a day has really gone by once ``count`` images are."""
    place = sandbox.site_packages(box.python)
    (place / "late.pth").write_text("import late\n")
    (place / "late.py").write_text(f"""
import glob, sys, time
wall, steady = time.time, time.monotonic
parts = {str(tree.working)!r} + "/.predictions-parts.*/[0-9]*.npz"
time.time = lambda: wall() + 86400 * (len(glob.glob(parts)) >= 1)
if "kitlib.predict" in sys.orig_argv and "kitlib.runtime.launch" not in sys.orig_argv:
    time.monotonic = lambda: steady() + 86400 * (len(glob.glob(parts)) >= {count})
""")


def notebook_output(tree):
    """All that the executed notebook printed."""
    cells = files.read_json(tree.root.parent / "kept.ipynb")["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return "".join("".join(output.get("text", ())) for output in outputs)


@pytest.fixture(scope="module")
def outcomes(run, box, tmp_path_factory):
    """What comes of the cheapest faults, and the lines that the terminal shows."""
    folder, said, packed = tmp_path_factory.mktemp("faults"), [], bundle.load(run)
    names = (
        *("all weights damaged", "a wheel is missing", "no test images"),
        "its own folder cannot be written to",
    )
    chosen = [fault for fault in faults.faults_for(packed) if fault.name in names]
    # Such a run does not end as this fault should: nothing is wrong.
    chosen.append(faults.Fault("nothing", refusal="is missing", images=1))
    pictures, namespace = hidden.pictures(run, folder / "synthetic"), execution.close_network(box)
    found = faults.run_all(box, packed, pictures, folder, namespace, said.append, chosen)
    return {one.fault: one for one in found}, said


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("all weights damaged", r"fold_0\.pth is not as it was bundled.*upload the bundle again"),
        ("a wheel is missing", r"detectron2-.*\.whl is missing; upload the bundle again"),
        ("no test images", "holds no images"),
        ("its own folder cannot be written to", "^error: cannot write /kaggle/working/submission.csv"),
    ],
)
def test_a_fault_that_ends_the_notebook_is_one_sentence(outcomes, fault, sentence):
    if fault not in outcomes[0]:
        pytest.skip("root may write everywhere here")
    assert outcomes[0][fault].as_expected
    assert re.search(sentence, outcomes[0][fault].result)


def test_a_fault_that_does_not_end_as_it_should_is_said(run, outcomes):
    found, said = outcomes
    assert not found["nothing"].as_expected
    assert found["nothing"].result.startswith("valid submission: 1 images, 2 models")
    assert 100 * 2**20 < found["nothing"].peak_bytes < 16 * 2**30
    assert said[-1].startswith("nothing: NOT as it should, ")
    assert (run / "kaggle" / "faults" / "a-wheel-is-missing.ipynb").is_file()


def test_a_full_disk_is_told_and_what_was_written_before_is_left(run, box, stage_set, tmp_path):
    tree = stage_set()
    small = on_a_small_disk(box, tree, tmp_path)
    kernel = run / "kaggle" / "kernel" / "06_submit.ipynb"
    ended, _ = execution.execute(small, tree, kernel, tmp_path / "kept.ipynb", execution.close_network(small))
    assert "the disk is full" in ended["error"]["text"]
    assert execution.read_rows(tmp_path / "left.csv") == [[name, ""] for name in rehearsed_order(tree)]


def test_a_child_that_could_not_even_say_that_the_disk_is_full_is_understood(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    error = launch._failure("kitlib.predict", 120, tmp_path / "error.json", tmp_path / "log.txt")
    assert "the disk is full" in str(error)


def on_a_small_disk(box, tree, folder):
    """The sandbox, whose Python finds a disk of two pages in the place of ``working``."""
    mount = 'mount -t tmpfs -o size=8k none "$0"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    try:
        subprocess.run([*command, mount, folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system does not let its users mount a small disk to fill up")
    left = folder / "left.csv"
    script = folder / "bin" / "python"
    script.parent.mkdir()
    inner = f'{mount} && cd "$0" && "{box.python}" "$@"; c=$?; cp submission.csv "{left}"; exit $c'
    script.write_text(f"#!/bin/sh\nexec {' '.join(command)} '{inner}' '{tree.working}' \"$@\"\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return sandbox.Sandbox(script, box.python_version, box.versions, box.stand_ins, box.sources, box.contents)


def rehearsed_order(tree):
    """The ids of the sample submission."""
    lines = (tree.competition / "sample_submission.csv").read_text().splitlines()
    return [line.rstrip(",") for line in lines[1:]]


def test_a_run_without_a_bundle_is_told_to_make_one(tmp_path):
    with pytest.raises(KitError, match=r"dataset-metadata.json does not exist; run `kit bundle .*` first"):
        rehearse.rehearse(tmp_path)


@pytest.mark.parametrize(
    ("layout", "places"),
    [
        ("old", ["input/some-contest/test", "input/kit-small/bundle.json"]),
        ("new", ["input/competitions/some-contest/test", "input/datasets/me/kit-small/bundle.json"]),
    ],
)
def test_each_layout_has_its_places_and_only_working_is_writable(tmp_path, layout, places):
    ids_on_kaggle = "me/kit-small", "me/kit-small-submit"
    packed = Bundle(tmp_path / "run", *ids_on_kaggle, "some-contest", "06_submit.ipynb")
    told = files.write_json(files.make_folder(packed.dataset) / "bundle.json", {})
    picture = tmp_path / "data/test/a.png"
    picture.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(picture)
    root = tmp_path / "kaggle"
    tree = hidden.make(root, layout, packed, [picture], 3)
    assert all((root / place).exists() for place in places)
    found = ids(tree)
    assert len(found) == 3
    assert all(len(name) == 12 and int(name, 16) >= 0 for name in found)
    assert [frame.id for frame in competition.test(tree.competition)] == found
    assert sorted(rehearsed_order(tree)) == found
    own = [path for path in (tree.inputs, *tree.inputs.rglob("*")) if path.name != "bundle.json"]
    assert not [path for path in own if path.stat().st_mode & 0o222]
    assert Path(told).stat().st_mode & 0o200  # what it is linked to is left alone
    assert not list(tree.working.iterdir())


def test_pictures_are_the_runs_own_or_synthetic_where_they_are_gone(run, tmp_path):
    own = hidden.pictures(run, tmp_path / "synthetic")
    assert {path.parent.parent for path in own} == {run.parent / "data"}
    assert not (tmp_path / "synthetic").exists()
    files.write_json(tmp_path / "gone/03_train/stage.json", {"parameters": {"data": "/nowhere"}})
    assert all(path.is_file() for path in hidden.pictures(tmp_path / "gone", tmp_path / "synthetic"))


def test_a_time_limit_leaves_the_bundles_other_parameters(run):
    assert execution.injected(run / "kaggle" / "kernel" / "06_submit.ipynb") == PARAMETERS


def test_no_token_and_no_setting_of_pip_reaches_the_notebook(box, stage_set):
    secret = {"KAGGLE_API_TOKEN": "x", "PIP_FIND_LINKS": "/wheels", "HOME": "/root", "LANG": "C"}
    seen = execution.kernel_environment(box, stage_set(), secret)
    assert not {"KAGGLE_API_TOKEN", "PIP_FIND_LINKS"} & seen.keys()
    assert seen["HOME"] != "/root"
    assert seen["LANG"] == "C"
    assert seen["KAGGLE_KERNEL_RUN_TYPE"] == "Batch"


CHILD = (
    "import subprocess, sys, time; {memory}; subprocess.run([sys.executable, '-c', 'import time; {then}'])"
)


def test_memory_is_that_of_all_descendants_together():
    code = CHILD.format(memory="x = bytearray(60 << 20)", then="y = bytearray(60 << 20); time.sleep(1.5)")
    peak = processes.watch(subprocess.Popen([sys.executable, "-c", code]))
    assert 120 * 2**20 < peak < 240 * 2**20


def test_an_interrupted_wait_ends_all_descendants():
    code = CHILD.format(memory="pass", then="time.sleep(600)")
    process = subprocess.Popen([sys.executable, "-c", code])
    while len(processes.descendants(process.pid)) < 2:
        time.sleep(0.05)
    _, child = processes.descendants(process.pid)
    processes.end(process)
    assert process.poll() is not None
    until = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_terminated_the_folder_goes_too(tmp_path):
    code = """
import os, signal, sys
from kitlib.kaggle.rehearsal.rehearse import scratch
with scratch() as folder:
    (folder / "locked").mkdir()
    (folder / "locked/file").touch()
    (folder / "locked").chmod(0o555)
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 143
    assert not Path(done.stdout.strip()).exists()
