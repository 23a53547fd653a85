"""The start of a submission: folders in both layouts, the first rows, installing in an empty environment."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv

import pytest
from PIL import Image

from kitlib import offline
from kitlib.data import competition
from kitlib.kaggle import detectron2_wheel as wheel
from kitlib.submission import writer

SLUG = offline.COMPETITION
LAYOUTS = {
    "old": ("input/kit-run", f"input/{SLUG}"),
    "new": ("input/datasets/ann/kit-run", f"input/competitions/{SLUG}"),
}


def tiny_wheel(name, code="x = 1\n", version="1.0"):
    info = wheel.dist_info(name, version)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    return wheel.pack({f"{name}.py": code.encode(), f"{info}/METADATA": metadata.encode()}, info)


@pytest.fixture(params=LAYOUTS)
def places(request, tmp_path, monkeypatch):
    """A /kaggle with a bundle of two small wheels and a competition of three test images."""
    bundle, data = (tmp_path / name for name in LAYOUTS[request.param])
    for folder in (bundle, data / "test", tmp_path / "working"):
        folder.mkdir(parents=True)
    shutil.copy(offline.__file__, bundle / "kit_offline.py")
    for name in ("kit_one", "kit_two"):
        (bundle / wheel.file_name(name, "1.0")).write_bytes(tiny_wheel(name))
    wheels = [wheel.file_name(name, "1.0") for name in ("kit_one", "kit_two")]
    (bundle / "w.pth").write_bytes(b"weights")
    (bundle / "post.yaml").write_text("expected: 0.3\n")
    manifest = {"stage": "03_train", "wheels": wheels, "weights": ["w.pth"], "post": "post.yaml"}
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    offline.write_sums(bundle)
    for name in ("bbb.png", "aaa.png"):
        (data / "test" / name).touch()
    (data / "sample_submission.csv").write_text("id,predicted\nccc,1 1\nbbb,1 1\nbbb,3 1\n")
    monkeypatch.setenv(offline.ROOT, str(tmp_path))
    return bundle, data


def bundle_again(bundle):
    """List a bundle's files as they are now."""
    for path in bundle.glob(f"{offline.COPY}*"):
        path.unlink()
    (bundle / offline.SUMS).unlink()
    offline.write_sums(bundle)


@pytest.fixture(scope="module")
def empty_python(tmp_path_factory):
    """A Python with pip and nothing else."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def run_script(python, bundle, *, then="pass"):
    """Run a bundle's script as the notebook does, in another Python, and some code after it."""
    code = f"import runpy; runpy.run_path({str(bundle / 'kit_offline.py')!r}, run_name='__main__'); {then}"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)


def test_places(places, tmp_path):
    bundle, data = places
    assert offline.bundle() == bundle
    assert offline.competition() == data
    assert offline.working() == tmp_path / "working"


def test_it_knows_the_competition_by_the_kits_own_name_for_it():
    assert offline.COMPETITION == competition.FOLDER


def test_away_from_kaggle_there_is_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv(offline.ROOT, str(tmp_path / "none"))
    assert offline.bundle() is None
    assert offline.competition() is None


def test_the_first_submission_has_a_row_for_each_image_asked_for_or_there(places, tmp_path):
    _, data = places
    path = tmp_path / "working" / "submission.csv"
    path.write_text("before")
    assert offline.first_submission(data, path) == 3
    assert path.read_text() == "id,predicted\nccc,\nbbb,\naaa,\n"
    assert list(path.parent.iterdir()) == [path]
    (data / "sample_submission.csv").unlink()
    assert offline.first_submission(data, path) == 2


SAMPLES = {
    "no column id": (b"name,predicted\nccc,\n", []),
    "empty": (b"", []),
    "not UTF-8": ("id,predicted,größe\nccc,,\n".encode("latin-1"), ["ccc"]),
    "undecodable id": (b"id,predicted\nc\xfcc,\nccc,\n", ["ccc"]),
    "UTF-16": ("id,predicted\nccc,\n".encode("utf-16"), ["ccc"]),
    "blank and repeated ids": (b"id,predicted\n,\nccc,1 1\n  ,\nccc,3 1\n\n", ["ccc"]),
    "blanks around": (b" id ,predicted\n ccc ,\n", ["ccc"]),
    "a row cut short": (b"predicted,id\n1 1,ccc\n1 1\n", ["ccc"]),
    "zero bytes": (b"id,predicted\nccc\0,\n\0\0", ["ccc"]),
    "a long mask": (b"id,predicted\nccc," + b"1 1 " * 50_000 + b"\n", ["ccc"]),
}


@pytest.mark.parametrize(("content", "asked"), SAMPLES.values(), ids=SAMPLES)
def test_any_sample_submission_leaves_a_first_submission(places, tmp_path, content, asked):
    _, data = places
    (data / "sample_submission.csv").write_bytes(content)
    path = tmp_path / "working" / "submission.csv"
    assert offline.first_submission(data, path) == len(asked) + 2
    assert path.read_text() == "".join(["id,predicted\n", *(f"{i},\n" for i in [*asked, "aaa", "bbb"])])


def test_the_rows_are_those_of_the_images_that_the_kit_submits(places, tmp_path):
    """A picture in each file; of two with one name the PNG counts, and macOS's notes are no picture."""
    _, data = places
    for name in ("aaa.png", "bbb.png", "aaa.jpg", "c,c.tif", "._aaa.png", ".d.png", "e.JPG", "notes.txt"):
        Image.new("L", (7, 5)).save(data / "test" / name, format=FORMATS.get(name[-3:], "PNG"))
    os.close(os.open(os.fsencode(data / "test") + b"/\xff.png", os.O_CREAT))
    (data / "test" / "folder.png").mkdir()
    path = tmp_path / "working" / "submission.csv"
    offline.first_submission(data, path)
    frames = competition.submitted(data)
    assert writer.check(path, data) == []
    assert [f.id for f in frames] == ["aaa", "bbb", "c,c", "e", "ccc"]
    assert [f.path and f.path.name for f in frames] == ["aaa.png", "bbb.png", "c,c.tif", "e.JPG", None]


FORMATS = {"jpg": "JPEG", "JPG": "JPEG", "tif": "TIFF"}


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(places, tmp_path):
    bundle, _ = places
    (tmp_path / "working").rmdir()
    (tmp_path / "working").write_text("a file: not even root can write into it")
    done = run_script(sys.executable, bundle)
    last = done.stderr.splitlines()[-1]
    assert re.search(r"cannot write \S+working/submission\.csv \(.+\); make \S+ writable", last)


def mounted(data, *names):
    """The data under other names."""
    for name in names:
        shutil.copytree(data, data.with_name(name))
    shutil.rmtree(data)
    return [data.with_name(name) for name in names]


def test_data_under_another_name_is_found_by_its_content(places):
    _, data = places
    (place,) = mounted(data, "my-cells")
    assert offline.competition() == place
    (place / "sample_submission.csv").unlink()
    assert offline.competition() is None
    (place / "train.csv").write_text("id,annotation,width,height,cell_type,plate_time\n")
    assert offline.competition() == place
    inner = place.with_name("uploaded") / "sartorius"
    inner.parent.mkdir()
    place.rename(inner)
    assert offline.competition() == inner


def test_several_folders_that_fit_are_named(places):
    bundle, data = places
    one, two = mounted(data, "cells-1", "cells-2")
    last = run_script(sys.executable, bundle).stderr.splitlines()[-1]
    assert f"{one}, {two} all look like the data of {SLUG}; detach all but one" in last


@pytest.mark.parametrize("error", [MemoryError(), OSError(12, "Cannot allocate memory"), ImportError(
    "libopenblas.so: failed to map segment from shared object")])  # fmt: skip
def test_too_little_memory_is_called_by_its_name(error):
    assert offline.reason(error).startswith("there is not enough memory (")
    assert offline.reason(ValueError("7")) == "ValueError: 7"


def test_it_is_read_by_the_file_sums_of_everyone(places):
    bundle, _ = places
    subprocess.run(["sha256sum", "--check", "--strict", offline.SUMS], cwd=bundle, check=True)
    assert offline.damaged(bundle, ["w.pth", "bundle.json"]) == {}
    (bundle / "w.pth").write_bytes(b"weight")
    (bundle / "bundle.json").unlink()
    assert offline.damaged(bundle, ["w.pth", "bundle.json"]) == {
        "w.pth": "is not as it was bundled",
        "bundle.json": "is missing",
    }


def test_what_is_missing_is_installed_and_what_is_there_stays(places, empty_python, tmp_path):
    bundle, _ = places
    site = next((empty_python.parents[1] / "lib").glob("python*/site-packages"))
    for name in ("kit_one", "kit_two"):  # of the other layout's run
        for path in site.glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    other = tmp_path / wheel.file_name("kit_one", "0.5")
    other.write_bytes(tiny_wheel("kit_one", "x = 'the image has it'\n", "0.5"))
    subprocess.run([empty_python, "-m", "pip", "install", "-q", "--no-index", str(other)], check=True)
    done = run_script(empty_python, bundle, then="import kit_one, kit_two; print(kit_one.x, kit_two.x)")
    assert done.returncode == 0, done.stderr
    assert "an empty row for each of 3 images" in done.stdout
    assert "installed: kit_two" in done.stdout
    assert done.stdout.endswith("the image has it 1\n")
    again = run_script(empty_python, bundle)
    assert "nothing was missing" in again.stdout


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_bad_wheel_is_named_and_the_first_submission_stands(places, tmp_path, fault):
    bundle, _ = places
    path = bundle / wheel.file_name("kit_two", "1.0")
    path.unlink() if fault == "missing" else path.write_bytes(path.read_bytes()[:-9])
    done = run_script(sys.executable, bundle)
    assert done.returncode != 0
    said = {"missing": "is missing", "damaged": "is not as it was bundled"}[fault]
    assert f"{path.name} {said}; upload the bundle again" in done.stderr.splitlines()[-1]
    assert (tmp_path / "working" / "submission.csv").read_text().count("\n") == 4


def test_pip_that_fails_is_quoted(places, tmp_path):
    bundle, _ = places
    (bundle / wheel.file_name("kit_two", "1.0")).write_bytes(b"no zip")
    bundle_again(bundle)
    done = run_script(sys.executable, bundle)
    assert "pip could not install kit_one, kit_two: ERROR" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("text", ["[]", '{"weights": []}'])
def test_contents_that_lack_a_key_are_named_and_the_first_submission_stands(places, tmp_path, text):
    bundle, _ = places
    (bundle / offline.MANIFEST).write_text(text)
    bundle_again(bundle)
    done = run_script(sys.executable, bundle)
    assert "bundle.json lacks one of stage, weights" in done.stderr.splitlines()[-1]
    assert "upload the bundle again" in done.stderr.splitlines()[-1]
    assert (tmp_path / "working" / "submission.csv").read_text().count("\n") == 4


def remove(path):
    path.unlink()


def change_a_digit(path):
    path.write_bytes(path.read_bytes().replace(b"3", b"4", 1))


def break_it(path):
    path.write_bytes(b"\xff{: [")


@pytest.mark.parametrize("spoil", [remove, change_a_digit, break_it])
@pytest.mark.parametrize("name", ["bundle.json", "post.yaml", "SHA256SUMS"])
def test_of_a_small_file_one_copy_may_be_damaged(places, name, spoil):
    bundle, _ = places
    for copy, other in ((name, offline.COPY + name), (offline.COPY + name, name)):
        original = (bundle / copy).read_bytes()
        spoil(bundle / copy)
        assert offline.manifest(bundle)["stage"] == "03_train"
        assert offline.intact(bundle, "post.yaml").read_text() == "expected: 0.3\n"
        assert [fault.removeprefix(offline.COPY) for fault in offline.damaged(bundle)] == [name]
        (bundle / copy).write_bytes(original)
        assert (bundle / other).read_bytes() == original
    assert offline.damaged(bundle) == {}


@pytest.mark.parametrize("name", ["bundle.json", "SHA256SUMS"])
def test_where_both_copies_are_damaged_it_is_said(places, name):
    bundle, _ = places
    change_a_digit(bundle / name)
    break_it(bundle / (offline.COPY + name))
    with pytest.raises(offline.OfflineError, match=rf"{name}.*copy.*; upload the bundle again"):
        offline.manifest(bundle)


def test_a_file_that_the_bundle_never_had_is_none(places):
    bundle, _ = places
    (bundle / "config.yaml").write_text("predict: {}")
    assert offline.intact(bundle, "config.yaml") is None


def test_another_datasets_bundle_json_is_not_ours(places):
    bundle, _ = places
    stranger = bundle.with_name("a-stranger")
    stranger.mkdir()
    (stranger / offline.MANIFEST).write_text("{}")
    assert offline.bundle() == bundle


def test_without_the_competitions_data_it_says_so(places):
    bundle, data = places
    shutil.rmtree(data)
    done = run_script(sys.executable, bundle)
    last = done.stderr.splitlines()[-1]
    assert f"the data of {SLUG} is not attached to this notebook, which holds" in last
    assert str(bundle) in last


def test_it_needs_the_standard_library_alone(places):
    bundle, _ = places
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import runpy; runpy.run_path({str(bundle / 'kit_offline.py')!r})",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
