"""The official client, signed in: against a Kaggle on the loopback, and without one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest
import requests
from kaggle_server import TOKEN, Fault, alone

from kitlib.errors import KitError
from kitlib.kaggle.remote import retry
from kitlib.kaggle.remote.answers import explain
from kitlib.kaggle.remote.client import connect, hide
from kitlib.kaggle.remote.retry import Retry

QUICK = Retry(pause=0.01)
COMPETITION = "https://www.kaggle.com/competitions/cells"


def status(client, name="ada/kit-demo"):
    """A call that only reads."""
    return client.call(
        f"ask for {name}", client.api.dataset_status, name, page="https://www.kaggle.com/datasets/x"
    )


# ------------------------------------------------------------------------------------- signing in


def test_signs_in_once_and_knows_the_user(client, kaggle):
    assert client.user == "ada"
    assert kaggle.names() == ["IntrospectToken"]


def test_token_from_the_file(kaggle, bare, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    (bare / ".kaggle").mkdir(exist_ok=True)
    (bare / ".kaggle" / "access_token").write_text(TOKEN + "\n")
    assert connect(retry=QUICK).user == "ada"


def test_a_refused_token_of_the_file_is_hidden_too(kaggle, bare, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    (bare / ".kaggle").mkdir(exist_ok=True)
    (bare / ".kaggle" / "access_token").write_text(TOKEN + "\n")
    kaggle.fail("IntrospectToken", Fault(401, f"Unauthenticated: {TOKEN}"))
    with pytest.raises(KitError, match=r"\(401: Unauthenticated: \(hidden\)\)"):
        connect(retry=QUICK)


@pytest.mark.parametrize("where", ["variables", "file"])
def test_legacy_credentials_need_no_call(where, kaggle, bare, monkeypatch, kit):
    """Basic authorisation instead of a token: the server refuses it, but it was sent."""
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    if where == "variables":
        monkeypatch.setenv("KAGGLE_USERNAME", "ada")
        monkeypatch.setenv("KAGGLE_KEY", "0123456789abcdef")
    else:
        (bare / ".kaggle").mkdir()
        (bare / ".kaggle" / "kaggle.json").write_text(
            json.dumps({"username": "ada", "key": "0123456789abcdef"})
        )
    done = kit("download", bare / "data")
    assert kaggle.names() == ["DownloadDataFiles"]
    assert "does not accept your credentials (401: Unauthenticated)" in done.stderr


def test_without_credentials(bare, kit):
    done = kit("download", bare / "data")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(
        "error: no Kaggle credentials found; make a token at https://www.kaggle.com/settings"
    )
    assert "KAGGLE_API_TOKEN" in done.stderr
    assert "~/.kaggle/access_token" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("code", [None, 400, 403, 404])
def test_a_token_that_kaggle_does_not_know(code, kaggle):
    """Kaggle says that it is not active, or refuses to look at it."""
    kaggle.token = "another"
    if code:
        kaggle.fail("IntrospectToken", Fault(code, f"bad token {TOKEN}"))
    with pytest.raises(KitError, match="does not know the token in KAGGLE_API_TOKEN") as caught:
        connect(retry=QUICK)
    assert TOKEN not in str(caught.value)


def test_401_while_signing_in(kaggle):
    kaggle.fail("IntrospectToken", Fault(401, f"Unauthenticated: {TOKEN}"))
    with pytest.raises(
        KitError, match=r"does not accept your credentials \(401: Unauthenticated: \(hidden\)\)"
    ):
        connect(retry=QUICK)


def test_a_token_too_long_for_a_path(kaggle, monkeypatch):
    """The client looks whether the token is a file's path, and the system names it in its error."""
    token = "eyJ" + "a" * 5000
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    with pytest.raises(KitError) as caught:
        connect(retry=QUICK)
    assert token not in str(caught.value)
    assert "(hidden)" in str(caught.value)


def test_without_network(bare, monkeypatch):
    """Nothing listens on the port."""
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    said = []
    unreached = "cannot sign in to Kaggle: Kaggle cannot be reached; check the network"
    with alone(), pytest.raises(KitError, match=unreached):
        connect(said.append, QUICK)
    assert len(said) == 2  # three attempts


def test_unknown_environment(kaggle, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "MARS")
    with pytest.raises(KitError, match="MARS"):
        connect(retry=QUICK)


def test_importing_the_client_neither_signs_in_nor_prints(kaggle):
    """Another program part that imports kaggle afterwards finds what it expects."""
    code = (
        "from kitlib.kaggle.remote import official\n"
        "import kaggle, sys\n"
        "assert kaggle.__version__ and kaggle.KaggleApi and not kaggle.api._authenticated\n"
        "assert kaggle.api.config_dir\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr, kaggle.asked) == ("", "", [])


def test_commands_that_need_no_kaggle_do_not_import_it():
    code = "import sys, kitlib.cli, kitlib.kaggle.remote.client; sys.exit('kaggle' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("variable", ["VERBOSE", "VERBOSE_OUTPUT"])
def test_verbose_client_prints_no_token(variable, kaggle, bare, monkeypatch, kit):
    """With it set, the client would print every request with its headers."""
    monkeypatch.setenv(variable, "1")
    kaggle.archives["cells"] = "cells.zip"
    assert kit("download", bare / "data", "--competition", "cells").returncode == 1  # there is no such file


def test_home_that_cannot_be_written(kaggle, bare, monkeypatch, kit):
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", "/proc/nowhere")
    done = kit("download", bare / "data")
    assert done.returncode == 1
    assert "set KAGGLE_CONFIG_DIR to a folder that can be written" in done.stderr


@pytest.mark.parametrize("harm", ["old", "gone"])
def test_a_client_that_is_too_old_or_not_there(harm, kaggle, bare, monkeypatch, kit):
    """Python 3.10 gets kaggle 1.7, which lacks what is needed."""
    package = bare / "packages" / "kaggle"
    (package / "api").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    if harm == "old":
        (package / "api" / "kaggle_api_extended.py").write_text("class KaggleApi: pass\n")
    monkeypatch.setenv("PYTHONPATH", str(bare / "packages"))
    done = kit("download", bare / "data")
    assert done.returncode == 1
    assert "cannot be used; `pip install 'kaggle>=2.2'`, which needs Python 3.11" in done.stderr
    assert done.stderr.count("\n") == 1


def test_hide_leaves_short_words_alone(monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "a")
    assert hide("a banana with a secretsecret", ["secretsecret", ""]) == "a banana with a (hidden)"


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
        (
            Fault(404, "Not found"),
            f"or not for you (404: Not found); check the name, or look at {COMPETITION}",
        ),
        (Fault(400, "Bad\nrequest"), "Kaggle refuses it (400: Bad request)"),
    ],
)
def test_refusals_name_the_mend(fault, words, client, kaggle):
    kaggle.fail("DownloadDataFiles", fault)
    with pytest.raises(KitError) as caught:
        client.call("do it", client.api.competition_archive, "cells", page=COMPETITION)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert kaggle.names().count("DownloadDataFiles") == 1  # no second attempt: it would be refused again


def test_refusal_that_the_client_turns_into_another_error(client, kaggle):
    """kernels_status makes a ValueError of a 403, with advice on benchmarks."""
    with pytest.raises(
        KitError, match=r"403: Permission 'kernels.get' was denied\); check that the user"
    ) as caught:
        client.call("look", client.api.kernels_status, "ada/kit-demo-submit")
    assert "benchmark" not in str(caught.value)


def test_an_answer_that_is_not_kaggles(client, kaggle, monkeypatch):
    """A page of HTML with status 200, as a hotel's network gives."""
    from kaggle_server import Handler

    monkeypatch.setattr(
        Handler, "_json", lambda self, *_: self._send(200, b"<html>", {"Content-Type": "text/html"})
    )
    with pytest.raises(KitError, match="the answer is not Kaggle's; a proxy or the login page"):
        status(client)


# ----------------------------------------------------------------------------------- trying again


@pytest.fixture
def dataset(kaggle):
    kaggle.datasets["ada/kit-demo"] = [{"looks": 5}]


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(429)],
        [Fault(500), Fault(502), Fault(503), Fault(504)],
        [Fault(cut=0)],
        [Fault(cut=0), Fault(503), Fault(429, after=0)],
    ],
)
def test_failures_that_pass(faults, client, kaggle, dataset, said):
    kaggle.fail("GetDatasetStatus", *faults)
    assert status(client) == "ready"
    assert len(said) == len(faults)
    assert all("trying again in" in line for line in said)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept(form, client, kaggle, dataset):
    after = (
        "0.6" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    )  # a date has whole seconds
    kaggle.fail("GetDatasetStatus", Fault(429, after=after))
    begun = time.monotonic()
    assert status(client) == "ready"
    assert 0.5 < time.monotonic() - begun < 4


def test_retry_after_an_hour_is_not_waited_for(client, kaggle, dataset):
    kaggle.fail("GetDatasetStatus", Fault(429, after=3600))
    with pytest.raises(KitError, match=r"asks for fewer requests .* try again in 3600 s"):
        status(client)


def test_trouble_that_stays(client, kaggle, dataset, said):
    kaggle.fail("GetDatasetStatus", Fault(503, "We are down", forever=True))
    with pytest.raises(KitError, match=r"Kaggle is in trouble \(503: We are down\); try again later"):
        status(client)
    assert kaggle.names().count("GetDatasetStatus") == 6
    assert len(said) == 5


def test_line_that_stays_broken(client, kaggle, dataset):
    kaggle.fail("GetDatasetStatus", Fault(cut=0, forever=True))
    with pytest.raises(KitError, match="the connection to Kaggle broke off; check the network and run again"):
        status(client)


@pytest.mark.parametrize("fault", [Fault(500), Fault(502), Fault(cut=0)])
def test_a_submission_is_never_sent_twice(fault, client, kaggle):
    """It may have been taken before the answer was lost, and there are but a few a day."""
    kaggle.fail("CreateCodeSubmission", fault)
    with pytest.raises(KitError, match=f"it may have been done all the same: look at {COMPETITION}"):
        client.call(
            "submit",
            client.api.competition_submit_code,
            "s.csv",
            "m",
            "cells",
            "ada/kernel",
            1,
            page=COMPETITION,
        )
    assert kaggle.names().count("CreateCodeSubmission") == 1


@pytest.mark.parametrize("fault", [Fault(429), Fault(503)])
def test_a_submission_that_was_not_looked_at_is_sent_again(fault, client, kaggle):
    kaggle.fail("CreateCodeSubmission", fault)
    client.call("submit", client.api.competition_submit_code, "s.csv", "m", "cells", "ada/kernel", 1)
    assert len(kaggle.submissions) == 1


def test_a_certificate_that_cannot_be_verified():
    """As where a proxy has one of its own: it is not tried again."""
    said = explain(requests.exceptions.SSLError("bad"), "do it", "", str)
    assert "set REQUESTS_CA_BUNDLE" in str(said)
    assert Retry().wait(requests.exceptions.SSLError("bad"), 1) is None


def test_errors_of_the_client_show_no_address():
    said = explain(requests.TooManyRedirects("https://storage/x?sig=secret"), "do it", "", str)
    assert str(said) == "cannot do it: the client failed (TooManyRedirects); run again"


def test_pauses_double_up_to_a_bound():
    patience = Retry(tries=6, pause=1, longest=5)
    error = requests.exceptions.ChunkedEncodingError()
    assert [patience.wait(error, attempt) for attempt in range(1, 7)] == [1, 2, 4, 5, 5, None]


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_pause_from_the_environment_is_checked(text, monkeypatch):
    monkeypatch.setenv("KIT_RETRY_PAUSE", text)
    with pytest.raises(KitError, match="KIT_RETRY_PAUSE is"):
        retry.default()


def test_the_real_address_is_kaggles(client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("KAGGLE_API_ENVIRONMENT")
    http = client.api.build_kaggle_client().http_client()
    assert http._get_request_url("a.B", "C") == "https://api.kaggle.com/v1/a.B/C"
