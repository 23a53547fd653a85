"""Synthetic phase-contrast frames of three kinds of cell, with exact masks."""

from kitlib.data.synthetic.folder import ensure, write
from kitlib.data.synthetic.frames import frame

__all__ = ["ensure", "frame", "write"]
