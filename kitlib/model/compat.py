"""Mends that let detectron2 0.6 run beside today's setuptools, Pillow, numpy and torch.

Nothing installed is touched: what is missing gets a stand-in in this process, and what is there (a compiled
detectron2, an older setuptools) is used as it is.
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

# Said by today's torch and setuptools of detectron2's own code, which the user cannot change.
QUIETED: tuple[tuple[str, type[Warning]], ...] = (
    ("torch.meshgrid: in an upcoming release", UserWarning),
    (r"`torch\.jit\.script", FutureWarning),
    (r"`torch\.jit\.script", DeprecationWarning),
    ("pkg_resources is deprecated as an API", UserWarning),
    ("pkg_resources is deprecated as an API", DeprecationWarning),
)


def apply() -> None:
    """Make ``import detectron2`` work; to be called before it, harmless afterwards and when repeated.

    - ``PIL.Image.LINEAR``, gone from Pillow 10, is ``BILINEAR`` again; ``numpy.bool``, ``int`` and ``float``,
      gone from numpy 1.24 (``bool`` came back in 2.0), are the Python types again.
    - ``pkg_resources``, gone from setuptools 82, and ``detectron2._C``, absent from a pure Python build, are
      found as stand-ins when nothing else provides them.
    - Warnings about detectron2's own code are not shown.
    """
    if not hasattr(PIL.Image, "LINEAR"):
        PIL.Image.LINEAR = PIL.Image.BILINEAR
    for kind in (bool, int, float):
        if kind.__name__ not in vars(np):
            setattr(np, kind.__name__, kind)
    for message, category in QUIETED:
        warnings.filterwarnings("ignore", message=message, category=category)
    if not any(isinstance(finder, _StandIns) for finder in sys.meta_path):
        sys.meta_path.append(_StandIns())


class Absent(NamedTuple):
    """A module that may be missing: how to mend that, and the few names a stand-in can provide."""

    mend: str
    provided: dict[str, Callable[..., Any]]


ABSENT: dict[str, Absent] = {
    "pkg_resources": Absent(
        "install setuptools<82 for it",
        {
            "resource_filename": lambda package, name: str(importlib.resources.files(package) / name),
            # pytest calls it whenever a module of this name was imported.
            "fixup_namespace_packages": lambda path_item, parent=None: None,
        },
    ),
    "detectron2._C": Absent(
        "this detectron2 has no compiled part, which deformable convolution, rotated boxes and the fast COCO "
        "evaluator need; conda-forge's has one",
        # What detectron2's own report of the environment asks for.
        {
            "get_compiler_version": lambda: "none (pure Python)",
            "get_cuda_version": lambda: "none (pure Python)",
            "has_cuda": lambda: False,
        },
    ),
}


class _StandIns(MetaPathFinder, Loader):
    """The last of the finders, asked only for what no other one found; loads stand-ins for ``ABSENT``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname in ABSENT else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(ABSENT[module.__name__].provided)


class _StandIn(ModuleType):
    """Using a name that it does not provide says what is missing, and the mend."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what Python and its tools (pytest, too) look for in any module
            raise AttributeError(name)
        # As if the import itself had failed: callers that can do without the module catch just that.
        raise ImportError(f"{self.__name__}.{name} is missing: {ABSENT[self.__name__].mend}")
