"""Polygons enclose the pixels of a mask exactly, as ImageJ and QuPath count them."""

import json

import numpy as np
import pytest
import roifile
from skimage.draw import polygon2mask

from kitlib.export import shapes
from kitlib.export.shapes import polygons
from kitlib.masks import rle
from kitlib.records import Cell, Frame


def area(ring):
    x, y = np.asarray(ring).T
    return abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


def rasterised(ring, shape):
    """The pixels whose centres lie in a ring, which is what ImageJ and QuPath take for its pixels."""
    return polygon2mask(shape, np.asarray(ring, float)[:, ::-1] - 0.5)


def drawn_again(parts, shape):
    """By the even-odd rule: a part may lie in a hole of another one."""
    result = np.zeros(shape, bool)
    for part in parts:
        for ring in (part.outer, *part.holes):
            result ^= rasterised(ring, shape)
    return result


@pytest.mark.parametrize("margin", [0, 2])
def test_every_pixel_and_no_other_is_enclosed(shape, margin):
    mask = np.pad(shape, margin)
    parts = polygons(rle.from_mask(mask))
    assert (drawn_again(parts, mask.shape) == mask).all()
    for part in parts:
        assert part.area == area(part.outer) - sum(map(area, part.holes))


def test_many_parts_and_holes(noise):
    for mask, count in ((noise, len), (~noise, lambda parts: sum(len(part.holes) for part in parts))):
        parts = polygons(rle.from_mask(mask))
        assert count(parts) > 20
        assert (drawn_again(parts, mask.shape) == mask).all()
        assert sum(part.area for part in parts) == mask.sum()
        assert [p.area for p in parts] == sorted((p.area for p in parts), reverse=True)


def test_no_ring_touches_itself_or_has_idle_points(noise, shape):
    for mask in (noise, shape):
        for part in polygons(rle.from_mask(mask)):
            for ring in (part.outer, *part.holes):
                assert len(np.unique(ring, axis=0)) == len(ring)
                steps = np.roll(ring, -1, axis=0) - ring
                assert ((steps == 0).sum(axis=1) == 1).all()
                assert ((steps[:, 0] == 0) != (np.roll(steps, 1, axis=0)[:, 0] == 0)).all()


def test_an_empty_mask_has_no_polygon(tmp_path):
    empty = rle.from_mask(np.zeros((5, 6), bool))
    assert polygons(empty) == []
    frame = Frame("a", None, 5, 6, (Cell(empty, "cort"),))
    assert json.loads(shapes.write_geojson(frame, tmp_path / "a").read_text())["features"] == []
    assert roifile.roiread(shapes.write_rois(frame, tmp_path / "a")) in ([], None, ())


def test_imagej_rois_give_the_masks_back(crowded, tmp_path):
    frame = crowded(40)
    path = shapes.write_rois(frame, tmp_path / frame.id)
    assert path.name == "well_A1.t03.zip"
    rois = roifile.roiread(path)
    assert [roi.name for roi in rois[:2]] == ["00001 astro", "00002 cort"]
    found = [rle.from_mask(rasterised(roi.coordinates(), (120, 150))) for roi in rois]
    overlap = np.diag(rle.iou(found, [cell.mask for cell in frame.cells]))
    whole = [len(polygons(cell.mask)) == 1 for cell in frame.cells]
    assert overlap[whole].tolist() == [1.0] * sum(whole)
    # The others have a pixel that meets them at a corner.
    assert sum(whole) >= 38
    assert overlap.min() > 0.99
    assert {roi.roitype for roi in rois} == {roifile.ROI_TYPE.TRACED}
    assert len({roi.stroke_color for roi in rois}) == 2


def test_a_roi_is_the_largest_part_and_says_what_it_leaves_out(tmp_path):
    mask = np.zeros((20, 20), bool)
    mask[2:4, 2:4] = True
    mask[6:16, 5:15] = True
    mask[9:11, 8:10] = False
    frame = Frame("a", None, 20, 20, (Cell(rle.from_mask(mask), "a/b\n c", 0.87654),))
    # A zip of a single ROI is read as that ROI.
    roi = np.atleast_1d(roifile.roiread(shapes.write_rois(frame, tmp_path / "a")))[0]
    assert roi.name == "00001 a_b\n c"
    assert roi.props == "category: a/b c\nscore: 0.8765\nparts: 2\nholes: 1\n"
    assert sorted(roi.coordinates().tolist()) == [[5, 6], [5, 16], [15, 6], [15, 16]]


def test_an_earlier_zip_is_replaced(crowded, tmp_path):
    shapes.write_rois(crowded(9), tmp_path / "a")
    assert len(roifile.roiread(shapes.write_rois(crowded(4), tmp_path / "a"))) == 4


def test_geojson_as_qupath_reads_it(tmp_path):
    mask = np.zeros((20, 20), bool)
    mask[2:4, 2:4] = True
    mask[6:16, 5:15] = True
    mask[9:11, 8:10] = False
    square = np.zeros((20, 20), bool)
    square[18:, 17:] = True
    cells = (Cell(rle.from_mask(mask), "cort", 0.9), Cell(rle.from_mask(square), "astro"))
    frame = Frame("a", None, 20, 20, cells)
    path = shapes.write_geojson(frame, tmp_path / "a.b")
    assert path.name == "a.b.geojson"
    document = json.loads(path.read_text())
    first, second = document["features"]
    assert document["type"] == "FeatureCollection"
    assert first["geometry"]["type"] == "MultiPolygon"
    large, small = first["geometry"]["coordinates"]
    assert [area(ring[:-1]) for ring in large] == [100, 4]
    assert [area(ring[:-1]) for ring in small] == [4]
    assert all(ring[0] == ring[-1] for part in (large, small) for ring in part)
    assert first["properties"]["classification"]["name"] == "cort"
    assert first["properties"]["measurements"] == {"area": 100.0, "score": 0.9}
    assert second["geometry"]["type"] == "Polygon"
    assert sorted(second["geometry"]["coordinates"][0][:-1]) == [[17, 18], [17, 20], [20, 18], [20, 20]]
    assert second["properties"]["measurements"] == {"area": 6.0}
    assert first["id"] != second["id"]
    assert path.read_bytes() == shapes.write_geojson(frame, tmp_path / "a.b").read_bytes()
