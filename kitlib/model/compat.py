"""What lets detectron2 0.6 run with today's setuptools, Pillow, numpy and torch.

No installed file is changed: a missing module gets a stand-in in this process, and an installed one (a
compiled detectron2, an older setuptools) is used as it is.
"""

from __future__ import annotations

import importlib.resources
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

# Warnings of torch and setuptools about detectron2's code, which the user cannot change.
_IGNORED_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    ("torch.meshgrid: in an upcoming release", UserWarning),
    (r"`torch\.jit\.script", FutureWarning),
    (r"`torch\.jit\.script", DeprecationWarning),
    ("pkg_resources is deprecated as an API", UserWarning),
    ("pkg_resources is deprecated as an API", DeprecationWarning),
)


def apply() -> None:
    """Make ``import detectron2`` work. Call it before that import; further calls change nothing.

    - Adds ``PIL.Image.LINEAR``, which Pillow 10 removed, as another name of ``BILINEAR``, and ``numpy.bool``,
      ``int`` and ``float``, which numpy 1.24 removed (2.0 has ``bool`` again), as the Python types.
    - Imports stand-ins for ``pkg_resources``, which setuptools 82 removed, and ``detectron2._C``, which a
      pure Python build lacks, where they are not installed.
    - Hides warnings about detectron2's own code.
    """
    vars(PIL.Image).setdefault("LINEAR", PIL.Image.Resampling.BILINEAR)
    for python_type in (bool, int, float):
        vars(np).setdefault(python_type.__name__, python_type)
    for message, category in _IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category)
    if not any(isinstance(finder, _StandIns) for finder in sys.meta_path):
        sys.meta_path.append(_StandIns())


class Absent(NamedTuple):
    """A module that may be missing.

    Attributes:
        remedy: what to do where a name is needed that the stand-in does not provide.
        provided: the names that the stand-in provides.
    """

    remedy: str
    provided: dict[str, Callable[..., Any]]


ABSENT: dict[str, Absent] = {
    "pkg_resources": Absent(
        "install setuptools<82 for it",
        {
            "resource_filename": lambda package, name: str(importlib.resources.files(package) / name),
            # pytest calls this one whenever a module named pkg_resources was imported.
            "fixup_namespace_packages": lambda path_item, parent=None: None,
        },
    ),
    "detectron2._C": Absent(
        "this detectron2 has no compiled part, which deformable convolution, rotated boxes and the fast COCO "
        "evaluator need; conda-forge's has one",
        # detectron2's report of the environment calls these.
        {
            "get_compiler_version": lambda: "none (pure Python)",
            "get_cuda_version": lambda: "none (pure Python)",
            "has_cuda": lambda: False,
        },
    ),
}


class _StandIns(MetaPathFinder, Loader):
    """Finds and loads stand-ins for ``ABSENT``; as the last finder, only for what no other finder found."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname in ABSENT else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(ABSENT[module.__name__].provided)


class _StandIn(ModuleType):
    """A module whose use of a name that it lacks raises an error with the remedy."""

    def __getattr__(self, name: str) -> Any:
        # Python and its tools, such as pytest, look for such names in any module.
        if name.startswith("_"):
            raise AttributeError(name)
        # Callers that can do without the module catch ImportError.
        raise ImportError(f"{self.__name__}.{name} is missing: {ABSENT[self.__name__].remedy}")
