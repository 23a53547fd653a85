"""A prediction job in its child process: the same as in this one, resumable, honest when it fails."""

import subprocess
import sys
from dataclasses import replace

import pytest

from kitlib import config, records
from kitlib.data import tables
from kitlib.errors import KitError
from kitlib.predict import PredictConfig, PredictJob, run
from kitlib.predict import job as jobs
from kitlib.predict.__main__ import main
from kitlib.predict.infer import predict_frames
from kitlib.predict.predictor import Predictor

CONFIG = PredictConfig(score_floor=0.0, max_cells=10)


@pytest.fixture
def job(tmp_path, checkpoint, images):
    records.write_frames(tmp_path / "frames.jsonl", images)
    return PredictJob(
        (str(checkpoint),), str(tmp_path / "frames.jsonl"), str(tmp_path / "out" / "predictions.csv"), CONFIG
    )


def test_an_interrupted_job_goes_on_and_finds_what_the_model_finds_here(job, network, images):
    folder = jobs._folder(job)
    records.write_frames(jobs.part(folder, 1), [images[1]])  # done before the interruption: no cells
    (folder.parent / f"{folder.stem}.0123").mkdir()  # of an older job
    found = tables.read_cells(run(job))
    here = list(predict_frames(Predictor([network], ("astro", "cort", "shsy5y"), CONFIG), images))
    here[1] = images[1]
    assert [f.id for f in found] == [f.id for f in images]
    assert sum(len(f.cells) for f in found) > 20
    for ours, theirs in zip(found, here, strict=True):
        assert [c.mask for c in ours.cells] == [c.mask for c in theirs.cells]
        assert [c.score for c in ours.cells] == pytest.approx([c.score for c in theirs.cells], abs=1e-6)
    assert [p.name for p in folder.parent.iterdir()] == ["predictions.csv"]


def test_nothing_is_started_when_all_is_done(job, images, monkeypatch):
    for i, frame in enumerate(images):
        records.write_frames(jobs.part(jobs._folder(job), i), [frame])
    monkeypatch.setattr(jobs.launch, "launch", lambda *_, **__: pytest.fail("a child was started"))
    assert len(tables.read_cells(run(job))) == 5


def test_other_settings_frames_or_weights_are_another_job(job, tmp_path, checkpoint, images):
    folders = {jobs._folder(job), jobs._folder(replace(job, config=replace(CONFIG, scales=(2.0,))))}
    records.write_frames(tmp_path / "frames.jsonl", images[:2])
    folders.add(jobs._folder(job))
    (tmp_path / "w.pth").write_bytes(checkpoint.read_bytes() + b" ")
    folders.add(jobs._folder(replace(job, weights=(str(tmp_path / "w.pth"),))))
    assert len(folders) == 4


def test_processes_share_the_frames(job, images, monkeypatch):
    folder = jobs._folder(job)
    records.write_frames(jobs.part(folder, 3), [images[3]])
    config.save(job, folder / "job.yaml")
    monkeypatch.setattr("sys.argv", ["kitlib.predict", str(folder / "job.yaml")])
    monkeypatch.setenv("WORLD_SIZE", "3")
    left = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        main()
        left.append(jobs.unfinished(folder, images))
    assert left == [[1, 2, 4], [2], []]  # frames 0 and 3 (done before), then 1 and 4, then 2
    assert len((folder / jobs.PROGRESS).read_text().splitlines()) == 4


def test_the_child_s_error_comes_back_and_what_is_done_stays(job, tmp_path, images):
    bad = tmp_path / "image4.png"
    bad.write_bytes(images[4].path.read_bytes()[:300])
    frames = [*images[:4], replace(images[4], path=bad)]
    records.write_frames(job.frames, frames)
    with pytest.raises(KitError, match=r"image4\.png cannot be read"):
        run(job)
    assert jobs.unfinished(jobs._folder(job), frames) == [4]
    assert not jobs.Path(job.out).exists()


def test_missing_files_are_said_before_anything_starts(job):
    with pytest.raises(KitError, match="train first"):
        run(replace(job, weights=("nowhere.pth",)))
    with pytest.raises(KitError, match="does not exist"):
        run(replace(job, frames="nowhere.jsonl"))


def test_asking_for_a_job_imports_no_torch():
    code = "import sys, kitlib.predict.pseudo, kitlib.post.tune; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
