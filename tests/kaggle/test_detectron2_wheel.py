"""Wheels of pure Python, and the one of detectron2: from the real sdist, or from small archives."""

import ast
import base64
import hashlib
import io
import os
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kitlib.errors import KitError
from kitlib.kaggle import detectron2_wheel as wheel
from kitlib.kaggle.sdist import fetch

ROOT = Path(__file__).parents[2]

# What its modules import at their top and METADATA leaves out, each for its reason.
NOT_REQUIRED = {
    "caffe2": "gone with old torch; only the caffe2 export imports it",
    "onnx": "only the caffe2 export imports it",
    "panopticapi": "only the Panoptic-DeepLab project imports it",
    "cv2": "goes by several names on PyPI",
    "pkg_resources": "gone from setuptools 82; kitlib.model.compat stands in",
}


def sdist_of(**files):
    """A small sdist; names may hold `__` for `/`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo("top-0.6/" + name.replace("__", "/"))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def sdist_with(member, data=b""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    try:
        data = fetch(wheel.PROJECT, wheel.VERSION, wheel.SDIST_SHA256)
    except KitError as error:
        pytest.skip(f"the sdist cannot be had here: {error}")
    path = tmp_path_factory.mktemp("sdist") / wheel.SDIST_NAME
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def built(sdist, tmp_path_factory):
    return wheel.build(tmp_path_factory.mktemp("wheel"), sdist)


def test_installs_with_its_configs_and_licence(built, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*pip, "--target", tmp_path, built], check=True)
    assert (
        tmp_path / "detectron2/model_zoo/configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
    ).is_file()
    assert (tmp_path / "detectron2/projects/point_rend/point_head.py").is_file()
    assert "Apache License" in (tmp_path / "detectron2-0.6.dist-info/LICENSE").read_text()
    assert not (tmp_path / "tools").exists()


def test_the_python_code_is_that_of_the_sdist(built, sdist):
    with tarfile.open(sdist) as archive, zipfile.ZipFile(built) as made:
        names = [
            name for name in made.namelist() if name.startswith("detectron2/") and "/projects/" not in name
        ]
        assert len(names) > 200
        for name in names:
            assert made.read(name) == archive.extractfile(f"pb1-detectron2-0.6/{name}").read()


def test_metadata_names_what_the_code_imports(built):
    imported = set()
    with zipfile.ZipFile(built) as made:
        for name in made.namelist():
            if name.endswith(".py"):
                imported |= top_imports(made.read(name))
    imported -= set(sys.stdlib_module_names) | {"detectron2"} | set(NOT_REQUIRED)
    names = {"PIL": "pillow", "yaml": "pyyaml", "hydra": "hydra-core"}
    required = {canonicalize_name(Requirement(need).name) for need in wheel.REQUIRES}
    assert {canonicalize_name(names.get(name, name)) for name in imported} <= required


def top_imports(source):
    """Modules imported when the file is, not within a function."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def test_metadata_obeys_none_of_the_old_pins():
    needs = {Requirement(need).name: Requirement(need).specifier for need in wheel.REQUIRES}
    assert not {"black", "future", "pydot", "setuptools"} & set(needs)
    assert needs["iopath"].contains("0.1.10")


def test_needs_only_the_standard_library(sdist, tmp_path):
    command = [sys.executable, "-S", "-m", "kitlib.kaggle.detectron2_wheel", tmp_path, "--sdist", sdist]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / wheel.WHEEL_NAME)


def test_same_sdist_same_bytes_whatever_its_dates_and_order():
    one = sdist_of(LICENSE=b"L", detectron2__a=b"1", detectron2__b=b"2")
    two = sdist_of(detectron2__b=b"2", detectron2__a=b"1", LICENSE=b"L")
    assert one != two
    assert wheel.from_sdist(one) == wheel.from_sdist(two)


def test_record_lists_every_file_with_its_hash_and_size():
    made = zipfile.ZipFile(
        io.BytesIO(wheel.from_sdist(sdist_of(LICENSE=b"L", detectron2__a=b"11", other=b"no")))
    )
    rows = [row.split(",") for row in made.read("detectron2-0.6.dist-info/RECORD").decode().splitlines()]
    assert sorted(made.namelist()) == sorted(name for name, _, _ in rows)
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"11").digest()).rstrip(b"=").decode()
    assert ["detectron2/a", f"sha256={digest}", "2"] in rows
    assert ["detectron2-0.6.dist-info/RECORD", "", ""] in rows
    assert "other" not in made.namelist()


def link():
    info = tarfile.TarInfo("top-0.6/detectron2/a")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    "member",
    [tarfile.TarInfo("top-0.6/../../a"), tarfile.TarInfo("/etc/a"), tarfile.TarInfo("bare"), link()],
    ids=["climbs", "absolute", "outside any folder", "a link"],
)
def test_a_path_that_leaves_its_folder_is_refused(member):
    with pytest.raises(KitError, match="not a plain file inside its folder"):
        wheel.from_sdist(sdist_with(member))


@pytest.mark.parametrize("cut", [10, 60, 300])
def test_a_damaged_archive_is_named(cut):
    whole = sdist_of(LICENSE=b"L", detectron2__a=os.urandom(500))
    with pytest.raises(KitError, match=r"pb1-detectron2-0\.6\.tar\.gz is damaged"):
        wheel.from_sdist(whole[:cut])


def test_another_file_than_the_pinned_one_is_refused(tmp_path):
    other = tmp_path / wheel.SDIST_NAME
    other.write_bytes(sdist_of(LICENSE=b"L"))
    with pytest.raises(KitError, match="its sha256 differs"):
        wheel.build(tmp_path, other)
    assert [path.name for path in tmp_path.iterdir()] == [other.name]


def test_a_missing_sdist_and_a_folder_that_cannot_be_are_one_sentence(tmp_path, sdist):
    with pytest.raises(KitError, match="cannot read"):
        wheel.build(tmp_path, tmp_path / "none.tar.gz")
    (tmp_path / "file").write_text("")
    with pytest.raises(KitError, match="cannot write"):
        wheel.build(tmp_path / "file" / "below", sdist)


def test_a_wheel_has_the_same_bytes_everywhere_and_nothing_else_in_it(tmp_path):
    info = wheel.dist_info("kit_one", "1.0")
    metadata = b"Metadata-Version: 2.1\nName: kit_one\nVersion: 1.0\n"
    contents = {"kit_one.py": b"x = 1\n", f"{info}/METADATA": metadata}
    one = wheel.pack(contents, info)
    assert one == wheel.pack(dict(reversed(contents.items())), info)
    path = tmp_path / wheel.file_name("kit-one", "1.0")
    assert path.name == "kit_one-1.0-py3-none-any.whl"
    path.write_bytes(one)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "there")}
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--target", str(tmp_path / "there")]
    subprocess.run([*pip, str(path)], check=True)
    found = runpy.run_path(str(Path(tmp_path, "there", "kit_one.py")))
    assert found["x"] == 1
    code = "from importlib.metadata import distribution as d; print(len(d('kit_one').files))"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.DEVNULL)
