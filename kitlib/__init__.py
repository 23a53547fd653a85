"""Cell instance segmentation for the Sartorius competition, and for cells of your own.

Three lines segment an image::

    model = kitlib.load("outputs/demo")
    frame = model("well_A1.tif")
    labels = frame.to_labels()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kitlib.stages.trained import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: torch takes seconds.
    if name == "load":
        return import_module("kitlib.stages.trained").load
    raise AttributeError(f"module 'kitlib' has no attribute '{name}'")
