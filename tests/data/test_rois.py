"""ImageJ's ROIs: which pixels each type encloses, what is left out, and damaged files."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import roifile
from roifile import ROI_TYPE, ImagejRoi

from kitlib.data import rois
from kitlib.data.config import Findings
from kitlib.errors import KitError
from kitlib.masks import rle

SQUARE = [[1, 2], [4, 2], [4, 4], [1, 4]]


@pytest.fixture
def read(tmp_path):
    """``read(roi, ...)``: the masks, as (H, W) arrays of 6 x 8 pixels, and the findings."""

    def make(*found, height=6, width=8, plane=None):
        path = tmp_path / "a.zip"
        path.unlink(missing_ok=True)
        for number, roi in enumerate(found):
            roi.name = f"{number:04}"
            roi.tofile(path)
        findings = Findings(tmp_path)
        masks = rois.read_rois(path, height, width, plane, findings)
        return [rle.to_mask(mask).astype(int).tolist() for mask in masks], findings

    return make


def block(rows, columns, height=6, width=8):
    mask = np.zeros((height, width), int)
    mask[np.ix_(rows, columns)] = 1
    return mask.tolist()


def of_type(kind, left, top, right, bottom):
    roi = ImagejRoi()
    roi.roitype, roi.left, roi.top, roi.right, roi.bottom = kind, left, top, right, bottom
    return roi


def test_a_polygon_encloses_the_pixels_between_its_corners(read):
    (mask,), findings = read(ImagejRoi.frompoints(SQUARE))
    assert mask == block([2, 3], [1, 2, 3])
    assert findings == []


def test_corners_between_pixels(read):
    (mask,), _ = read(ImagejRoi.frompoints(np.array(SQUARE) + 0.25))
    assert mask == block([2, 3], [1, 2, 3])
    (mask,), _ = read(ImagejRoi.frompoints(np.array(SQUARE) + 0.75))
    assert mask == block([3, 4], [2, 3, 4])


def test_a_rectangle(read):
    (mask,), _ = read(of_type(ROI_TYPE.RECT, 1, 2, 4, 4))
    assert mask == block([2, 3], [1, 2, 3])


def test_an_oval(read):
    (mask,), _ = read(of_type(ROI_TYPE.OVAL, 1, 1, 5, 5))
    expected = np.array(block([1, 2, 3, 4], [1, 2, 3, 4]))
    expected[[1, 1, 4, 4], [1, 4, 1, 4]] = 0
    assert mask == expected.tolist()


def test_a_composite_has_a_hole(read):
    outer, inner = ImagejRoi.frompoints([[0, 0], [6, 0], [6, 6], [0, 6]]), [[2, 2], [4, 2], [4, 4], [2, 4]]
    path = []
    for outline in (outer.coordinates(), inner):
        path += [0, *outline[0]] + [v for point in outline[1:] for v in (1, *point)] + [4]
    roi = of_type(ROI_TYPE.RECT, 0, 0, 6, 6)
    roi.multi_coordinates = np.array(path, np.float32)
    roi.shape_roi_size = len(path)
    (mask,), _ = read(roi)
    expected = np.array(block(range(6), range(6)))
    expected[2:4, 2:4] = 0
    assert mask == expected.tolist()


def test_what_lies_outside_is_cut_off(read):
    (mask,), _ = read(ImagejRoi.frompoints([[-3, 4], [2, 4], [2, 9], [-3, 9]]))
    assert mask == block([4, 5], [0, 1])


def test_what_encloses_nothing_is_reported(read):
    line = of_type(ROI_TYPE.LINE, 1, 1, 4, 4)
    outside = ImagejRoi.frompoints(np.array(SQUARE) + 20)
    point = ImagejRoi.frompoints([[3, 3]])
    point.roitype = ROI_TYPE.POINT
    masks, findings = read(line, ImagejRoi.frompoints(SQUARE), outside, point)
    assert masks == [block([2, 3], [1, 2, 3])]
    assert [(finding.file, finding.fault) for finding in findings] == [
        ("a.zip/0000.roi", "is a line, which encloses no pixels"),
        ("a.zip/0002.roi", "covers no pixel of its image"),
        ("a.zip/0003.roi", "is a point, which encloses no pixels"),
    ]


def test_rois_of_other_planes_are_left_out(read):
    first, second = ImagejRoi.frompoints(SQUARE), ImagejRoi.frompoints(np.array(SQUARE) + 1)
    first.position, second.position = 1, 2
    assert len(read(first, second)[0]) == 2
    masks, findings = read(first, second, plane=1)
    assert (masks, findings) == ([block([3, 4], [2, 3, 4])], [])


def test_other_files(tmp_path):
    findings = Findings(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 cut short")
    with pytest.raises(KitError, match=r"a\.zip is no whole zip of ROIs .*; save it again"):
        rois.read_rois(tmp_path / "a.zip", 6, 8, None, findings)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("notes.txt", "none")
    with pytest.raises(KitError, match=r"b\.zip holds no ROI of ImageJ"):
        rois.read_rois(tmp_path / "b.zip", 6, 8, None, findings)
    with zipfile.ZipFile(tmp_path / "none.zip", "w"):
        pass
    assert rois.read_rois(tmp_path / "none.zip", 6, 8, None, findings) == []
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("a.roi", b"Iout" + bytes(10))
        archive.writestr("b.roi", b"text")
        archive.writestr("c.roi", bytes((1 << 24) + 9))
    assert rois.read_rois(tmp_path / "c.zip", 6, 8, None, findings) == []
    assert [finding.fault.split(" (")[0] for finding in findings] == [
        "is no ROI of ImageJ",
        "is no ROI of ImageJ",
        "is too large for a ROI",
    ]
    with pytest.raises(KitError, match=r"d\.zip does not exist"):
        rois.read_rois(tmp_path / "d.zip", 6, 8, None, findings)


def test_as_roifile_reads_it(read, tmp_path):
    """A shape of many corners covers what its outline does, within the pixels of its border."""
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    outline = np.stack([50 + 30 * np.cos(angles), 40 + 20 * np.sin(angles)], 1)
    (mask,), _ = read(ImagejRoi.frompoints(outline), height=80, width=100)
    x, y = np.meshgrid(np.arange(100) + 0.5, np.arange(80) + 0.5)
    distance = ((x - 50) / 30) ** 2 + ((y - 40) / 20) ** 2
    assert (np.array(mask)[distance < 0.97] == 1).all()
    assert (np.array(mask)[distance > 1.0] == 0).all()
    assert len(roifile.roiread(tmp_path / "a.zip")) == 1
