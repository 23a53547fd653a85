"""Jobs on a real Ray cluster of two nodes on this machine, and a training whose node is lost."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from kitlib import train
from kitlib.errors import KitError
from kitlib.model import checkpoint
from kitlib.runtime import cluster, engine
from kitlib.train import resume
from kitlib.train.build import build
from kitlib.train.processes import Processes

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install ray")
from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = pytest.mark.slow

# A child says where it is, waits for the file "go" if it is asked to, or fails.
CHILD = """
import json, os, sys, time
from pathlib import Path
from kitlib.errors import KitError
from kitlib.runtime import launch

what, out = sys.argv[1], Path(sys.argv[2])

def main():
    row = {"share": launch.share(), "rank": os.environ["RANK"], "world": os.environ["WORLD_SIZE"]}
    row["parent"] = os.getppid()
    with (out / launch.progress_of_share("rows.jsonl")).open("a") as rows:
        rows.write(json.dumps({**row, "pid": os.getpid()}) + "\\n")
    if what == "fail":
        raise KitError("train.csv, row 7: an odd number of RLE numbers; remove the row")
    while what == "wait" and not (out / "go").exists():
        time.sleep(0.05)

launch.child(main)
"""
# Notices a lost node within a second.
SYSTEM = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 300,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A cluster of two nodes, on which the jobs of this process run."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "kit_cluster_child.py").write_text(CHILD)
    # Each process of Ray imports it through jsonschema, for a kind of text that it never checks: 3 s each.
    (folder / "rfc3987_syntax.py").write_text("raise ImportError")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)
        options = {"num_cpus": 1, "object_store_memory": 80 << 20}
        head = {**options, "include_dashboard": False, "_system_config": SYSTEM}
        made = started(lambda: Cluster(initialize_head=True, head_node_args=head))
        started(lambda: made.add_node(**options))
        engine.choose("ray", made.address)
        yield made
        engine.choose("local")
        ray.shutdown()
        made.shutdown()


def started(start):
    """What starts a node, again where the machine is so busy that Ray's own limit of 15 s is too short."""
    for _ in range(2):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return start()


@pytest.fixture
def make_job(tmp_path, nodes):
    """Makes jobs of the child, which hand their rows to the list ``make_job.rows``."""

    def make(what, name="out", **fields):
        out = tmp_path / name
        out.mkdir()
        arguments = ("kit_cluster_child", (what, str(out)), out, "rows.jsonl", make.rows.append)
        return engine.Job(*arguments, **fields)

    make.rows = []
    return make


@pytest.fixture(scope="module")
def plain(make_config_in, tmp_path_factory):
    """The configuration of a training of six iterations that this process has done."""
    config = make_config_in(tmp_path_factory.mktemp("plain"), max_iter=6, checkpoint_every=2, val="")
    build(config, Processes(rank=0, world=1, device=torch.device("cpu"))).run()
    return config


def test_each_node_takes_its_share(make_job):
    job = make_job("do", is_shared_out=True)
    engine.run([job])
    assert sorted(row["share"] for row in make_job.rows) == [[0, 2], [1, 2]]
    assert (job.out / "log.txt").exists()
    assert (job.out / "node_1" / "log.txt").exists()


def test_processes_of_two_nodes_meet(make_job):
    engine.run([make_job("do")], processes=2)
    assert sorted((row["rank"], row["world"]) for row in make_job.rows) == [("0", "2"), ("1", "2")]


def test_the_sentence_of_a_failed_job_comes_back_and_the_other_is_stopped(make_job):
    jobs = [make_job("wait", "a"), make_job("fail", "b")]
    with pytest.raises(KitError, match=r"^train\.csv, row 7: an odd number of RLE numbers; remove the row$"):
        engine.run(jobs)


def test_a_folder_that_a_node_does_not_see_is_named(nodes, tmp_path):
    cluster.check_folders(tmp_path / "out", tmp_path)
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(KitError, match=r"^node 0: .* does not see .*/nowhere of this host; put it on a file"):
        cluster.check_folders(tmp_path / "out", tmp_path / "nowhere")


def test_a_share_is_lost_alone(make_job):
    """Ray's process on one node is killed, which runs one of two launches."""
    job = make_job("wait", is_shared_out=True)

    def lose_one():
        wait_for(lambda: len(make_job.rows) == 2)
        os.kill(make_job.rows[1]["parent"], signal.SIGKILL)
        time.sleep(0.5)
        (job.out / "go").touch()

    with in_background(lose_one), pytest.raises(cluster.NodeLost, match="was lost while it ran kit_cluster_"):
        engine.run([job])


def test_a_training_goes_on_from_its_checkpoint_when_its_node_is_lost(
    plain, make_job, nodes, tmp_path, capsys
):
    """A first job keeps the head busy until the training has a checkpoint on the other node, then lost."""
    busy, config = make_job("wait", "busy"), replace(plain, out=str(tmp_path / "cluster"))

    def lose_a_node():
        wait_for(resume.last(config.out).exists)
        # It must not come to its end in the time that Ray takes to end a node.
        training = process_of(config.out)
        os.kill(training, signal.SIGSTOP)
        launcher = psutil.Process(training).parent()
        (busy.out / "go").touch()
        nodes.remove_node(nodes.list_all_nodes()[1], allow_graceful=False)
        # While it lives, it would report the killed training, and not the node's loss.
        wait_for(lambda: not launcher.is_running() or launcher.status() == psutil.STATUS_ZOMBIE)
        with suppress(ProcessLookupError):
            os.kill(training, signal.SIGKILL)

    with ThreadPoolExecutor() as pool:
        head = pool.submit(engine.run, [busy])
        wait_for(lambda: make_job.rows)
        loss = pool.submit(lose_a_node)
        found = train.run(config)
        head.result(), loss.result()
    assert "it goes on elsewhere from the last checkpoint" in capsys.readouterr().out
    assert found.iteration == 6
    pairs = zip(tensors(found.last), tensors(Path(plain.out) / "weights_last.pth"), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def process_of(out):
    """The process of a training in a folder."""
    name = b"KIT_ERROR_FILE=" + bytes(Path(out) / "error.json")
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if name in path.read_bytes().split(b"\0"):
                return int(path.parent.name)
    raise AssertionError("it has ended")


def tensors(path):
    return checkpoint.load(path).tensors.values()


def wait_for(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@contextmanager
def in_background(function):
    with ThreadPoolExecutor() as pool:
        done = pool.submit(function)
        yield
    done.result()
