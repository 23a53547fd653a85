"""Cell instance segmentation for the Sartorius competition, and for cells of your own.

Three lines segment an image::

    model = kitlib.load("outputs/demo")
    frame = model("well_A1.tif")
    labels = kitlib.to_labels(frame)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kitlib.export.pictures import to_labels as to_labels
    from kitlib.stages.segment import load as load

__version__ = "0.1.0"

# Imported when they are asked for: torch takes seconds.
_LAZY = {"load": "kitlib.stages.segment", "to_labels": "kitlib.export.pictures"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'kitlib' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)
