"""Cell instance segmentation for the Sartorius competition, and for cells of your own."""

__version__ = "0.1.0"
