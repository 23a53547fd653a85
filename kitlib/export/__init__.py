"""A frame in every usual format: label image, outlines, ImageJ ROIs, COCO JSON, GeoJSON, tables."""

from kitlib.export.formats import FORMATS, check, join, write
from kitlib.export.pictures import to_labels

__all__ = ["FORMATS", "check", "join", "to_labels", "write"]
