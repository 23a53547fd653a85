"""Real children, one alone or several of torchrun: what comes back from them, and that none stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kitlib.errors import KitError
from kitlib.runtime import launch

CHILD = """
import json, os, sys, time
from pathlib import Path
from kitlib.errors import KitError
from kitlib.runtime import launch

what, out, rank = sys.argv[1], Path(sys.argv[2]), int(os.environ["RANK"])
(out / f"pid{rank}").write_text(str(os.getpid()))

def main():
    if what == "rows":
        print("threads", os.environ["OMP_NUM_THREADS"], "gpus", launch.gpus_asked(), "of", os.getppid())
        with (out / "metrics.jsonl").open("a") as rows:
            for i in range(3):
                rows.write(json.dumps({"iteration": i + 1, "total_loss": 1.0 / (i + 1)}) + "\\n")
    if what == "hosts":
        (out / f"world{rank}of{os.environ['WORLD_SIZE']}").touch()
    if what == "bad row":
        raise KitError("train.csv, row 7: an odd number of RLE numbers; remove the row")
    if what == "bug" and rank == 0:
        [][1]
    if what == "killed" and rank == int(os.environ["WORLD_SIZE"]) - 1:
        while not (out / "pid0").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), 9)
    if what in ("killed", "sleep"):
        time.sleep(120)

launch.child(main)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A child module on the path of the processes that launch starts."""
    (tmp_path / "kit_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return "kit_child"


def alive(pid: int) -> bool:
    """Whether the process still runs (a zombie does not)."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def pids(out: Path) -> list[int]:
    return [int(text) for path in sorted(out.glob("pid*")) if (text := path.read_text())]


def test_rows_reach_the_caller_and_one_process_gets_every_core(module, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 9}\n')  # an earlier run's: not repeated
    rows = []
    launch.launch(module, ["rows", tmp_path], tmp_path, on_row=rows.append)
    assert [r["iteration"] for r in rows] == [1, 2, 3]
    assert f"threads {launch.cores()} gpus 0 of {os.getpid()}\n" in (tmp_path / "log.txt").read_text()


def test_the_childs_own_sentence_comes_back(module, tmp_path):
    with pytest.raises(KitError, match=r"^train\.csv, row 7: an odd number of RLE numbers; remove the row$"):
        launch.launch(module, ["bad row", tmp_path], tmp_path)


def test_a_programming_error_names_itself_and_the_log(module, tmp_path):
    with pytest.raises(
        KitError, match=r"IndexError: list index out of range; the whole story is in .*log\.txt"
    ):
        launch.launch(module, ["bug", tmp_path], tmp_path, processes=2)
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_a_process_that_is_killed_alone_is_named_too(module, tmp_path):
    with pytest.raises(launch.Died, match=r"kit_child stopped: it was killed by SIGKILL \(.*log\.txt"):
        launch.launch(module, ["killed", tmp_path], tmp_path)


def test_a_killed_rank_ends_the_whole_run(module, tmp_path):
    start = time.monotonic()
    with pytest.raises(KitError, match=r"process 1 was killed by SIGKILL.*log\.txt"):
        launch.launch(module, ["killed", tmp_path], tmp_path, processes=2)
    assert time.monotonic() - start < 60
    assert len(pids(tmp_path)) == 2
    assert not any(map(alive, pids(tmp_path)))


def test_a_child_is_stopped_when_its_time_is_over(module, tmp_path):
    start = time.monotonic()
    with pytest.raises(KitError, match="kit_child was stopped, as its time was over"):
        launch.launch(module, ["sleep", str(tmp_path)], tmp_path, until=start + 1)
    assert time.monotonic() - start < 60  # it would sleep for 120 s


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("sent", "processes"),
    [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1)],
)
def test_no_orphans_when_the_parent_goes(module, tmp_path, sent, processes):
    out = str(tmp_path)
    # A job in the background would ignore SIGINT.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from kitlib.runtime import launch\n"
    code += f"launch.launch({module!r}, ['sleep', {out!r}], {out!r}, processes={processes})"
    root = Path(launch.__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.DEVNULL) as parent:
        wait_until(lambda: len(pids(tmp_path)) == processes, 60)
        workers = pids(tmp_path)
        os.kill(parent.pid, sent)
        parent.wait(60)
    wait_until(lambda: not any(map(alive, workers)))


def test_torchruns_own_variables_name_the_hosts_too(monkeypatch):
    assert launch._rendezvous(()) == ["--standalone"]
    monkeypatch.setenv("PET_NNODES", "2")
    assert launch._rendezvous(()) == []


def test_a_launch_on_this_host_alone_waits_for_no_other(module, tmp_path, monkeypatch):
    """As a prediction does, while torchrun's variables name a second host for the run's trainings."""
    for name, value in {"NNODES": "2", "RDZV_BACKEND": "c10d", "RDZV_ENDPOINT": "127.0.0.1:1"}.items():
        monkeypatch.setenv(f"PET_{name}", value)
    launch.launch(module, ["hosts", tmp_path], tmp_path)
    assert [p.name for p in tmp_path.glob("world*")] == ["world0of1"]


def test_the_best_known_cause_stays(tmp_path, monkeypatch):
    path = tmp_path / "error.json"
    monkeypatch.setenv("KIT_ERROR_FILE", str(path))
    causes = ["RuntimeError", "ValueError", "killed", "RuntimeError", "KitError", "killed", "KitError"]
    reported = []
    for number, kind in enumerate(causes):
        launch._report(kind, str(number))
        reported.append(json.loads(path.read_text())["error"])
    assert reported == ["0", "0", "2", "2", "4", "4", "4"]


def test_an_unwritable_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KitError, match="cannot write"):
        launch.launch("kit_child", [], tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("ImportError: libtorch.so: failed to map segment from shared object", "there is not enough memory"),
        ("Traceback: something else", "exit status 1"),
    ],
)
def test_a_child_that_ends_for_want_of_memory_is_understood_by_its_own_output(tmp_path, printed, expected):
    log = tmp_path / "log.txt"
    earlier = "an earlier child: MemoryError\n"
    log.write_text(earlier + printed)
    error = launch._failure("kit_child", 1, tmp_path / "error.json", log, len(earlier))
    assert f"kit_child stopped: {expected}" in str(error)
