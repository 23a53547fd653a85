"""A run as a bundle, and a bundle read back."""

import errno
import json
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import torch

from kitlib import cli, config, files, model, offline
from kitlib.data.config import ReadingConfig
from kitlib.errors import KitError
from kitlib.kaggle import bundle
from kitlib.post.config import PostConfig, Tuned
from kitlib.predict.config import PredictConfig
from kitlib.predict.models import load_model
from kitlib.predict.predictor import Predictor
from kitlib.stages import bundling, notebooks

CATEGORIES = ["astro", "cort", "shsy5y"]
OPTIONS = {"detections": 20, "rpn_post_nms_topk": [40, 40]}


def save(path, seed, **more):
    torch.manual_seed(seed)
    network = model.build("tiny", **OPTIONS)
    described = {"preset": "tiny", "num_classes": 3, "mask_stages": "all", "options": OPTIONS}
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"model_config": described, "categories": CATEGORIES, "iteration": 3, "ema": None, **more}
    torch.save({**state, "model": network.state_dict(), "optimizer": [torch.zeros(1000)]}, path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that trained two folds."""
    run = tmp_path_factory.mktemp("runs") / "My run_1"
    stage = run / "03_train"
    for fold in (0, 1):
        save(stage / f"fold_{fold}" / "weights_best.pth", fold)
    weights = ["fold_0/weights_best.pth", "fold_1/weights_best.pth"]
    files.write_json(stage / "metrics.json", {"weights": weights})
    files.write_text(
        stage / "config.yaml", "out: /home/ann/outputs\ntrain: /home/ann/train.npz\nmax_iter: 3\n"
    )
    config.save(Tuned(PostConfig(), 0.3, 0.2, 0.4), stage / "post.yaml")
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / trained.name)


@pytest.fixture(scope="module")
def packed(trained):
    return bundling.write(trained)


def test_the_dataset_is_flat_listed_and_complete(packed, trained):
    dataset = packed.folder / "dataset"
    assert packed.folder == trained / "kaggle"
    assert all(path.is_file() for path in dataset.iterdir())
    told = json.loads((dataset / "bundle.json").read_text())
    assert told["weights"] == ["fold_0.pth", "fold_1.pth"]
    assert told["stage"] == "03_train"
    listed = {line.partition("  ")[2] for line in (dataset / "SHA256SUMS").read_text().splitlines()}
    there = {path.name for path in dataset.iterdir()}
    listed.discard("")  # of the list's last line, the checksum of itself
    assert listed == there - {"SHA256SUMS", "copy_of_SHA256SUMS", "dataset-metadata.json"}
    assert offline.damaged(dataset) == {}
    assert packed.size == sum(p.stat().st_size for p in packed.folder.glob("*/*"))


def test_names_and_titles_are_as_kaggle_wants_them(packed):
    dataset = json.loads((packed.folder / "dataset" / "dataset-metadata.json").read_text())
    kernel = json.loads((packed.folder / "kernel" / "kernel-metadata.json").read_text())
    assert dataset["id"] == "INSERT_USER_HERE/kitlib-my-run-1"
    assert kernel["dataset_sources"] == [dataset["id"]]
    assert 6 <= len(dataset["title"]) <= 50
    for described in (dataset, kernel):  # the title must slugify to the id
        assert re.sub(r"[^a-z0-9]+", "-", described["title"].lower()) == described["id"].split("/")[1]
    assert kernel["enable_internet"] is False
    assert kernel["enable_gpu"] is True
    assert kernel["competition_sources"] == ["sartorius-cell-instance-segmentation"]


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("demo", "kitlib-demo"),
        ("a", "kitlib-a"),
        ("Größe 2", "kitlib-gr-e-2"),
        ("x" * 80, "kitlib-" + "x" * 36),
        ("a" * 35 + "-b", "kitlib-" + "a" * 35),
    ],
)
def test_any_folder_name_becomes_one_that_kaggle_takes(name, slug):
    assert bundle._slug(name) == slug
    assert 6 <= len(slug) <= 43


def test_a_name_without_letters_is_refused():
    with pytest.raises(KitError, match="rename its folder"):
        bundle._slug("---")


def test_no_path_of_this_machine_goes_along(packed, trained):
    texts = [p for p in packed.folder.glob("*/*") if p.suffix in (".json", ".yaml", ".ipynb")]
    assert len(texts) == 9  # three of them twice
    for path in texts:
        assert "/home/ann" not in path.read_text()
        assert str(trained.parent) not in path.read_text()
    assert "max_iter: 3" in (packed.folder / "dataset" / "config.yaml").read_text()


def test_the_notebook_is_the_local_one_with_the_runs_parameters(run):
    record = {"key": "k", "done": True, "seconds": 1.0}
    given = {"data": "/home/ann/data", "out": str(run), "gpus": 0, "predict_config": {"scales": [2.0, 1.5]}}
    files.write_json(run / "06_submit" / "stage.json", {**record, "parameters": given})
    packed = bundling.write(run, user="ann")
    path = packed.folder / "kernel" / "06_submit.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    here = [c.source for c in notebooks.code(notebooks.notebook("06_submit"))]
    there = [c for c in notebooks.code(path) if "injected-parameters" not in c.tags]
    assert [c.source for c in there] == here
    injected = next(c for c in notebooks.code(path) if "injected-parameters" in c.tags)
    values = {}
    exec(injected.source, values)
    assert values["predict_config"] == {"scales": [2.0, 1.5]}
    assert (values["data"], values["out"], values["gpus"], values["hours"]) == ("", "", -1, 9.0)
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_read_back_it_predicts_the_same(packed, trained):
    best = bundle.read(packed.folder / "dataset")
    assert best.stage == "03_train"
    assert config.load(Tuned, best.post).expected == 0.3
    image = np.random.default_rng(0).normal(128, 12, (96, 128)).clip(0, 255).astype(np.uint8)
    settings = PredictConfig(score_floor=0.0, max_cells=10)
    for fold, path in enumerate(best.weights):
        original = load_model(trained / "03_train" / f"fold_{fold}" / "weights_best.pth")
        ours, theirs = (
            Predictor([m], m_types, settings)(image).tables[0] for m, m_types in (load_model(path), original)
        )
        assert [c.mask for c in ours] == [c.mask for c in theirs]
        assert [c.score for c in ours] == [c.score for c in theirs]


def test_half_weights_are_half_as_large_and_predict_nearly_the_same(run):
    whole = bundling.write(run).sizes["dataset/fold_0.pth"]
    half = bundling.write(run, half=True)
    assert half.sizes["dataset/fold_0.pth"] == pytest.approx(whole / 2, rel=0.05)
    path = half.folder / "dataset" / "fold_0.pth"
    theirs = load_model(run / "03_train" / "fold_0" / "weights_best.pth").model.state_dict()
    for name, tensor in load_model(path).model.state_dict().items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.allclose(tensor, theirs[name], rtol=1e-3, atol=1e-6), name


def test_one_damaged_file_of_an_ensemble_is_left_out_a_damaged_whole_is_refused(packed, tmp_path, capsys):
    dataset = shutil.copytree(packed.folder / "dataset", tmp_path / "dataset")
    (dataset / "fold_0.pth").write_bytes(b"half")
    assert bundle.read(dataset).weights == (dataset / "fold_1.pth",)
    assert "left out of the ensemble: fold_0.pth is not as it was bundled" in capsys.readouterr().out
    (dataset / "fold_1.pth").unlink()
    with pytest.raises(
        KitError, match=r"fold_0\.pth is not as it was bundled, fold_1\.pth is missing; upload"
    ):
        bundle.read(dataset)
    for name in ("bundle.json", "copy_of_bundle.json"):
        (dataset / name).write_text("{")
    with pytest.raises(KitError, match=r"bundle\.json is not as it was bundled, nor is its copy whole"):
        bundle.read(dataset)


@pytest.mark.parametrize("name", ["config.yaml", "post.yaml", "bundle.json", "SHA256SUMS", "kit_offline.py"])
@pytest.mark.parametrize("content", [None, b"predict: [", b"post: {}\n"])
def test_a_damaged_settings_file_costs_nothing_and_is_said(packed, tmp_path, capsys, name, content):
    dataset = shutil.copytree(packed.folder / "dataset", tmp_path / "dataset")
    as_bundled = (dataset / "post.yaml").read_bytes(), (dataset / "config.yaml").read_bytes()
    (dataset / name).unlink() if content is None else (dataset / name).write_bytes(content)
    best = bundle.read(dataset)
    assert [path.name for path in best.weights] == ["fold_0.pth", "fold_1.pth"]
    assert (best.post.read_bytes(), bundle.trained(dataset).read_bytes()) == as_bundled
    assert f"{name} " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["config.yaml", "post.yaml"])
def test_settings_without_a_whole_copy_are_refused_not_guessed(packed, tmp_path, name):
    dataset = shutil.copytree(packed.folder / "dataset", tmp_path / "dataset")
    (dataset / name).write_bytes(b"{}")
    (dataset / f"copy_of_{name}").unlink()
    with pytest.raises(KitError, match=rf"{name} is not as it was bundled, nor is its copy whole; upload"):
        bundle.read(dataset)


def test_a_run_without_a_configuration_predicts_with_the_defaults(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "other")
    (run / "03_train" / "config.yaml").unlink()
    dataset = bundling.write(run).dataset
    assert bundle.trained(dataset) is None
    assert len(bundle.read(dataset).weights) == 2


def test_a_disk_that_fills_up_leaves_the_earlier_bundle(run, monkeypatch):
    earlier = bundling.write(run)
    before = (earlier.folder / "dataset" / "SHA256SUMS").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundle.shutil, "copyfile", full)
    with pytest.raises(KitError, match="the disk is full"):
        bundling.write(run, half=True)
    assert (earlier.folder / "dataset" / "SHA256SUMS").read_bytes() == before
    assert sorted(p.name for p in earlier.folder.iterdir()) == ["dataset", "kernel"]


def test_what_is_left_of_a_killed_bundling_goes(run):
    left = run / "kaggle" / ".new-abc"
    left.mkdir(parents=True)
    bundling.write(run)
    assert not left.exists()


def test_no_bundle_is_made_while_another_process_writes_into_the_run(run):
    code = "import sys, pathlib\nfrom kitlib.runtime import lock\n"
    code += (
        "with lock.hold(pathlib.Path(sys.argv[1]), 'another'):\n print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(KitError, match=rf"in use by the run 'another' \(process {other.pid} "):
            bundling.write(run)
        other.kill()
    assert bundling.write(run).dataset.is_dir()


def test_a_run_without_weights_says_what_to_do(tmp_path):
    with pytest.raises(KitError, match=r"holds no trained weights; run \./run_all\.sh --out"):
        bundling.write(tmp_path)


def test_a_run_on_images_of_one_s_own_is_refused(run):
    config.save(ReadingConfig(), run / "03_train" / "reading.yaml")
    reason = r"My run_1 was trained on images of your own.* kit predict .*My run_1 IMAGES --out DIR"
    with pytest.raises(KitError, match=reason):
        bundling.write(run)
    with pytest.raises(KitError, match=reason):
        cli.kit(["rehearse", str(run)])


def test_a_run_whose_weights_are_gone_says_what_to_do(run):
    (run / "03_train" / "fold_1" / "weights_best.pth").unlink()
    with pytest.raises(KitError, match=r"fold_1/weights_best\.pth does not exist; run 03_train again"):
        bundling.write(run)
