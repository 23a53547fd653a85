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
from kitlib.kaggle import bundled
from kitlib.kaggle.remote import pushed, session
from kitlib.kaggle.remote.push import push
from kitlib.kaggle.remote.session import Patience
from kitlib.kaggle.remote.submit import submit

SARTORIUS = "sartorius-cell-instance-segmentation"
QUICK = Patience(every=0.01)
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
        {"stream_name": "stderr", "time": 2.6, "data": "RuntimeError: CUDA out of memory\n"},
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
    for name, data in files.items():
        kaggle.output[name] = f"output/{name}"
        kaggle.put(f"output/{name}", data)
    kaggle.log = json.dumps([{"stream_name": "stdout", "time": 1, "data": "all is well\n"}])
    return files


def fetched(run: Path) -> dict[str, bytes]:
    output = run / "kaggle" / "output"
    return {
        path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()
    }


def state(run: Path) -> dict:
    return read_json(run / "kaggle" / "pushed.json")


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
    lines = done.stdout.splitlines()
    assert "uploading fold_0.pth (700.0 kB)" in lines
    assert [line for line in lines if line.startswith("notebook ada/kit-demo-submit: ")] == [
        "notebook ada/kit-demo-submit: version 1 pushed, https://www.kaggle.com/code/ada/kit-demo-submit",
        "notebook ada/kit-demo-submit: queued",
        "notebook ada/kit-demo-submit: running",
        "notebook ada/kit-demo-submit: complete",
    ]
    submission = run / "kaggle" / "output" / "submission.csv"
    assert lines[-1] == f"{submission} is the submission; `kit submit {run}` sends it to {SARTORIUS}"


def test_the_user_is_filled_in_and_no_secret_is_kept(run, kaggle, wrote, client):
    push(run, client=client, patience=QUICK)
    kernel = read_json(run / "kaggle" / "kernel" / "kernel-metadata.json")
    assert kernel == json.loads(json.dumps(KERNEL).replace("INSERT_USER_HERE", "ada"))
    assert {**state(run), "dataset_sum": "", "kernel_sum": ""} == {
        "dataset_sum": "",
        "dataset_version": 1,
        "kernel_sum": "",
        "kernel_version": 1,
        "fetched_version": 1,
        "kernel": "ada/kit-demo-submit",
        "competition": SARTORIUS,
    }
    assert not any(TOKEN.encode() in path.read_bytes() for path in run.rglob("*") if path.is_file())


def test_the_dataset_is_ready_before_the_notebook_is_pushed(run, kaggle, wrote, client):
    push(run, client=client, patience=QUICK)
    names = kaggle.names()
    assert names.index("CreateDataset") < names.index("SaveKernel")
    assert names[names.index("CreateDataset") : names.index("SaveKernel")].count("GetDatasetStatus") > 1


def test_another_push_makes_a_version(run, kaggle, wrote, client, said):
    push(run, client=client, patience=QUICK)
    (run / "kaggle" / "dataset" / "post.yaml").write_bytes(b"a: 2\n")
    push(run, client=client, patience=QUICK)
    _, second = kaggle.datasets["ada/kit-demo"]
    assert second["files"] == {**BLOBS, "post.yaml": b"a: 2\n"}
    assert second["versionNotes"] == "kit bundle of demo"
    assert "dataset ada/kit-demo: a new version" in said
    assert (state(run)["dataset_version"], state(run)["kernel_version"]) == (2, 2)


def test_a_dataset_as_it_was_is_not_sent_again(run, kaggle, wrote, client, said):
    push(run, client=client, patience=QUICK)
    kaggle.asked.clear()
    push(run, client=client, patience=QUICK)
    assert not {"StartBlobUpload", "CreateDatasetVersion"} & set(kaggle.names())
    assert "dataset ada/kit-demo: version 1 is as it is here" in said
    assert (
        len(kaggle.kernels["ada/kit-demo-submit"]) == 2
    )  # who pushes a finished notebook wants it run again


def test_no_wait_and_then_wait(run, kaggle, wrote, kit):
    """The second push goes on with the run of the first."""
    first = kit("push", run, "--no-wait", "--every", 0.05)
    assert first.stdout.splitlines()[-1].endswith(f"`kit push {run}` waits for it and fetches what it writes")
    assert "GetKernelSessionStatus" not in kaggle.names()
    second = kit("push", run, "--every", 0.05)
    assert second.returncode == 0
    assert len(kaggle.kernels["ada/kit-demo-submit"]) == 1
    assert fetched(run)["submission.csv"] == SUBMISSION


def test_a_notebook_that_ended_while_nobody_waited_is_fetched(run, kaggle, wrote, client):
    push(run, wait=False, client=client, patience=QUICK)
    kaggle.states[:] = ["COMPLETE"]
    push(run, client=client, patience=QUICK)
    assert len(kaggle.kernels["ada/kit-demo-submit"]) == 1
    assert fetched(run)["submission.csv"] == SUBMISSION


def test_earlier_output_does_not_stay(run, kaggle, wrote, client):
    push(run, client=client, patience=QUICK)
    del kaggle.output["submission.csv"]
    with pytest.raises(KitError, match=r"wrote no submission.csv; .*kit-demo-submit.log says why"):
        push(run, client=client, patience=QUICK)
    assert "submission.csv" not in fetched(run)


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt"])
def test_output_that_leaves_its_folder(name, run, kaggle, wrote, client):
    kaggle.output[name] = "output/submission.csv"
    with pytest.raises(KitError, match="leaves its folder"):
        push(run, client=client, patience=QUICK)


# ----------------------------------------------------------------------------------------- uploads


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(cut=300_000)],
        [Fault(cut=300_000), Fault(cut=100_000)],
        [Fault(503, cut=300_000)],
        [Fault(503, cut=0), Fault()],
        [Fault(500, cut=300_000)],
        [Fault(503, cut=300_000), Fault(404)],
    ],
    ids=["cut", "cut twice", "half taken", "none taken", "refused", "half taken, then forgotten"],
)
def test_a_half_written_upload_comes_whole(faults, run, kaggle, wrote, client):
    kaggle.fail("PUT fold_0.pth", *faults)
    push(run, client=client, patience=QUICK)
    assert kaggle.datasets["ada/kit-demo"][0]["files"] == BLOBS


def test_a_broken_upload_shows_no_signed_address(run, kaggle, wrote, kit):
    """urllib3 warns of each of its own attempts, with the address."""
    kaggle.fail("PUT fold_0.pth", Fault(cut=300_000), Fault(500))
    done = kit("push", run, "--no-wait", "--every", 0.05)  # looks for the signature in what is printed
    assert (done.returncode, done.stderr) == (0, "")
    assert "Kaggle did not take fold_0.pth; trying again in 0.02 s" in done.stdout


def test_the_end_of_an_earlier_run_is_not_taken_for_this_one(run, kaggle, wrote, client, said):
    kaggle.states[:] = ["COMPLETE", "QUEUED", "RUNNING", "ERROR"]
    with pytest.raises(KitError, match="ended with 'error'"):
        push(run, client=client, patience=QUICK)


def test_what_has_come_is_not_sent_twice(run, kaggle, wrote, client):
    kaggle.fail("PUT fold_0.pth", Fault(503, cut=300_000))
    push(run, client=client, patience=QUICK)
    spans = [span for name, span in kaggle.asked if name == "PUT fold_0.pth"]
    assert spans == ["", "bytes */700000", "bytes 300000-699999/700000"]


def test_a_file_that_kaggle_never_takes_stops_the_push(run, kaggle, client, said):
    """The client by itself would make the dataset without it."""
    kaggle.fail("PUT fold_0.pth", Fault(500, forever=True))
    with pytest.raises(KitError, match=r"cannot upload fold_0.pth: Kaggle did not take it in 6 attempts"):
        push(run, client=client, patience=QUICK)
    assert "CreateDataset" not in kaggle.names()
    kaggle.faults.clear()
    push(run, wait=False, client=client, patience=QUICK)
    assert kaggle.datasets["ada/kit-demo"][0]["files"] == BLOBS


@pytest.mark.parametrize("forgotten", [False, True])
def test_an_upload_whose_process_is_killed(forgotten, run, kaggle, kit, killed):
    """The client's note of it serves the next run, or is thrown away when the server knows nothing of it."""
    kaggle.fail("PUT fold_0.pth", Fault(cut=300_000, stall=True), *([Fault(404)] if forgotten else []))
    killed("push", run, "--no-wait")
    assert "CreateDataset" not in kaggle.names()
    kaggle.asked.clear()
    done = kit("push", run, "--no-wait", "--every", 0.05)
    assert (done.returncode, done.stderr) == (0, "")
    assert kaggle.datasets["ada/kit-demo"][0]["files"] == BLOBS
    spans = [span for name, span in kaggle.asked if name == "PUT fold_0.pth"]
    assert spans == ["bytes */700000", "" if forgotten else "bytes 300000-699999/700000"]


# --------------------------------------------------------------------------------------- failures


def test_a_notebook_that_fails(run, kaggle, kit):
    kaggle.states[:] = ["RUNNING", "ERROR"]
    kaggle.failure, kaggle.log = "Notebook Exceeded  Memory", FAILED_LOG
    done = kit("push", run, "--every", 0.05)
    assert done.returncode == 1
    log = run / "kaggle" / "output" / "kit-demo-submit.log"
    assert done.stderr.splitlines() == [
        "error: the notebook's run at https://www.kaggle.com/code/ada/kit-demo-submit ended with 'error' "
        f"(Notebook Exceeded Memory); its log is {log}",
        "  KIT_KAGGLE is /kaggle",
        "  Traceback (most recent call last):",
        "  RuntimeError: CUDA out of memory",
    ]
    assert "NbConvertApp" in log.read_text()


def test_a_failed_notebook_is_pushed_again(run, kaggle, wrote, client):
    kaggle.states[:] = ["ERROR"]
    with pytest.raises(KitError, match="ended with 'error'"):
        push(run, client=client, patience=QUICK)
    with pytest.raises(KitError, match="ended with 'error'"):
        push(run, client=client, patience=QUICK)
    assert len(kaggle.kernels["ada/kit-demo-submit"]) == 2


def test_a_dataset_that_kaggle_cannot_take_in(run, kaggle, client, monkeypatch):
    monkeypatch.setattr(
        type(kaggle), "GetDatasetStatus", lambda self, v: self._versions(v) and {"status": "FAILED"}
    )
    with pytest.raises(KitError, match="Kaggle could not take in the dataset"):
        push(run, client=client, patience=QUICK)
    assert "SaveKernel" not in kaggle.names()


def test_a_title_that_is_taken(run, kaggle, client, monkeypatch):
    said = {"status": "error", "error": "The requested title is already in use"}
    monkeypatch.setattr(type(kaggle), "CreateDataset", lambda *_: said)
    with pytest.raises(
        KitError, match="cannot send the dataset ada/kit-demo: Kaggle says 'The requested title is al"
    ):
        push(run, client=client, patience=QUICK)


def test_rules_that_were_not_accepted_before_the_push(run, kaggle, client, monkeypatch):
    """Kaggle would run the notebook without the competition's data."""
    said = {"versionNumber": 1, "url": "x", "invalidCompetitionSources": [SARTORIUS]}
    monkeypatch.setattr(type(kaggle), "SaveKernel", lambda *_: said)
    with pytest.raises(KitError, match=f"it cannot see {SARTORIUS}; accept the rules at .*{SARTORIUS}/rules"):
        push(run, client=client, patience=QUICK)


def test_a_bad_title_is_the_clients_own_complaint(run, kaggle, client):
    path = run / "kaggle" / "dataset" / "dataset-metadata.json"
    path.write_text(json.dumps({**DATASET, "title": "kit"}))
    with pytest.raises(KitError, match="The dataset title must be between 6 and 50 characters"):
        push(run, client=client, patience=QUICK)


@pytest.mark.parametrize(
    "request_name", ["GetDatasetStatus", "CreateDatasetVersion", "GetKernelSessionStatus"]
)
@pytest.mark.parametrize("fault", [Fault(429, after=0), Fault(503), Fault(502), Fault(cut=0)], ids=str)
def test_trouble_that_passes(fault, request_name, run, kaggle, wrote, client):
    kaggle.datasets["ada/kit-demo"] = [{"looks": 5}]
    kaggle.fail(request_name, fault)
    assert push(run, client=client, patience=QUICK).read_bytes() == SUBMISSION
    assert len(kaggle.datasets["ada/kit-demo"]) == 2


def test_trouble_is_not_taken_for_a_dataset_that_is_not_there(run, kaggle, wrote, client):
    """The client's own create takes any error for "not there"."""
    kaggle.datasets["ada/kit-demo"] = [{"looks": 5}]
    kaggle.fail("GetDatasetStatus", Fault(500, forever=True))
    with pytest.raises(KitError, match="Kaggle is in trouble"):
        push(run, client=client, patience=QUICK)
    assert "StartBlobUpload" not in kaggle.names()


def test_a_dataset_that_was_not_ready_yet_is_not_sent_twice(run, kaggle, wrote, client):
    # It is not there, nor is it when the client looks; then one fails while waiting for it.
    kaggle.fail("GetDatasetStatus", Fault(403), Fault(403), Fault(400))
    with pytest.raises(KitError, match="400"):
        push(run, client=client, patience=QUICK)
    push(run, client=client, patience=QUICK)
    assert kaggle.names().count("CreateDataset") == 1
    assert "CreateDatasetVersion" not in kaggle.names()


def test_output_that_comes_broken(run, kaggle, wrote, client):
    kaggle.put("output/submission.csv", SUBMISSION * 10_000)
    kaggle.fail("BODY output/submission.csv", Fault(cut=100_000), Fault(500))
    assert push(run, client=client, patience=QUICK).read_bytes() == SUBMISSION * 10_000


def test_waiting_has_an_end(run, kaggle, client):
    kaggle.states[:] = ["RUNNING"]
    with pytest.raises(KitError, match="is still 'running' after 1e-05 h"):
        push(run, client=client, patience=Patience(every=0.01, hours=1e-5))


@pytest.mark.parametrize("command", ["push", "submit"])
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_without_a_bundle(command, options, bare, tmp_path, kit):
    (tmp_path / "demo").mkdir()
    done = kit(command, tmp_path / "demo", *options)
    assert done.returncode == 1
    assert done.stderr.endswith(
        f"dataset-metadata.json does not exist; run `kit bundle {tmp_path / 'demo'}` first\n"
    )
    assert "is not a run's folder" in kit(command, tmp_path / "nothing").stderr


@pytest.mark.parametrize("text", ["{", "[]", '{"id": "kit"}', '{"id": "a/b/../c"}', '{"title": "x"}'])
def test_metadata_that_is_not_whole(text, run):
    (run / "kaggle" / "kernel" / "kernel-metadata.json").write_text(text)
    with pytest.raises(KitError, match=r"kernel-metadata.json"):
        bundled.load(run)


def test_state_of_another_kit(run, bare):
    (run / "kaggle" / "pushed.json").write_text('{"verson": 1}')
    with pytest.raises(KitError, match=r"pushed.json is not one of this version"):
        submit(run)


@pytest.mark.parametrize("command", ["push", "submit"])
def test_without_credentials(command, run, bare, kit):
    pushed.write(bundled.load(run), pushed.Pushed(kernel_version=1))
    done = kit(command, run)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Kaggle credentials found; make a token at")
    assert done.stderr.count("\n") == 1


def test_the_token_is_hidden_where_the_server_or_the_log_shows_it(run, kaggle, kit):
    kaggle.states[:] = ["ERROR"]
    kaggle.failure, kaggle.log = f"failed with {TOKEN}", f"Error: {TOKEN}"
    done = kit("push", run, "--every", 0.05)  # looks for the token in what is printed
    assert done.returncode == 1
    assert "(failed with (hidden))" in done.stderr
    assert not any(TOKEN.encode() in path.read_bytes() for path in run.rglob("*") if path.is_file())


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
    assert session.tail(log) == expected


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
    assert "".join(session.lines(log)) == expected


# ----------------------------------------------------------------------------------------- submit


@pytest.fixture
def ran(run, kaggle, wrote, client):
    """A run whose notebook has been pushed and has run."""
    push(run, client=client, patience=QUICK)
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


def test_submit_without_waiting(ran, kaggle, kit):
    done = kit("submit", ran, "--no-wait")
    assert done.returncode == 0
    assert kaggle.submissions[0]["submissionDescription"] == "demo, version 1"
    assert "ListSubmissions" not in kaggle.names()


def test_submit_another_version(ran, kaggle, client):
    kaggle.scores[:] = [{**DONE, "privateScore": None}]
    scores = submit(ran, version=7, client=client, patience=QUICK)
    assert kaggle.submissions[0]["kernelVersion"] == 7
    assert (scores.public, scores.private) == ("0.312", "")


def test_submit_before_any_push(run, bare):
    with pytest.raises(KitError, match=r"no notebook of .* was pushed; run `kit push"):
        submit(run)


@pytest.mark.parametrize(
    ("state", "words"), [("RUNNING", "still running at"), ("ERROR", "ended with 'error'; see")]
)
def test_submit_of_a_notebook_that_has_not_run_well(state, words, ran, kaggle, client):
    kaggle.states[:] = [state]
    with pytest.raises(KitError, match=words):
        submit(ran, client=client, patience=QUICK)
    assert kaggle.submissions == []


def test_submission_that_fails(ran, kaggle, client):
    kaggle.scores[:] = [
        {"status": "PENDING"},
        {"status": "ERROR", "errorDescription": "Notebook Threw Exception"},
    ]
    with pytest.raises(KitError, match=r"could not score the submission \(Notebook Threw Exception\); see"):
        submit(ran, client=client, patience=QUICK)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            Fault(400, "Submission not allowed: your team has used its daily allowance"),
            "used its daily allowance",
        ),
        (Fault(401, "Unauthenticated"), "make a token at"),
        (Fault(403, "Accept the rules"), f"competitions/{SARTORIUS}/rules"),
        (Fault(404, "Not found"), "check the name"),
        (Fault(500), "it may have been done all the same: look at"),
    ],
)
def test_submission_that_is_refused(fault, words, ran, kaggle, kit):
    kaggle.fail("CreateCodeSubmission", fault)
    done = kit("submit", ran)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
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


#: The official command line, led to the loopback: by itself it knows no environment but the real Kaggle's.
OFFICIAL = """
import sys
from kagglesdk.kaggle_env import KaggleEnv, _env_to_endpoint
_env_to_endpoint[KaggleEnv.PROD] = _env_to_endpoint[KaggleEnv.TEST]
sys.argv = ["kaggle", *sys.argv[1:]]
from kaggle.cli import main
main()
"""


def typed(lines: str) -> None:
    """Run the command lines as a user would who types them."""
    for line in lines.splitlines():
        if not line.startswith("#"):
            name, *arguments = shlex.split(line)
            assert name == "kaggle"
            subprocess.run(
                [sys.executable, "-c", OFFICIAL, *arguments], capture_output=True, check=True, timeout=120
            )


def told(kaggle) -> list:
    """What changed anything on the server, in order; the files of a dataset come in the folder's order."""
    changes = ("CreateDataset", "CreateDatasetVersion", "SaveKernel", "CreateCodeSubmission")
    found = [(name, values) for name, values in kaggle.asked if name in changes]
    kaggle.asked.clear()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("there", [False, True], ids=["new", "there already"])
def test_the_printed_commands_do_what_push_and_submit_do(there, run, kaggle, wrote, kit):
    def begin() -> None:
        kaggle.datasets.clear()
        kaggle.kernels.clear()
        kaggle.uploads.clear()
        kaggle.submissions.clear()
        kaggle.states[:] = ["COMPLETE"]
        kaggle.scores[:] = [DONE]
        if there:
            kaggle.datasets["ada/kit-demo"] = [{"looks": 5}]

    bundled.fill_user(bundled.load(run), "ada")
    begin()
    assert kit("push", run, "--every", 0.05).returncode == 0
    assert kit("submit", run, "-m", "it's mine", "--every", 0.05).returncode == 0
    ours, files, output = told(kaggle), kaggle.datasets["ada/kit-demo"][-1]["files"], fetched(run)

    push_lines = kit("push", run, "--dry-run").stdout
    submit_lines = kit("submit", run, "-m", "it's mine", "--dry-run").stdout
    skipped = "datasets create" if there else "datasets version"
    begin()
    lines = [text for text in push_lines.splitlines() if skipped not in text]
    typed("\n".join(lines if there else lines[1:]))  # the first asks for a dataset that is not there
    typed(submit_lines)
    assert told(kaggle) == ours
    assert kaggle.datasets["ada/kit-demo"][-1]["files"] == files == BLOBS
    output.pop("kit-demo-submit.log")  # the client writes the log as JSON
    assert {name: data for name, data in fetched(run).items() if not name.endswith(".log")} == output
