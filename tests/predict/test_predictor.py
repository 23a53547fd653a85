"""Prediction: what becomes of raw instances, with stand-ins whose output is known, and a real tiny model."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.predict.cells import Prediction
from kitlib.predict.config import PredictConfig
from kitlib.predict.predictor import Predictor, predict_frames
from kitlib.predict.views import ORIENTATIONS
from kitlib.records import Cell, Frame

CATEGORIES = ("astro", "cort", "shsy5y")
SIZE = (40, 60)


def cells_in(image, models, **settings):
    return Predictor(models, CATEGORIES, PredictConfig(**settings))(image).tables[0]


def predict(model, **settings):
    return cells_in(np.zeros(SIZE, np.uint8), [model], **settings)


def mask_of(cell):
    return rle.to_mask(cell.mask)


def test_cells_come_best_first_with_their_category(known):
    model = known(SIZE, ([0, 0, 5, 5], 0.3, 2), ([10, 10, 20, 18], 0.9, 1))
    best, other = predict(model)
    assert (best.category, other.category) == ("cort", "shsy5y")
    assert best.score == pytest.approx(0.9)
    assert best.mask_score == pytest.approx(1.0)
    assert best.agreement == 1.0
    expected = np.zeros(SIZE, bool)
    expected[10:18, 10:20] = True
    np.testing.assert_array_equal(mask_of(best), expected)
    assert model.training  # as it came in


def test_equal_scores_keep_the_model_s_order(known):
    cells = predict(known(SIZE, *(([i, 0, i + 5, 5], 0.5, 0) for i in range(20))))
    assert [rle.boxes([c.mask])[0][0] for c in cells] == list(range(20))


def test_the_network_sees_the_scaled_image_and_masks_come_back_in_the_frame(known):
    model = known((60, 90), ([15, 15, 30, 27], 0.9, 0))
    (cell,) = predict(model, scales=(1.5,))
    assert model.seen == [[(3, 60, 90)]]
    assert rle.boxes([cell.mask]).tolist() == [[10, 10, 20, 18]]
    assert rle.height_width(cell.mask) == SIZE


@pytest.mark.parametrize(
    ("category", "shapes"), [(0, [(20, 30)]), (1, [(80, 120), (60, 90)]), (2, [(40, 60)])]
)
def test_a_first_look_tells_the_type_and_its_scales_are_used(known, category, shapes):
    model = known(SIZE, ([10, 10, 20, 18], 0.9, category))
    by_type = {"astro": (0.5,), "cort": (2.0, 1.5)}
    cells = predict(model, scales_by_type=by_type, candidate_mask_thresholds=(0.4,))
    assert model.seen == [[(3, 40, 60)], *([(3, *shape)] for shape in shapes)]
    assert {c.category for c in cells} == {CATEGORIES[category]}


def test_the_first_model_alone_tells_the_type(known):
    models = [known(SIZE, ([10, 10, 20, 18], 0.2, 0)), known(SIZE, ([10, 10, 20, 18], 0.9, 1))]
    config = PredictConfig(scales=(1.0, 1.5), scales_by_type={"astro": (0.5,), "cort": (2.0,)})
    Predictor(models, CATEGORIES, config)(np.zeros(SIZE, np.uint8))
    assert [model.seen for model in models] == [[[(3, 40, 60)], [(3, 20, 30)]], [[(3, 20, 30)]]]


def test_scales_of_a_type_that_the_model_does_not_know(known):
    with pytest.raises(KitError, match="type in scales_by_type: 'asto': did you mean 'astro'"):
        predict(known(SIZE), scales_by_type={"asto": (0.5,)})


def test_a_frame_in_which_nothing_is_seen_is_looked_at_at_the_common_scale(known):
    model = known(SIZE)
    assert predict(model, scales=(0.5,), scales_by_type={"astro": (2.0,)}) == ()
    assert {shape for batch in model.seen for shape in batch} == {(3, 20, 30)}


def test_rounded_sizes_are_stretched_on_each_axis(known):
    model = known((8, 13), ([0, 0, 13, 8], 0.9, 0))  # 0.21 x (40, 60) is 8.4 x 12.6
    (cell,) = predict(model, scales=(0.21,))
    assert model.seen == [[(3, 8, 13)]]
    assert mask_of(cell).all()


def test_floor_limit_and_masks_that_vanish(known):
    boxes = [[0, 0, 9, 9], [10, 0, 19, 9], [20, 0, 29, 9], [30, 0, 30.2, 0.2], [40, 0, 49, 9]]
    model = known(SIZE, *zip(boxes, [0.9, 0.2, 0.8, 0.95, 0.1], [0] * 5, strict=True))
    cells = predict(model, score_floor=0.15, max_cells=3)
    assert [round(c.score, 2) for c in cells] == [0.9, 0.8]  # the best vanished


def test_mask_thresholds_candidates_and_the_mean_probability(known):
    squares = np.full((2, 1, 28, 28), 0.48, np.float32)
    squares[:, :, :, 14:] = 0.8
    model = known(SIZE, ([0, 0, 28, 28], 0.9, 1), ([30, 0, 58, 28], 0.3, 0), squares=squares)
    half, _ = predict(model)
    assert mask_of(half).sum() == 28 * 14
    assert half.mask_score == pytest.approx(0.8)
    whole, other = predict(model, mask_threshold={"default": 0.5, "cort": 0.45})
    assert mask_of(whole).sum() == mask_of(other).sum() == 28 * 28  # the frame votes for cort
    assert whole.mask_score == pytest.approx(0.64)
    config = PredictConfig(candidate_mask_thresholds=(0.45, 0.9))
    tables = Predictor([model], CATEGORIES, config)(np.zeros(SIZE, np.uint8)).tables
    assert [[mask_of(c).sum() for c in cells] for cells in tables] == [[392, 392], [784, 784], []]


@pytest.mark.parametrize(("floor", "category"), [(0.05, "astro"), (0.3, "cort")])
def test_all_instances_above_the_floor_vote_for_the_type(known, floor, category):
    """Two instances of astro have 0.2 and 0.25, one of cort 0.4."""
    found = ([0, 0, 9, 9], 0.2, 0), ([20, 0, 29, 9], 0.25, 0), ([40, 0, 49, 9], 0.4, 1)
    config = PredictConfig(score_floor=floor, candidate_mask_thresholds=(0.4,))
    prediction = Predictor([known(SIZE, *found)], CATEGORIES, config)(np.zeros(SIZE, np.uint8))
    assert prediction.category == category
    frames = prediction.frames(Frame("a", None, *SIZE, category="shsy5y", group="g"))
    assert [(f.category, f.group, f.cells) for f in frames] == [
        (category, "g", cells) for cells in prediction.tables
    ]


def test_scores_are_those_that_a_table_gives_back(known, tmp_path):
    model = known(SIZE, ([0, 0, 9, 9], 2 / 3, 1), ([20, 0, 29, 9], 1 / 3, 0))
    frame = Predictor([model], CATEGORIES, PredictConfig())(np.zeros(SIZE, np.uint8)).frames(
        Frame("a", None, *SIZE)
    )[0]
    assert [c.score for c in frame.cells] == [0.666667, 0.333333]
    assert tables.read_cells(tables.write_predictions(tmp_path / "p.csv", [frame])) == [frame]


def test_nothing_found(known):
    assert predict(known(SIZE)) == ()


def test_the_best_instance_stays_whatever_its_score(known):
    model = known(SIZE, ([0, 0, 9, 9], 0.01, 0), ([10, 0, 19, 9], 0.02, 1))
    assert [c.category for c in predict(model)] == ["cort"]


@pytest.mark.parametrize(("batch", "seen"), [(1, [1] * 8), (3, [3, 1, 3, 1]), (8, [4, 4])])
def test_views_of_equal_shape_go_through_the_network_together(known, batch, seen):
    model = known(SIZE)
    predict(model, tta=tuple(ORIENTATIONS), batch=batch)
    assert [len(batch) for batch in model.seen] == seen * 2  # a second time for the best below the floor
    assert {shape for batch in model.seen for shape in batch} == {(3, 40, 60), (3, 60, 40)}


@st.composite
def scattered(draw):
    """A frame with pieces of at most 8 x 8 pixels, at least 2 apart, and the mask of each."""
    frame, masks = np.zeros((48, 64), np.uint8), []
    for y in range(1, 48, 12):
        for x in range(1, 53, 12):
            if draw(st.booleans()):
                rng = np.random.default_rng(draw(st.integers(0, 99)))
                height, width = rng.choice([3, 4, 6, 8], 2)
                noise = rng.random((height, width)) < 0.75
                _, labels, stats, _ = cv2.connectedComponentsWithStats(noise.astype(np.uint8))
                piece = labels == 1 + stats[1:, 4].argmax() if len(stats) > 1 else noise
                dy, dx = rng.integers(0, 3, 2)
                mask = np.zeros(frame.shape, bool)
                mask[y + dy : y + dy + height, x + dx : x + dx + width] = piece
                masks += [mask] if piece.any() else []
                frame[mask] = 255
    return frame, masks


def counts(masks):
    return sorted(rle.from_mask(m)["counts"] for m in masks)


@pytest.mark.parametrize("fuse", ["wbf", "nms"])
@pytest.mark.parametrize(
    "look",
    [
        *({"tta": (orientation,)} for orientation in ORIENTATIONS),
        {"tta": tuple(ORIENTATIONS), "batch": 4},
        {"scales": (2.0,)},
        {"scales": (3.0,), "tta": ("rot90", "flip_v")},
        {"scales": (1.0, 2.0, 3.0)},
        {"tile": (16, 24)},
        {"tile": (20, 19), "stride": (9, 7)},
        {"tile": (24, 32), "tta": ("rot90", "flip_h"), "scales": (1.0, 2.0)},
        {"tile": (999, 999)},
    ],
)
@settings(max_examples=10)
@given(scattered())
def test_what_is_found_does_not_depend_on_the_views(blobs, fuse, look, drawn):
    frame, masks = drawn
    plain = cells_in(frame, [blobs])
    assert counts(map(mask_of, plain)) == counts(masks)
    cells = cells_in(frame, [blobs], fuse=fuse, **look)
    assert counts(map(mask_of, cells)) == counts(masks)
    assert all((c.agreement, c.category) == (1.0, "astro") for c in cells)
    assert [c.score for c in cells] == pytest.approx([0.9] * len(cells))


def test_a_cell_larger_than_the_overlap_becomes_one_again(blobs):
    frame = np.zeros((40, 60), np.uint8)
    frame[10:20, 10:40] = 255
    # No tile holds columns 10 to 40, and with hardly any overlap the pieces stay two.
    cells = cells_in(frame, [blobs], tile=(40, 32), stride=(40, 4), fuse_iou=0.5)
    pieces = cells_in(frame, [blobs], tile=(40, 32), stride=(40, 28), fuse_iou=0.5)
    assert len(cells) == 1
    assert len(pieces) == 2
    assert (mask_of(cells[0]) <= (frame > 0)).all()


def test_several_models_each_count(known):
    models = [known(SIZE, ([10, 10, 20, 20], 0.8, 1)), known(SIZE, ([10, 10, 20, 20], 0.4, 2))]
    (cell,) = cells_in(np.zeros(SIZE, np.uint8), models)
    assert (cell.category, cell.score, cell.agreement) == ("cort", pytest.approx(0.6), 1.0)
    models.append(known(SIZE))
    (cell,) = cells_in(np.zeros(SIZE, np.uint8), models)
    assert (cell.score, cell.agreement) == (pytest.approx(0.4), pytest.approx(2 / 3))


def test_the_same_masks_as_detectron2_s_own_postprocessing(network, images):
    network.eval()
    for frame in images[:2]:
        grey = np.asarray(Image.open(frame.path))
        cells = cells_in(grey, [network], scales=(1.5,), score_floor=0.0, max_cells=30)
        larger = cv2.resize(grey, (192, 144), interpolation=cv2.INTER_LINEAR)
        given = {"image": torch.from_numpy(larger).expand(3, -1, -1), "height": 96, "width": 128}
        with torch.inference_mode():
            theirs = network.inference([given])[0]["instances"]
        full = [m for m in theirs.pred_masks.numpy() if m.any()]
        assert len(cells) > 10
        for cell, mask in zip(cells, full, strict=False):
            ours = mask_of(cell)
            assert (ours & mask).sum() >= 0.99 * (ours | mask).sum() - 1
    network.train()


def test_the_floor_and_the_number_of_cells_hold_in_the_network_and_are_put_back(network, images):
    grey = np.asarray(Image.open(images[0].path))

    def state():
        heads = [(p.test_score_thresh, p.test_topk_per_image) for p in network.roi_heads.box_predictor]
        return heads, network.proposal_generator.post_nms_topk, network.training

    before = state()
    cells = cells_in(grey, [network], score_floor=0.0, max_cells=7)
    assert 3 < len(cells) <= 7
    between = (cells[2].score + cells[3].score) / 2
    fewer = cells_in(grey, [network], score_floor=between, max_cells=7)
    assert [c.score for c in fewer] == pytest.approx([c.score for c in cells[:3]], abs=1e-5)
    assert state() == before


class Small:
    """Makes a model run out of memory on too many pixels or too many proposals."""

    def __init__(self, model, error, pixels=10**9, proposals=10**9):
        self.inner, self.error, self.pixels, self.proposals, self.seen = model, error, pixels, proposals, []
        self.inference, model.inference = model.inference, self

    def __call__(self, inputs, do_postprocess=True):
        shown = sum(i["image"][0].numel() for i in inputs)
        proposals = self.inner.post_nms_topk[False]
        self.seen.append((shown, proposals))
        if shown > self.pixels or proposals > self.proposals:
            raise self.error
        return self.inference(inputs, do_postprocess)


GPU = torch.cuda.OutOfMemoryError("CUDA out of memory")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you ..."
)


@pytest.mark.parametrize("error", [GPU, CPU, MemoryError()])
@pytest.mark.parametrize(
    ("most", "tries"),
    [
        ({"proposals": 500}, [(2400, 1000), (2400, 500)]),
        ({"proposals": 250}, [(2400, 1000), (2400, 500), (2400, 250)]),
        ({"pixels": 600}, [(2400, 1000), (2400, 500), (2400, 250), *[(600, 250)] * 9]),
    ],
)
def test_out_of_memory_means_fewer_proposals_and_then_smaller_tiles(known, error, most, tries):
    model = known(SIZE, ([1, 1, 9, 9], 0.9, 0))
    model.post_nms_topk = {True: 2000, False: 1000}
    small = Small(model, error, **most)
    assert predict(model)
    assert small.seen == tries
    assert model.post_nms_topk == {True: 2000, False: 1000}


def test_out_of_memory_with_several_views_means_one_by_one_first(known):
    model = known(SIZE, ([1, 1, 9, 9], 0.9, 0))
    model.post_nms_topk = {True: 2000, False: 1000}
    small = Small(model, GPU, pixels=2400)
    predictor = Predictor([model], CATEGORIES, PredictConfig(tta=("none", "flip_h"), batch=2))
    # The second image need not find out again.
    for _ in range(2):
        assert predictor(np.zeros(SIZE, np.uint8)).tables[0]
        assert predictor.reduced == ""
    assert small.seen == [(4800, 1000), *[(2400, 1000)] * 4]


def test_what_there_was_no_memory_for_is_noted_of_its_image_alone(known):
    model = known(SIZE, ([1, 1, 9, 9], 0.9, 0))
    model.post_nms_topk = {True: 2000, False: 1000}
    small = Small(model, GPU, proposals=250)
    predictor = Predictor([model], CATEGORIES, PredictConfig())
    predictor(np.zeros(SIZE, np.uint8))
    assert predictor.reduced == "75% of the proposals"
    small.proposals, small.pixels = 10**9, 600
    predictor(np.zeros(SIZE, np.uint8))
    assert predictor.reduced == "75% of the proposals, seen in tiles of 1/2 of the sides"
    small.pixels = 10**9
    predictor(np.zeros(SIZE, np.uint8))
    assert predictor.reduced == ""


def test_mixed_precision_finds_what_full_precision_finds(network, images):
    """What a GPU does by itself, here asked of the CPU: no layer on the way refuses halved numbers."""
    image = np.asarray(Image.open(images[0].path).convert("L"))
    predictor = Predictor([network], CATEGORIES, PredictConfig(score_floor=0.0, max_cells=20))
    full = predictor(image).tables[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = predictor(image).tables[0]
    assert len(half) >= 5
    assert [c.score for c in half[:5]] == pytest.approx([c.score for c in full[:5]], abs=0.02)


def test_what_no_tile_is_small_enough_for(known):
    model = known(SIZE)
    model.post_nms_topk = {True: 2000, False: 1000}
    Small(model, GPU, pixels=100)
    with pytest.raises(KitError, match="60 x 40 pixels needs more memory"):
        predict(model)
    Small(model, RuntimeError("no such operator"), pixels=100)
    with pytest.raises(RuntimeError, match="no such operator"):
        predict(model)


# -------------------------------------------------------------------------------------------- frames


@pytest.fixture
def frames(tmp_path):
    made = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.full((40, 60), i, np.uint8)).save(path)
        made.append(Frame(str(i), path, 40, 60, category="cort", group="g"))
    return made


def first_pixel(image):
    """A predictor whose cell says which image it saw."""
    cell = Cell(rle.from_mask(np.ones((40, 60), bool)), "astro", image[0, 0] / 10)
    return Prediction("astro", [(cell,), ()])


def test_frames_have_the_predicted_type_and_stay_else_as_they_were(frames):
    found = list(predict_frames(first_pixel, frames))
    assert [f.id for f in found] == [f.id for f in frames]
    assert [f.cells[0].score for f in found] == [0, 0.1, 0.2, 0.3, 0.4]
    assert {f.category for f in found} == {"astro"}
    assert found[0].group == "g"
    assert list(predict_frames(first_pixel, [])) == []


def test_a_bad_image_is_named(frames):
    with pytest.raises(KitError, match="frame x has no image file"):
        list(predict_frames(first_pixel, [Frame("x", None, 40, 60)]))
    frames[1].path.write_bytes(frames[0].path.read_bytes()[:60])
    found = predict_frames(first_pixel, frames)
    assert next(found).id == "0"
    with pytest.raises(KitError, match=r"1\.png"):
        next(found)
