"""The competition folder as frames, on a folder of five cells and on the real one."""

from __future__ import annotations

import numpy as np
import pytest

from kitlib.data import competition
from kitlib.errors import KitError
from kitlib.masks import rle


def test_labelled_reads_masks_types_and_groups(competition_folder):
    frames = {frame.id: frame for frame in competition.labelled(competition_folder)}
    first = frames["0030e5"]
    expected = np.zeros((6, 8), bool)
    expected[0:2, 0:2] = True
    assert np.array_equal(rle.to_mask(first.cells[0].mask), expected)
    assert [len(frame.cells) for frame in frames.values()] == [2, 1, 2]
    assert [frame.category for frame in frames.values()] == ["shsy5y", "cort", "astro"]
    assert first.group == "shsy5y[diff]_E10-4_Vessel-714_Ph_3"
    assert frames["001234567890"].group is None
    assert (first.height, first.width) == (6, 8)
    assert not first.pseudo


def test_ids_that_look_like_numbers_stay_text(competition_folder):
    frames = competition.labelled(competition_folder)
    assert [frame.id for frame in frames] == ["0030e5", "001234567890", "1e1234567890"]
    assert [frame.path.name for frame in frames] == ["0030e5.png", "001234567890.png", "1e1234567890.png"]


def test_metadata_columns_may_be_absent(competition_folder):
    table = competition_folder / "train.csv"
    table.write_text("".join(",".join(line.split(",")[:5]) + "\n" for line in table.read_text().splitlines()))
    assert [frame.group for frame in competition.labelled(competition_folder)] == [None] * 3


def test_an_empty_annotation_is_a_frame_without_cells(competition_folder, write_image):
    write_image(competition_folder / "train" / "empty.png")
    with (competition_folder / "train.csv").open("a") as table:
        table.write("empty,,8,6,cort,,,,\n")
    assert competition.labelled(competition_folder)[-1].cells == ()


def test_locate_accepts_the_folder_and_its_parent(competition_folder):
    assert competition.locate(competition_folder) == competition_folder
    assert competition.locate(competition_folder.parent) == competition_folder


def test_unlabelled_takes_type_and_sample_from_the_file_name(competition_folder):
    frames = {frame.id: frame for frame in competition.unlabelled(competition_folder)}
    assert [frame.category for frame in frames.values()] == [None, "astro", "astro", "cort"]
    assert {frame.group for frame in frames.values()} == {
        None,
        "astros[cereb]_D1-1_Vessel-361_Ph_1",  # one sample followed over two days
        "cort[6-OHDA]_B3-2_Vessel-401_Ph_2",
    }
    assert all((frame.height, frame.width, frame.cells) == (7, 9, ()) for frame in frames.values())


def test_the_plate_and_the_day_of_a_file_name():
    name = "cort[density]_B2-1_Vessel-401_2020-05-11_11h30m00s_Ph_2"
    assert competition.day_of(name) == "2020-05-11"
    assert competition.plate_of(name) == "cort[density] Vessel-401"
    assert competition.plate_of(competition.sample_of(name)) == "cort[density] Vessel-401"
    assert competition.day_of(competition.sample_of(name)) is None
    assert competition.plate_of("05c61f0f46b7") is competition.day_of("05c61f0f46b7") is None


def test_the_sample_of_a_file_name_is_the_sample_id_of_the_table():
    name = "shsy5y[diff]_E10-4_Vessel-714_2019-06-16_11h30m00s_Ph_3"
    assert competition.sample_of(name) == "shsy5y[diff]_E10-4_Vessel-714_Ph_3"


def test_test_images_come_sorted_and_bare(competition_folder):
    frames = competition.test(competition_folder)
    assert [(frame.id, frame.cells, frame.category) for frame in frames] == [
        ("00a", (), None),
        ("00b", (), None),
    ]


def test_truth_is_read_where_it_is_kept(competition_folder):
    assert competition.truth(competition_folder) is None
    header = "id,annotation,width,height,cell_type\n"
    (competition_folder / "test_truth.csv").write_text(header + "00a,1 3,8,6,cort\n00b,4 1,8,6,astro\n")
    truth = competition.truth(competition_folder)
    assert [rle.areas([frame.cells[0].mask])[0] for frame in truth] == [3, 1]
    assert truth[0].path == competition_folder / "test" / "00a.png"


def test_a_truth_id_without_its_image_is_named(competition_folder):
    (competition_folder / "test_truth.csv").write_text(
        "id,annotation,width,height,cell_type\n00z,1 3,8,6,cort\n"
    )
    with pytest.raises(KitError, match=r"test_truth\.csv row 2 \(id 00z\) has no image"):
        competition.truth(competition_folder)


def test_bytes_after_a_png_are_no_fault(competition_folder):
    with (competition_folder / "train" / "0030e5.png").open("ab") as image:
        image.write(b"a tool's own notes")
    assert len(competition.labelled(competition_folder)) == 3


def test_the_real_folder(real_competition):
    frames = competition.labelled(real_competition)
    cells = [cell for frame in frames for cell in frame.cells]
    assert (len(frames), len(cells)) == (34, 3195)
    kinds = [frame.category for frame in frames]
    assert [kinds.count(kind) for kind in competition.CATEGORIES] == [10, 19, 5]
    assert min(rle.areas([cell.mask for cell in cells])) > 0
    assert len(competition.test(real_competition)) == 16
    assert len(competition.unlabelled(real_competition)) == 4
    assert competition.truth(real_competition) is None


def test_a_table_in_another_encoding_is_said(competition_folder):
    """As Excel saves "Unicode text"."""
    (competition_folder / "train.csv").write_text("id,annotation,width,height,cell_type\n", encoding="utf-16")
    with pytest.raises(KitError, match=r"train\.csv cannot be read as a CSV table .*utf-8"):
        competition.labelled(competition_folder)
