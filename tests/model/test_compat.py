"""Each part of ``apply`` on its own, and all together in a fresh interpreter."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.Image
import pytest

from kitlib.model import compat

ROOT = Path(__file__).parents[2]

# Everything of detectron2 that the kit and its benchmarks import, and one use of each stand-in.
FRESH = """
import json, sys
import kitlib.model.presets, kitlib.model
early = sorted({"torch", "detectron2", "timm"} & set(sys.modules))
import numpy as np, torch
import detectron2.data, detectron2.engine, detectron2.evaluation, detectron2.modeling, detectron2.model_zoo
from detectron2.structures import polygons_to_bitmask, PolygonMasks
from detectron2.utils.collect_env import collect_env_info
torch.set_num_threads(1)
model = kitlib.model.build("tiny").eval()
with torch.no_grad():
    model([{"image": torch.zeros(3, 64, 64)}])
print(json.dumps({
    "early": early,
    "config": detectron2.model_zoo.get_config_file("Base-RCNN-FPN.yaml"),
    "linear": detectron2.data.transforms.ExtentTransform((0, 0, 4, 4), (2, 2)).interp,
    "square": int(polygons_to_bitmask([np.array([1, 1, 5, 1, 5, 5, 1, 5.0])], 8, 8).sum()),
    "nonempty": PolygonMasks([[np.array([1, 1, 5, 1, 5, 5.0])]]).nonempty().tolist(),
    "environment": "detectron2" in collect_env_info(),
}))
"""


def run(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    places = os.pathsep.join(map(str, [*paths, ROOT]))
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": places, "PYTHONWARNINGS": ""},
        check=False,
    )


@pytest.mark.slow
def test_a_fresh_interpreter_uses_detectron2_quietly() -> None:
    done = run(FRESH)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen.pop("early") == []  # configurations are read without torch
    assert Path(seen.pop("config")).is_file()
    assert seen == {"linear": PIL.Image.BILINEAR, "square": 16, "nonempty": [True], "environment": True}


def test_what_is_installed_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "pkg_resources.py").write_text("kind = 'installed'")
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("")
    (tmp_path / "detectron2" / "_C.py").write_text("kind = 'compiled'")
    done = run(
        "import kitlib.model, pkg_resources; from detectron2 import _C; print(pkg_resources.kind, _C.kind)",
        tmp_path,
    )
    assert done.stdout.split() == ["installed", "compiled"], done.stderr


def test_applying_again_changes_nothing() -> None:
    compat.apply()
    finders, filters = list(sys.meta_path), list(warnings.filters)
    compat.apply()
    assert sys.meta_path == finders
    assert sorted(map(str, warnings.filters)) == sorted(map(str, filters))


def test_names_that_pillow_and_numpy_dropped_are_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(PIL.Image, "LINEAR", raising=False)
    for name in ("bool", "int", "float"):
        monkeypatch.delitem(vars(np), name, raising=False)
    compat.apply()
    assert PIL.Image.LINEAR == PIL.Image.BILINEAR
    assert np.ones(2, np.int).dtype == int
    assert np.ones(2, np.float).dtype == float
    assert np.ones(2, np.bool).dtype == bool


def test_names_that_are_there_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "LINEAR", "theirs", raising=False)
    monkeypatch.setitem(vars(np), "bool", np.bool_)
    compat.apply()
    assert PIL.Image.LINEAR == "theirs"
    assert np.bool is np.bool_


def stand_in(name: str) -> ModuleType:
    finder = next(f for f in sys.meta_path if type(f).__module__ == compat.__name__)
    return importlib.util.module_from_spec(finder.find_spec(name, None))


@pytest.mark.parametrize("name", compat.ABSENT)
def test_a_stand_in_says_what_is_missing_when_used(name: str) -> None:
    module = stand_in(name)
    with pytest.raises(ImportError, match=rf"{name}\.anything is missing: .*(install|conda-forge)"):
        _ = module.anything
    assert not hasattr(module, "__path__")  # what Python asks of any module is answered, not refused


def test_pytest_changes_the_path_beside_the_stand_ins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It asks pkg_resources for names of its own whenever a module of this name was imported."""
    compat.apply()
    importlib.import_module("pkg_resources")
    monkeypatch.syspath_prepend(tmp_path)
    assert sys.path[0] == str(tmp_path)


def test_other_absent_modules_stay_absent() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("detectron2._C.nothing_of_the_kind")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("pkg_resources_of_nobody")


def test_the_warnings_are_quieted_narrowly() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        compat.apply()
        warnings.warn(
            "torch.meshgrid: in an upcoming release, it will be required", UserWarning, stacklevel=1
        )
        warnings.warn("`torch.jit.script` is deprecated.", FutureWarning, stacklevel=1)
        warnings.warn("torch.meshgrid is slow", UserWarning, stacklevel=1)
    assert [str(w.message) for w in seen] == ["torch.meshgrid is slow"]
