"""The list of what a Kaggle image has: well formed, and in the wheel."""

from importlib import resources

import pytest
from packaging.version import Version

from kitlib.kaggle import image


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


def test_a_caller_cannot_spoil_the_list_for_others():
    image.packages().clear()
    assert image.packages()


@pytest.mark.parametrize(
    ("name", "normal"), [("Jinja2", "jinja2"), ("ruamel.yaml", "ruamel-yaml"), ("a-_.b", "a-b")]
)
def test_names_are_normalised_as_indexes_do(name, normal):
    assert image.normalised(name) == normal
