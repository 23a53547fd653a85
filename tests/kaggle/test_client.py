"""The official client, signed in: against a Kaggle on the loopback, and without one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import requests
from kaggle_server import TOKEN, Fault, Handler

from kitlib.errors import KitError
from kitlib.kaggle.remote.client import Unavailable, connect, explain, hide, wait_while

COMPETITION = "https://www.kaggle.com/competitions/cells"


# ------------------------------------------------------------------------------------- signing in


def test_signs_in_and_knows_the_user(client, kaggle):
    assert client.user == "ada"
    assert set(kaggle.names()) == {"IntrospectToken"}


def test_token_from_the_file(kaggle, bare, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    (bare / ".kaggle").mkdir(exist_ok=True)
    (bare / ".kaggle" / "access_token").write_text(TOKEN + "\n")
    assert connect().user == "ada"
    kaggle.fail("IntrospectToken", Fault(401, f"Unauthenticated: {TOKEN}"))
    with pytest.raises(KitError, match=r"\(401: Unauthenticated: \(hidden\)\)"):
        connect()


def test_older_credentials_need_no_call(kaggle, monkeypatch):
    """Basic authorisation instead of a token: the server refuses it, but it was sent."""
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setenv("KAGGLE_USERNAME", "eve")
    monkeypatch.setenv("KAGGLE_KEY", "0123456789abcdef")
    client = connect()
    assert (client.user, kaggle.names()) == ("eve", [])
    with pytest.raises(KitError, match=r"does not accept your credentials \(401: Unauthenticated\)"):
        client.call("look", client.api.dataset_status, "eve/kit-demo")


def test_without_credentials(bare, kit):
    done = kit("download", bare / "data")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(
        "error: cannot sign in to Kaggle: no Kaggle credentials that are valid were found; make a token at https://"
    )
    assert "KAGGLE_API_TOKEN" in done.stderr
    assert "~/.kaggle/access_token" in done.stderr


@pytest.mark.parametrize("code", [None, 400, 403, 404])
def test_a_token_that_kaggle_does_not_know(code, kaggle):
    """Kaggle says that it is not active, or refuses to look at it."""
    kaggle.token = "another"
    if code:
        kaggle.fail("IntrospectToken", Fault(code, f"bad token {TOKEN}", forever=True))
    with pytest.raises(KitError, match="does not know the token in KAGGLE_API_TOKEN") as caught:
        connect()
    assert TOKEN not in str(caught.value)


def test_a_token_too_long_for_a_path(kaggle, monkeypatch):
    """The client looks whether the token is a file's path, and the system names it in its error."""
    token = "eyJ" + "a" * 5000
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    with pytest.raises(KitError) as caught:
        connect()
    assert token not in str(caught.value)
    assert "(hidden)" in str(caught.value)


def test_without_network(bare, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    with pytest.raises(
        Unavailable, match="cannot sign in to Kaggle: the connection to Kaggle failed; check the"
    ):
        connect()


def test_an_answer_that_is_not_kaggles(client, kaggle, monkeypatch):
    """A page of HTML with status 200, as a hotel's network gives."""
    monkeypatch.setattr(
        Handler, "_json", lambda self, *_: self._send(200, b"<html>", {"Content-Type": "text/html"})
    )
    with pytest.raises(KitError, match="the answer is not Kaggle's, but perhaps the login page"):
        connect()


def test_commands_that_need_no_kaggle_do_not_import_it():
    code = "import sys, kitlib.cli, kitlib.kaggle.remote.client; sys.exit('kaggle' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_verbose_client_prints_no_token(kaggle, bare, monkeypatch, kit):
    """With it set, the client would print every request with its headers."""
    monkeypatch.setenv("VERBOSE", "1")
    kaggle.listed["cells"] = {"a": 1}
    assert kit("download", bare / "data", "--competition", "cells").returncode == 1  # there is no such file


def test_home_that_cannot_be_written(kaggle, bare, monkeypatch, kit):
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", "/proc/nowhere")
    done = kit("download", bare / "data")
    assert done.returncode == 1
    assert "set KAGGLE_CONFIG_DIR to a folder that can be written" in done.stderr


@pytest.mark.parametrize("harm", ["old", "broken"])
def test_a_client_that_cannot_be_used(harm, kaggle, bare, monkeypatch, kit):
    """Python 3.10 gets kaggle 1.7, which lacks what is needed; ``six`` may not be there."""
    packages = bare / "packages"
    (packages / "kaggle").mkdir(parents=True)
    (packages / "kaggle" / "__init__.py").write_text("import a_module_that_is_not_there\n")
    if harm == "old":
        (packages / "kaggle-1.7.4.5.dist-info").mkdir()
        (packages / "kaggle-1.7.4.5.dist-info" / "METADATA").write_text("Name: kaggle\nVersion: 1.7.4.5\n")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    done = kit("download", bare / "data")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    why = "it is version 1.7.4.5" if harm == "old" else "No module named 'a_module_that_is_not_there'"
    assert f"cannot be used ({why}); `pip install 'kaggle>=2.2' six`, which needs Python 3.11" in done.stderr


def test_hide_leaves_short_words_alone(monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "a")
    assert hide("a banana with a secretsecret", ["secretsecret", "", None]) == "a banana with a (hidden)"


# ---------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            Fault(401, "Unauthenticated"),
            "does not accept your credentials (401: Unauthenticated); make a token",
        ),
        (
            Fault(403, "You must accept this competition's rules before you'll be able to download files."),
            f"accept the competition's rules at {COMPETITION}/rules",
        ),
        (Fault(403), f"accept the competition's rules at {COMPETITION}/rules (and verify your phone number)"),
        (
            Fault(403, "Phone verification is required"),
            "verify your phone number at https://www.kaggle.com/settings",
        ),
        (Fault(404, "Not found"), f"or not for you (404: Not found); check the name at {COMPETITION}"),
        (Fault(400, "Bad\nrequest"), "Kaggle refuses it (400: Bad request)"),
        (Fault(429), "Kaggle asks for fewer requests (429); try again in some minutes"),
        (Fault(500, "We are down"), "Kaggle is in trouble (500: We are down); try again later"),
        (Fault(cut=0), "the connection to Kaggle failed; check the network, try again later"),
    ],
)
def test_failures_say_what_to_do(fault, words, client, kaggle):
    kaggle.fail("ListSubmissions", fault)
    with pytest.raises(KitError) as caught:
        client.call("do it", client.api.competition_submissions, "cells", page=COMPETITION)
    assert str(caught.value).startswith("cannot do it: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert kaggle.names().count("ListSubmissions") == 1


@pytest.mark.parametrize("fault", [Fault(500), Fault(502), Fault(cut=0)])
@pytest.mark.parametrize("name", ["CreateCodeSubmission", "SaveKernel"])
def test_what_must_not_be_done_twice_is_sent_once(name, fault, client, kaggle, tmp_path):
    """It may have been taken before the answer was lost, and there are but a few submissions a day."""
    kaggle.fail(name, fault)
    (tmp_path / "a.py").write_text("")
    metadata = {"id": "ada/kernel", "code_file": "a.py", "language": "python", "kernel_type": "script"}
    (tmp_path / "kernel-metadata.json").write_text(json.dumps(metadata))
    function, arguments = {
        "CreateCodeSubmission": (
            client.api.competition_submit_code,
            ("s.csv", "m", "cells", "ada/kernel", 1),
        ),
        "SaveKernel": (client.api.kernels_push, (str(tmp_path),)),
    }[name]
    with pytest.raises(KitError, match=f"it may have been done: look at {COMPETITION} before you try again"):
        client.call("do it", function, *arguments, page=COMPETITION, repeatable=False)
    assert kaggle.names().count(name) == 1


def test_refusal_that_the_client_turns_into_another_error(client, kaggle):
    """kernels_status makes a ValueError of a 403, with advice on benchmarks."""
    with pytest.raises(
        KitError, match=r"403: Permission 'kernels.get' was denied\); check that it belongs to the user"
    ) as caught:
        client.call("look", client.api.kernels_status, "ada/kit-demo-submit")
    assert "benchmark" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (requests.exceptions.SSLError("bad"), "set REQUESTS_CA_BUNDLE"),
        (requests.TooManyRedirects("https://storage/x?sig=s"), "the client failed (TooManyRedirects); try"),
        (OSError(28, "No space left on device"), "the disk is full; free some space and run again"),
        (ValueError("no\n good."), "cannot do it: no good"),
    ],
)
def test_errors_of_the_client_itself(error, words):
    said = str(explain(error, "do it"))
    assert words in said
    assert "sig=" not in said


# ------------------------------------------------------------------------------------------ waiting


def looks(*answers):
    """A look that gives one after the other; those that are errors are raised."""
    left = list(answers)

    def look() -> str:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return look


def test_waiting_says_each_change_once():
    said = []
    look = looks("queued", "queued", "running", "running", "done")
    assert wait_while(("queued", "running"), look, "it", 0, 1, said.append) == "done"
    assert said == ["it: queued", "it: running", "it: done"]


def test_waiting_bears_trouble_that_passes():
    trouble = Unavailable("Kaggle is in trouble")
    look = looks("running", *[trouble] * 9, "running", *[trouble] * 9, "done")
    assert wait_while(("running",), look, "it", 0, 1, lambda line: None) == "done"


@pytest.mark.parametrize("error", [Unavailable("Kaggle is in trouble"), KitError("Kaggle refuses it")])
def test_waiting_ends_with_trouble_that_stays(error):
    with pytest.raises(KitError, match=str(error)):
        wait_while(("running",), looks(error), "it", 0, 1, lambda line: None)


def test_waiting_has_an_end():
    with pytest.raises(KitError, match="it is still 'running' after 1e-06 h; look at it on Kaggle"):
        wait_while(("running",), looks("running"), "it", 0.01, 1e-6, lambda line: None)
