"""A frame in every usual format: label image, outlines, ImageJ ROIs, COCO JSON, GeoJSON, tables."""

from kitlib.export.formats import FORMATS, Result, check, join, write

__all__ = ["FORMATS", "Result", "check", "join", "write"]
