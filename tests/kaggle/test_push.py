"""kit push and kit submit against a Kaggle on the loopback; what --dry-run prints."""

from __future__ import annotations

import json
import random
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from kaggle_server import TOKEN, Fault

from kitlib.errors import KitError
from kitlib.files import read_json
from kitlib.kaggle import bundle
from kitlib.kaggle.remote import push as pushes
from kitlib.kaggle.remote import submit as submits
from kitlib.kaggle.remote.notebook import log_text, tail
from kitlib.kaggle.remote.push import push
from kitlib.kaggle.remote.submit import submit

SARTORIUS = "sartorius-cell-instance-segmentation"
QUICK = 0.01  # seconds between two looks
WEIGHTS = random.Random(0).randbytes(700_000)
BLOBS = {
    "bundle.json": json.dumps({"run": "demo", "competition": SARTORIUS}).encode(),
    "fold_0.pth": WEIGHTS,
    "kitlib-0.1.0-py3-none-any.whl": b"wheel",
    "post.yaml": b"a: 1\n",
    "SHA256SUMS": b"0  fold_0.pth\n",
}
DATASET = {"title": "kit demo", "id": "INSERT_USER_HERE/kit-demo", "licenses": [{"name": "other"}]}
KERNEL = {
    "id": "INSERT_USER_HERE/kit-demo-submit",
    "title": "kit demo submit",
    "code_file": "06_submit.ipynb",
    "language": "python",
    "kernel_type": "notebook",
    "is_private": True,
    "enable_gpu": True,
    "enable_internet": False,
    "machine_shape": "NvidiaTeslaT4",
    "dataset_sources": ["INSERT_USER_HERE/kit-demo"],
    "competition_sources": [SARTORIUS],
    "kernel_sources": [],
    "model_sources": [],
}
NOTEBOOK = {
    "cells": [{"cell_type": "code", "source": ["print(1)\n", "print(2)"], "outputs": [], "metadata": {}}],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}
SUBMISSION = b"id,predicted\n7ae19de7bc2a,1 2\n"
FAILED_LOG = json.dumps(
    [
        {"stream_name": "stdout", "time": 1.0, "data": "KIT_KAGGLE is /kaggle\n"},
        {
            "stream_name": "stderr",
            "time": 2.5,
            "data": "\x1b[0;31mTraceback\x1b[0m (most recent call last):\n",
        },
        {"stream_name": "stderr", "time": 2.6, "data": f"RuntimeError: CUDA out of memory {TOKEN}\n"},
        {
            "stream_name": "stderr",
            "time": 3.0,
            "data": "[NbConvertApp] Writing 12345 bytes to __results__.html\n",
        },
    ]
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a bundle, as kit bundle leaves it."""
    folder = tmp_path / "outputs" / "demo"
    dataset, kernel = folder / "kaggle" / "dataset", folder / "kaggle" / "kernel"
    dataset.mkdir(parents=True)
    kernel.mkdir()
    for name, data in BLOBS.items():
        (dataset / name).write_bytes(data)
    (dataset / "dataset-metadata.json").write_text(json.dumps(DATASET))
    (kernel / "kernel-metadata.json").write_text(json.dumps(KERNEL))
    (kernel / "06_submit.ipynb").write_text(json.dumps(NOTEBOOK))
    return folder


@pytest.fixture
def wrote(kaggle):
    """What the notebook writes on this Kaggle."""
    files = {
        "submission.csv": SUBMISSION,
        "figures/cells.png": b"png",
        "timing.csv": b"a,b\n",
        "empty.txt": b"",
    }
    kaggle.output.update(files)
    kaggle.log = json.dumps([{"stream_name": "stdout", "time": 1, "data": "all is well\n"}])
    return files


def fetched(run: Path) -> dict[str, bytes]:
    output = run / "kaggle" / "output"
    return {
        path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()
    }


def versions(run: Path) -> tuple[int, int, int]:
    values = read_json(run / "kaggle" / "pushed.json")
    return values["dataset_version"], values["kernel_version"], values["fetched_version"]


# ------------------------------------------------------------------------------------------- push


def test_push_from_end_to_end(run, kaggle, wrote, kit):
    done = kit("push", run, "--every", 0.05)
    assert (done.returncode, done.stderr) == (0, "")
    (version,) = kaggle.datasets["ada/kit-demo"]
    assert version["files"] == BLOBS
    assert (version["title"], version["licenseName"], version["isPrivate"]) == ("kit demo", "other", True)
    (kernel,) = kaggle.kernels["ada/kit-demo-submit"]
    assert kernel["enableInternet"] is False
    assert (kernel["enableGpu"], kernel["isPrivate"], kernel["machineShape"]) == (True, True, "NvidiaTeslaT4")
    assert kernel["datasetDataSources"] == ["ada/kit-demo"]
    assert kernel["competitionDataSources"] == [SARTORIUS]
    assert json.loads(kernel["text"])["cells"][0]["source"] == "print(1)\nprint(2)"
    assert fetched(run) == {**wrote, "kit-demo-submit.log": b"all is well\n"}
    submission = run / "kaggle" / "output" / "submission.csv"
    assert done.stdout.splitlines() == [
        "dataset ada/kit-demo: sending a new one (0.7 MB)",
        "dataset ada/kit-demo: processing",
        "dataset ada/kit-demo: ready",
        "notebook ada/kit-demo-submit: version 1 pushed, https://www.kaggle.com/code/ada/kit-demo-submit",
        "notebook ada/kit-demo-submit: queued",
        "notebook ada/kit-demo-submit: running",
        "notebook ada/kit-demo-submit: complete",
        f"{submission} is the submission; `kit submit {run}` sends it to {SARTORIUS}",
    ]


def test_the_user_is_filled_in_and_no_secret_is_kept(run, kaggle, wrote):
    push(run, every=QUICK)
    kernel = read_json(run / "kaggle" / "kernel" / "kernel-metadata.json")
    assert kernel == json.loads(json.dumps(KERNEL).replace("INSERT_USER_HERE", "ada"))
    assert versions(run) == (1, 1, 1)
    assert not any(TOKEN.encode() in path.read_bytes() for path in run.rglob("*") if path.is_file())


def test_another_push_makes_a_version(run, kaggle, wrote):
    push(run, every=QUICK)
    (run / "kaggle" / "dataset" / "post.yaml").write_bytes(b"a: 2\n")
    push(run, every=QUICK)
    _, second = kaggle.datasets["ada/kit-demo"]
    assert second["files"] == {**BLOBS, "post.yaml": b"a: 2\n"}
    assert second["versionNotes"] == "kit bundle of demo"
    assert versions(run) == (2, 2, 2)


def test_a_dataset_as_it_was_is_not_sent_again(run, kaggle, wrote, capsys):
    push(run, every=QUICK)
    kaggle.asked.clear()
    push(run, every=QUICK)
    assert not {"StartBlobUpload", "CreateDatasetVersion"} & set(kaggle.names())
    assert "dataset ada/kit-demo: version 1 was sent before\n" in capsys.readouterr().out
    # Who pushes a finished notebook wants it run again.
    assert len(kaggle.kernels["ada/kit-demo-submit"]) == 2


def test_a_dataset_that_someone_else_changed_is_sent_again(run, kaggle, wrote):
    push(run, every=QUICK)
    kaggle.datasets["ada/kit-demo"].append({"looks": 5, "files": {}})
    push(run, every=QUICK)
    assert [version["files"] for version in kaggle.datasets["ada/kit-demo"]] == [BLOBS, {}, BLOBS]


def test_a_version_that_is_still_on_its_way_is_not_taken_for_the_newest(run, kaggle, wrote, monkeypatch):
    """The wait for the second one was interrupted; then a third was sent."""
    push(run, every=QUICK)
    monkeypatch.setattr(type(kaggle), "GetDatasetStatus", lambda *_: {"status": "READY"})
    post = run / "kaggle" / "dataset" / "post.yaml"
    for text in (b"a: 2\n", b"a: 3\n"):
        post.write_bytes(text)
        kaggle.fail("GetDataset", Fault(), Fault(400))
        with pytest.raises(KitError, match="400"):
            push(run, every=QUICK)
    kaggle.datasets["ada/kit-demo"][1]["looks"] = 5
    monkeypatch.setattr("time.sleep", lambda seconds: kaggle.datasets["ada/kit-demo"][2].update(looks=5))
    kaggle.states[:] = ["COMPLETE"]
    push(run, every=QUICK)
    sent = kaggle.names()
    assert len(kaggle.datasets["ada/kit-demo"]) == 3
    # Two looks that failed, the state before two uploads, a look at the second and one at the third.
    assert sent[sent.index("CreateDatasetVersion") :].count("GetDataset") == 6
    assert versions(run)[0] == 3


def test_a_record_of_another_version_of_the_kit(run, kaggle, wrote):
    push(run, every=QUICK)
    path = run / "kaggle" / "pushed.json"
    path.write_text(json.dumps({**read_json(path), "kernel": "ada/kit-demo-submit"}))
    push(run, every=QUICK)
    assert len(kaggle.datasets["ada/kit-demo"]) == 1
    path.write_text("[]")
    with pytest.raises(KitError, match=r"pushed.json is not an object of JSON; delete it and push again"):
        push(run, every=QUICK)


def test_no_wait_and_then_wait(run, kaggle, wrote, capsys):
    """The second push goes on with the run of the first, which ends in between or not."""
    assert push(run, wait=False, every=QUICK) is None
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"`kit push {run}` waits for it and fetches what it writes")
    assert "GetKernelSessionStatus" not in kaggle.names()
    push(run, every=QUICK)
    assert len(kaggle.kernels["ada/kit-demo-submit"]) == 1
    assert fetched(run)["submission.csv"] == SUBMISSION


def test_a_notebook_that_ended_while_nobody_waited_is_fetched(run, kaggle, wrote):
    push(run, wait=False, every=QUICK)
    kaggle.states[:] = ["COMPLETE"]
    push(run, every=QUICK)
    assert len(kaggle.kernels["ada/kit-demo-submit"]) == 1
    assert fetched(run)["submission.csv"] == SUBMISSION


def test_the_end_of_an_earlier_run_is_not_taken_for_this_one(run, kaggle, wrote, monkeypatch):
    """Right after the push, Kaggle may still give the state of the version before."""
    push(run, every=QUICK)
    kaggle.states[:] = ["COMPLETE", "ERROR"]
    (run / "kaggle" / "dataset" / "post.yaml").write_bytes(b"a: 2\n")
    monkeypatch.setattr("time.sleep", lambda seconds: kaggle.states.pop(0))
    monkeypatch.setattr(type(kaggle), "GetDatasetStatus", ready_at_once)
    with pytest.raises(KitError, match="ended with 'error'"):
        push(run, every=QUICK)


def ready_at_once(kaggle, values: dict) -> dict:
    for version in kaggle._versions(values):
        version["looks"] = 5
    return {"status": "READY"}


def test_earlier_output_does_not_stay(run, kaggle, wrote):
    push(run, every=QUICK)
    del kaggle.output["submission.csv"]
    with pytest.raises(KitError, match=r"wrote no submission.csv; .*kit-demo-submit.log says why"):
        push(run, every=QUICK)
    assert "submission.csv" not in fetched(run)


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/kit-out.txt", "a\n/../../out.txt", ".."])
def test_output_that_would_leave_its_folder_is_left_out(name, run, kaggle, wrote):
    kaggle.output[name] = b"out"
    kaggle.output["a..b/..c"] = b"a fit name"
    push(run, every=QUICK)
    assert fetched(run) == {**wrote, "a..b/..c": b"a fit name", "kit-demo-submit.log": b"all is well\n"}
    assert not list(run.rglob("out.txt"))
    assert not Path("/tmp/kit-out.txt").exists()


# --------------------------------------------------------------------------------------- failures


def test_a_file_that_kaggle_did_not_take(run, kaggle, wrote):
    """The client makes the dataset without it, and says nothing."""
    kaggle.fail("PUT fold_0.pth", Fault(500))
    with pytest.raises(
        KitError, match=r"fold_0.pth did not arrive in the dataset at .*ada/kit-demo; push again"
    ):
        push(run, every=QUICK)
    assert "SaveKernel" not in kaggle.names()
    push(run, every=QUICK)
    assert kaggle.datasets["ada/kit-demo"][-1]["files"] == BLOBS
    assert fetched(run)["submission.csv"] == SUBMISSION


def test_a_notebook_that_fails(run, kaggle):
    kaggle.states[:] = ["RUNNING", "ERROR"]
    kaggle.failure, kaggle.log = f"Notebook Exceeded  Memory {TOKEN}", FAILED_LOG
    with pytest.raises(KitError) as caught:
        push(run, every=QUICK)
    log = run / "kaggle" / "output" / "kit-demo-submit.log"
    assert str(caught.value).splitlines() == [
        "the notebook's run at https://www.kaggle.com/code/ada/kit-demo-submit ended with 'error' "
        f"(Notebook Exceeded Memory (hidden)); its log is {log}",
        "  KIT_KAGGLE is /kaggle",
        "  Traceback (most recent call last):",
        "  RuntimeError: CUDA out of memory (hidden)",
    ]
    assert "NbConvertApp" in log.read_text()
    assert not any(TOKEN.encode() in path.read_bytes() for path in run.rglob("*") if path.is_file())


def test_a_failed_notebook_is_pushed_again(run, kaggle, wrote):
    kaggle.states[:] = ["ERROR"]
    for _ in range(2):
        with pytest.raises(KitError, match="ended with 'error'"):
            push(run, every=QUICK)
    assert len(kaggle.kernels["ada/kit-demo-submit"]) == 2


@pytest.mark.parametrize("fault", [Fault(503), Fault(cut=5)])
def test_a_submission_that_comes_broken(fault, run, kaggle, wrote):
    """It is fetched again by the next push, which runs no second version."""
    kaggle.fail("GET output/submission.csv", fault)
    words = "connection to Kaggle failed" if fault.cut else "not with id,predicted; push again to fetch it"
    with pytest.raises(KitError, match=words):
        push(run, every=QUICK)
    push(run, every=QUICK)
    assert len(kaggle.kernels["ada/kit-demo-submit"]) == 1
    assert fetched(run)["submission.csv"] == SUBMISSION


def test_a_dataset_that_kaggle_cannot_take_in(run, kaggle, monkeypatch):
    monkeypatch.setattr(
        type(kaggle), "GetDatasetStatus", lambda self, v: self._versions(v) and {"status": "FAILED"}
    )
    with pytest.raises(KitError, match="Kaggle could not take in the dataset"):
        push(run, every=QUICK)
    assert "SaveKernel" not in kaggle.names()


@pytest.mark.parametrize(
    ("request_name", "answer", "words"),
    [
        (
            "CreateDataset",
            {"status": "error", "error": "The requested title is already in use"},
            "cannot send the dataset ada/kit-demo: Kaggle says 'The requested title is already in use'",
        ),
        (  # Kaggle would run the notebook without the competition's data.
            "SaveKernel",
            {"versionNumber": 1, "url": "x", "invalidCompetitionSources": [SARTORIUS]},
            f"it cannot see {SARTORIUS}; accept the rules at .*{SARTORIUS}/rules",
        ),
    ],
)
def test_what_kaggle_refuses_in_an_answer(request_name, answer, words, run, kaggle, monkeypatch):
    monkeypatch.setattr(type(kaggle), request_name, lambda *_: answer)
    if request_name == "SaveKernel":
        monkeypatch.setattr(type(kaggle), "GetDatasetStatus", ready_at_once)
        kaggle.datasets["ada/kit-demo"] = [{"looks": 5}]
    with pytest.raises(KitError, match=words):
        push(run, every=QUICK)


@pytest.mark.parametrize("fault", [Fault(503), Fault(cut=0)])
def test_a_notebook_of_which_it_is_not_sure_that_it_came(fault, run, kaggle, wrote):
    kaggle.fail("SaveKernel", fault)
    with pytest.raises(KitError, match=r"may have been done: look at .*/ada/kit-demo-submit before you try"):
        push(run, every=QUICK)
    assert kaggle.names().count("SaveKernel") == 1


def test_trouble_that_passes_while_waiting(run, kaggle, wrote):
    kaggle.datasets["ada/kit-demo"] = [{"looks": 5}]
    kaggle.fail("GetDatasetStatus", Fault(), Fault(429), Fault(503), Fault(cut=0))
    kaggle.fail("GetKernelSessionStatus", Fault(502), Fault(cut=0))
    assert push(run, every=QUICK).read_bytes() == SUBMISSION
    assert len(kaggle.datasets["ada/kit-demo"]) == 2


def test_trouble_is_not_taken_for_a_dataset_that_is_not_there(run, kaggle, wrote):
    """The client's own create takes any error for "not there"."""
    kaggle.datasets["ada/kit-demo"] = [{"looks": 5}]
    kaggle.fail("GetDatasetStatus", Fault(500))
    with pytest.raises(KitError, match="Kaggle is in trouble"):
        push(run, every=QUICK)
    assert "StartBlobUpload" not in kaggle.names()


def test_a_dataset_that_was_not_ready_yet_is_not_sent_twice(run, kaggle, wrote):
    # It is not there, nor is it when the client looks; then one fails while waiting for it.
    kaggle.fail("GetDatasetStatus", Fault(403), Fault(403), Fault(400))
    with pytest.raises(KitError, match="400"):
        push(run, every=QUICK)
    push(run, every=QUICK)
    assert kaggle.names().count("CreateDataset") == 1
    assert "CreateDatasetVersion" not in kaggle.names()


@pytest.mark.parametrize("command", [push, submit, pushes.commands, submits.commands])
def test_without_a_bundle(command, tmp_path):
    (tmp_path / "demo").mkdir()
    with pytest.raises(
        KitError, match=r"dataset-metadata.json does not exist; run `kit bundle .*/demo` first"
    ):
        command(tmp_path / "demo")
    with pytest.raises(KitError, match="is not a run's folder"):
        command(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["{", "[]", '{"id": "kit"}', '{"id": "a/b/../c"}', '{"title": "x"}'])
def test_metadata_that_is_not_whole(text, run):
    (run / "kaggle" / "kernel" / "kernel-metadata.json").write_text(text)
    with pytest.raises(KitError, match=r"kernel-metadata.json"):
        bundle.load(run)


# ------------------------------------------------------------------------------------------- logs


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", []),
        ("plain\ntext\n", ["plain", "text"]),
        ("\n".join(map(str, range(30))), [str(number) for number in range(18, 30)]),
        ("a\nValueError: b\nc\nd", ["a", "ValueError: b"]),
    ],
)
def test_tail_of_a_log(log, expected):
    assert tail(log) == expected


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("plain", "plain"),
        ('[{"data": "a\\n"}, {"data": "b"}]', "a\nb"),
        ('["x"]', "x"),
        ('{"data": "y"}', "y"),
        ("", ""),
    ],
)
def test_text_of_a_log(log, expected):
    assert log_text(log) == expected


# ----------------------------------------------------------------------------------------- submit


@pytest.fixture
def ran(run, kaggle, wrote):
    """A run whose notebook has been pushed and has run."""
    push(run, every=QUICK)
    kaggle.asked.clear()
    return run


DONE = {"status": "COMPLETE", "publicScore": "0.312", "privateScore": "0.331"}


def test_submit_and_the_scores(ran, kaggle, kit):
    kaggle.scores[:] = [{"status": "PENDING"}, {"status": "PENDING"}, DONE]
    done = kit("submit", ran, "-m", "a first try", "--every", 0.05)
    assert (done.returncode, done.stderr) == (0, "")
    assert kaggle.submissions == [
        {
            "competitionName": SARTORIUS,
            "kernelOwner": "ada",
            "kernelSlug": "kit-demo-submit",
            "kernelVersion": 1,
            "fileName": "submission.csv",
            "submissionDescription": "a first try",
        }
    ]
    assert done.stdout.splitlines() == [
        f"submitted version 1 of ada/kit-demo-submit to {SARTORIUS}; "
        f"https://www.kaggle.com/competitions/{SARTORIUS}/submissions",
        "submission: pending",
        "submission: complete",
        "public score 0.312, private score 0.331",
    ]


def test_submit_without_waiting(ran, kaggle):
    assert submit(ran, wait=False) is None
    assert kaggle.submissions[0]["submissionDescription"] == "demo, version 1"
    assert "ListSubmissions" not in kaggle.names()


def test_submit_another_version(ran, kaggle):
    kaggle.scores[:] = [{**DONE, "privateScore": None}]
    scores = submit(ran, version=7, every=QUICK)
    assert kaggle.submissions[0]["kernelVersion"] == 7
    assert (scores.public, scores.private) == ("0.312", "")


def test_submit_before_any_push(run, bare):
    with pytest.raises(KitError, match=r"no notebook of .* was pushed; run `kit push"):
        submit(run)


@pytest.mark.parametrize(
    ("state", "words"), [("RUNNING", "still running at"), ("ERROR", "ended with 'error'; see")]
)
def test_submit_of_a_notebook_that_has_not_run_well(state, words, ran, kaggle):
    kaggle.states[:] = [state]
    with pytest.raises(KitError, match=words):
        submit(ran, every=QUICK)
    assert kaggle.submissions == []


def test_submission_that_fails(ran, kaggle):
    kaggle.scores[:] = [
        {"status": "PENDING"},
        {"status": "ERROR", "errorDescription": "Notebook Threw Exception"},
    ]
    with pytest.raises(KitError, match=r"could not score the submission \(Notebook Threw Exception\); see"):
        submit(ran, every=QUICK)


def test_a_submission_that_is_refused(ran, kaggle):
    said = "Submission not allowed: your team has used its daily allowance"
    kaggle.fail("CreateCodeSubmission", Fault(400, said))
    with pytest.raises(KitError, match=said):
        submit(ran, every=QUICK)
    assert kaggle.submissions == []


@pytest.mark.parametrize("fault", [Fault(503), Fault(cut=0)])
def test_a_submission_of_which_it_is_not_sure_that_it_came(fault, ran, kaggle):
    kaggle.fail("CreateCodeSubmission", fault)
    with pytest.raises(KitError, match=r"may have been done: look at .*/submissions before you try again"):
        submit(ran, every=QUICK)
    assert kaggle.names().count("CreateCodeSubmission") == 1


# ---------------------------------------------------------------------------------------- dry runs


def test_dry_run_needs_nothing_and_does_nothing(run, bare, kit):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = kit("push", run, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    dataset, kernel = run / "kaggle" / "dataset", run / "kaggle" / "kernel"
    assert [line for line in done.stdout.splitlines() if not line.startswith("#")] == [
        "kaggle datasets status INSERT_USER_HERE/kit-demo --format json",
        f"kaggle datasets create -p {dataset} -r zip -t",
        f"kaggle datasets version -p {dataset} -r zip -t -m 'kit bundle of demo'",
        "kaggle datasets status INSERT_USER_HERE/kit-demo --format json",
        "kaggle datasets files INSERT_USER_HERE/kit-demo --page-size 200",
        f"kaggle kernels push -p {kernel}",
        "kaggle kernels status INSERT_USER_HERE/kit-demo-submit",
        f"kaggle kernels output INSERT_USER_HERE/kit-demo-submit -p {run / 'kaggle' / 'output'} -o",
    ]
    assert done.stdout.startswith("# INSERT_USER_HERE is your name on Kaggle")
    submitted = kit("submit", run, "--dry-run", "-m", "it's mine")
    assert [line for line in submitted.stdout.splitlines() if not line.startswith("#")] == [
        f"kaggle competitions submit {SARTORIUS} -k INSERT_USER_HERE/kit-demo-submit -v VERSION "
        "-f submission.csv -m 'it'\"'\"'s mine'",
        f"kaggle competitions submissions {SARTORIUS}",
    ]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def typed(lines: list[str]) -> None:
    """Run the command lines with the official client's program, as a user would who types them."""
    for line in lines:
        if not line.startswith("#"):
            name, *arguments = shlex.split(line)
            program = Path(sys.executable).with_name(name)
            subprocess.run([program, *arguments], capture_output=True, check=True, timeout=120)


def changes(kaggle) -> list:
    """What changed anything on the server, in order."""
    names = ("CreateDataset", "CreateDatasetVersion", "SaveKernel", "CreateCodeSubmission")
    found = [(name, values) for name, values in kaggle.asked if name in names]
    kaggle.asked.clear()
    return found


@pytest.mark.slow
def test_the_printed_commands_do_what_push_and_submit_do(run, kaggle, wrote):
    kaggle.states[:], kaggle.scores[:] = ["COMPLETE"], [DONE]
    push(run, every=QUICK)
    submit(run, "it's mine", every=QUICK)
    ours, output = changes(kaggle), fetched(run)

    kaggle.datasets.clear()
    kaggle.uploads.clear()
    _, *lines = pushes.commands(run)  # the first asks for a dataset that is not there
    new_version = next(line for line in lines if "datasets version" in line)
    typed([line for line in lines if line != new_version] + submits.commands(run, "it's mine"))
    assert changes(kaggle) == ours
    assert kaggle.datasets["ada/kit-demo"][-1]["files"] == BLOBS
    output.pop("kit-demo-submit.log")  # the client writes the log as JSON
    assert {name: data for name, data in fetched(run).items() if not name.endswith(".log")} == output

    typed([new_version])
    (name, values), *_ = changes(kaggle)
    assert (name, values["body"]["versionNotes"]) == ("CreateDatasetVersion", "kit bundle of demo")
    assert kaggle.datasets["ada/kit-demo"][-1]["files"] == BLOBS
