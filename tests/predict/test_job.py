"""A prediction job: in a child the same as in this process, resumable, honest when it fails."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from kitlib import config, records
from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.masks import rle
from kitlib.predict import PredictConfig, Predicted, PredictJob, run
from kitlib.predict import job as jobs
from kitlib.predict.__main__ import main
from kitlib.predict.predictor import Predictor, predict_frames
from kitlib.predict.progress import Progress, part_file
from kitlib.records import Frame
from kitlib.runtime import cluster

CONFIG = PredictConfig(score_floor=0.0, max_cells=10)


@pytest.fixture
def job(tmp_path, checkpoint, images):
    records.write_frames(tmp_path / "frames.npz", images)
    return PredictJob(
        (str(checkpoint),), str(tmp_path / "frames.npz"), str(tmp_path / "out" / "predictions.csv"), CONFIG
    )


def test_an_interrupted_job_goes_on_and_finds_what_the_model_finds_here(job, network, images):
    folder = jobs._folder(job)
    records.write_frames(part_file(folder, 1), [images[1]])  # done before the interruption: no cells
    (folder.parent / f"{folder.stem}.0123").mkdir()  # of an older job
    result = run(job)
    found = result.frames
    assert result == Predicted(Path(job.out), found, {0.5: found}, {}, result.seconds, {}, result.limited)
    assert [f.id for f in images if f.id in result.seconds] == [images[i].id for i in (0, 2, 3, 4)]
    assert min(result.seconds.values()) > 0
    here = list(predict_frames(Predictor([network], ("astro", "cort", "shsy5y"), CONFIG), images))
    here[1] = images[1]
    assert [f.id for f in found] == [f.id for f in images]
    assert sum(len(f.cells) for f in found) > 20
    for ours, theirs in zip(found, here, strict=True):
        assert [c.mask for c in ours.cells] == [c.mask for c in theirs.cells]
        assert [c.score for c in ours.cells] == pytest.approx([c.score for c in theirs.cells], abs=1e-6)
        assert ours.category == theirs.category
    # Frames in memory are those that the table gives back, but for their images.
    assert tables.read_cells(job.out) == [replace(f, path=None) for f in found]
    assert [p.name for p in folder.parent.iterdir()] == ["predictions.csv"]


def test_nothing_is_started_when_all_is_done(job, images, monkeypatch):
    for i, frame in enumerate(images):
        records.write_frames(part_file(jobs._folder(job), i), [frame])
    monkeypatch.setattr(jobs.launch, "launch", lambda *_, **__: pytest.fail("a child was started"))
    assert len(run(job).frames) == 5


def test_other_settings_frames_or_weights_are_another_job(job, tmp_path, checkpoint, images):
    folders = {jobs._folder(job), jobs._folder(replace(job, config=replace(CONFIG, scales=(2.0,))))}
    records.write_frames(tmp_path / "frames.npz", images[:2])
    folders.add(jobs._folder(job))
    (tmp_path / "w.pth").write_bytes(checkpoint.read_bytes() + b" ")
    folders.add(jobs._folder(replace(job, weights=(str(tmp_path / "w.pth"),))))
    assert len(folders) == 4


def test_processes_share_the_frames(job, images, monkeypatch):
    folder = jobs._folder(job)
    records.write_frames(part_file(folder, 3), [images[3]])
    config.save(job, folder / "job.yaml")
    Progress(folder).assign(images)
    monkeypatch.setattr("sys.argv", ["kitlib.predict", str(folder / "job.yaml")])
    monkeypatch.setenv("WORLD_SIZE", "3")
    left = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        main()
        left.append(Progress(folder).unfinished(images))
    assert left == [[1, 2, 4], [2], []]  # frames 0 and 3 (done before), then 1 and 4, then 2
    assert len(Progress(folder).last("cells")) == 4


@pytest.mark.usefixtures("predict_here")
def test_a_killed_run_goes_on_without_doubles(job, images):
    many = [replace(images[i % 5], id=f"frame{i}") for i in range(15)]
    records.write_frames(job.frames, many)
    code = "import sys; from kitlib import config, predict; "
    code += "predict.run(config.load(predict.PredictJob, sys.argv[1]))"
    description = config.save(job, Path(job.frames).with_name("job.yaml"))
    process = subprocess.Popen([sys.executable, "-c", code, str(description)], stdout=subprocess.DEVNULL)
    folder = jobs._folder(job)
    while len(Progress(folder).unfinished(many)) > 12:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert len(Progress(folder).unfinished(many)) > 0
    found = run(job).frames
    assert [f.id for f in found] == [f.id for f in many]
    for i in range(5, 15):
        assert [c.mask for c in found[i].cells] == [c.mask for c in found[i % 5].cells]


@pytest.mark.usefixtures("predict_here")
def test_several_weights_and_mask_thresholds(job, other_checkpoints):
    settings = replace(CONFIG, candidate_mask_thresholds=(0.4, 0.55), tta=("none", "flip_h"))
    result = run(replace(job, weights=(*job.weights, str(other_checkpoints[0])), config=settings))
    candidates = result.by_mask_threshold
    assert list(candidates) == [0.4, 0.55]
    areas = {k: sum(rle.areas([c.mask for f in found for c in f.cells])) for k, found in candidates.items()}
    assert {tuple(f.category for f in found) for found in candidates.values()} == {
        tuple(f.category for f in result.frames)
    }
    assert areas[0.4] > sum(rle.areas([c.mask for f in result.frames for c in f.cells])) > areas[0.55]
    assert {c.agreement for f in result.frames for c in f.cells} <= {0.25, 0.5, 0.75, 1.0}


@pytest.mark.usefixtures("predict_here")
def test_models_of_other_types_are_no_ensemble(job, other_checkpoints):
    with pytest.raises(
        KitError, match=r"weights_best\.pth knows the types astro, .*one_class\.pth knows cell"
    ):
        run(replace(job, weights=(*job.weights, str(other_checkpoints[1]))))


@pytest.mark.usefixtures("predict_here")
def test_a_bad_image_is_noted_and_left_out(job, tmp_path, images, capsys):
    (tmp_path / "short.png").write_bytes(images[4].path.read_bytes()[:300])
    (tmp_path / "text.png").write_text("no image")
    bad = [
        replace(images[0], id="short", path=tmp_path / "short.png"),
        replace(images[0], id="text", path=tmp_path / "text.png"),
        replace(images[0], id="size", height=95),
        replace(images[0], id="none", path=None),
    ]
    records.write_frames(job.frames, [*bad, images[4]])
    result = run(job)
    found = result.frames
    assert [f.id for f in found] == ["short", "text", "size", "none", images[4].id]
    assert [len(f.cells) > 0 for f in found] == [False] * 4 + [True]
    assert list(result.skipped) == ["short", "text", "size", "none"]
    assert "short.png cannot be read" in result.skipped["short"]
    assert "text is left out: " in capsys.readouterr().out


LETHAL = """
import os, runpy, sys
from kitlib.predict import predictor
see = predictor.Predictor.see
def killing(self, images):
    if images[0].shape == (64, 64):
        os.kill(os.getpid(), 9)
    if images[0].shape == (65, 65):
        raise ZeroDivisionError("not this image's fault")
    return see(self, images)
predictor.Predictor.see = killing
"""


def test_an_image_that_kills_the_process_costs_only_itself(job, tmp_path, images, monkeypatch, capsys):
    (tmp_path / "sitecustomize.py").write_text(LETHAL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(jobs, "RESTARTS", 1)  # the process of the last attempt dies as well
    bad = []
    for side in (64, 65):
        path = tmp_path / f"{side}.png"
        Image.new("L", (side, side)).save(path)
        bad.append(Frame(path.stem, path, side, side))
    records.write_frames(job.frames, [images[0], *bad, images[1]])
    result = run(job)
    assert [len(f.cells) > 0 for f in result.frames] == [True, False, False, True]
    assert "process died" in result.skipped["64"]
    assert result.skipped["65"] == "ZeroDivisionError: not this image's fault"
    assert "killed by SIGKILL" in capsys.readouterr().out


@pytest.mark.usefixtures("predict_here")
def test_batches_of_frames_and_workers_find_the_same(job, images, network):
    """Frames of two sizes, one of them in which nothing reaches the score floor."""
    wide = [replace(f, id=f"wide{f.id}") for f in images[:2]]
    for frame in wide:
        path = frame.path.with_name(f"{frame.id}.png")
        Image.open(frame.path).crop((0, 0, 128, 64)).save(path)
    wide = [replace(f, path=f.path.with_name(f"{f.id}.png"), height=64) for f in wide]
    records.write_frames(job.frames, [*images[:3], *wide, *images[3:]])
    settings = replace(CONFIG, tta=("none", "flip_h"), score_floor=0.0)
    plain = run(replace(job, config=replace(settings, workers=0))).frames
    highest = sorted(max(c.score for c in f.cells) for f in plain)
    settings = replace(settings, score_floor=(highest[0] + highest[1]) / 2)
    plain = run(replace(job, config=replace(settings, workers=0))).frames
    assert 1 in {len(f.cells) for f in plain}
    found = run(replace(job, config=replace(settings, batch=4, workers=2)))
    assert len(found.seconds) == 7
    for ours, theirs in zip(found.frames, plain, strict=True):
        assert (ours.id, ours.category) == (theirs.id, theirs.category)
        assert [c.mask for c in ours.cells] == [c.mask for c in theirs.cells]
        assert [c.score for c in ours.cells] == pytest.approx([c.score for c in theirs.cells], abs=1e-5)


LETHAL_CELLS = """
import os
from kitlib.predict import cells
make = cells.make
def killing(seen, faint=None):
    if seen.size == (64, 64):
        os.kill(os.getpid(), 9)
    return make(seen, faint)
cells.make = killing
"""


@pytest.mark.usefixtures("predict_here")
def test_a_killed_worker_costs_its_own_frame_alone(job, tmp_path, images, monkeypatch, capsys):
    (tmp_path / "sitecustomize.py").write_text(LETHAL_CELLS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    Image.new("L", (64, 64)).save(tmp_path / "64.png")
    lethal = Frame("64", tmp_path / "64.png", 64, 64)
    records.write_frames(job.frames, [images[0], lethal, *images[1:]])
    result = run(replace(job, config=replace(CONFIG, workers=1)))
    assert [len(f.cells) > 0 for f in result.frames] == [True, False, True, True, True, True]
    assert list(result.skipped) == ["64"]
    assert "a worker process was killed by SIGKILL" in capsys.readouterr().out


@pytest.mark.usefixtures("predict_here")
def test_a_full_disk_is_no_frame_s_fault(job, monkeypatch, images):
    write = records.write_frames

    def write_frames(path, frames):
        if path.stem == "000004":
            raise KitError(f"cannot write {path}: no space left on device; free some")
        return write(path, frames)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_frames", write_frames)
        with pytest.raises(KitError, match="no space left on device; free some"):
            run(job)
    result = run(job)  # there is space again
    assert result.skipped == {}
    assert len(result.frames[4].cells) > 0


def test_processes_that_start_late_leave_the_others_frames_alone(tmp_path, images):
    progress = Progress(tmp_path)
    progress.assign(images)
    progress.begun(images[1])  # the second process was faster
    assert [progress.assigned(rank, 2) for rank in (0, 1)] == [[0, 2, 4], [1, 3]]
    progress.assign(images)  # it died; the frame comes last, to the first process
    assert [progress.assigned(rank, 2) for rank in (0, 1)] == [[0, 2, 4, 1], [3]]


@pytest.mark.usefixtures("predict_here")
def test_without_time_nothing_is_predicted(job, images):
    with pytest.raises(KitError, match="not one image could be predicted; there was no time left"):
        run(replace(job, until=time.monotonic() - 1))


@pytest.mark.usefixtures("predict_here")
def test_an_image_for_which_no_time_is_left_is_skipped_the_others_stay(job, images):
    part_done = jobs._folder(job)
    records.write_frames(part_file(part_done, 0), [images[0]])
    result = run(replace(job, until=time.monotonic() - 1))
    assert list(result.skipped) == [f.id for f in images[1:]]


@pytest.mark.usefixtures("predict_here")
def test_without_a_single_good_image_the_job_fails_and_can_be_repeated(job, tmp_path, images):
    bad = replace(images[0], path=tmp_path / "new.png")
    records.write_frames(job.frames, [bad])
    with pytest.raises(KitError, match=r"not one image could be predicted; .*new\.png does not exist"):
        run(job)
    bad.path.write_bytes(images[0].path.read_bytes())
    assert len(run(job).frames[0].cells) > 0


def test_missing_files_are_said_before_anything_starts(job):
    with pytest.raises(KitError, match="train first"):
        run(replace(job, weights=("nowhere.pth",)))
    with pytest.raises(KitError, match="does not exist"):
        run(replace(job, frames="nowhere.npz"))


def test_asking_for_a_job_imports_no_torch():
    code = "import sys, kitlib.predict.pseudo, kitlib.post.tuning.search; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_job_without_frames_starts_no_process_and_leaves_an_empty_table(job, monkeypatch):
    monkeypatch.setattr(jobs.launch, "launch", lambda *args, **kwargs: pytest.fail("there is nothing to do"))
    records.write_frames(job.frames, [])
    assert run(job).frames == []


def test_frames_of_a_lost_node_are_shared_out_anew(job, images, monkeypatch, capsys):
    """The second of two launches does its share, and the first one's node is lost."""
    left = []

    def run_share(wanted, gpus):
        (one,) = wanted
        monkeypatch.setattr("sys.argv", [one.module, *one.args])
        monkeypatch.setenv("KIT_SHARE", "0 1" if left else "1 2")
        main()
        left.append(Progress(one.out).unfinished(images))
        if len(left) == 1:
            assert (one.out / "progress.1.jsonl").exists()
            raise cluster.NodeLost("a node of the cluster was lost")

    monkeypatch.setattr(jobs.engine, "run", run_share)
    found = run(job)
    assert left == [[0, 2, 4], []]
    assert set(found.seconds) == {frame.id for frame in images}
    assert "a node of the cluster was lost; going on with the other images" in capsys.readouterr().out
