"""The viewer: frames and their cells to browse, compare and correct in JupyterLab."""

from kitlib.viewer.widget import show

__all__ = ["show"]
