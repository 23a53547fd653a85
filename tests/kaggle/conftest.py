"""A Kaggle on the loopback, and the command kit run against it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import kaggle_server
import pytest

from kitlib.kaggle.remote.client import Client, connect

FORGET = (
    "KAGGLE_API_TOKEN",
    "KAGGLE_USERNAME",
    "KAGGLE_KEY",
    "KAGGLE_CONFIG_DIR",
    "XDG_CONFIG_HOME",
    "VERBOSE",
    "HTTP_PROXY",
    "NO_PROXY",
    "no_proxy",
)
NOBODY_LISTENS = "http://127.0.0.1:9"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without credentials, from where the official client reaches no Kaggle."""
    if int(metadata.version("kaggle").split(".")[0]) < 2:
        pytest.skip("needs kaggle 2.2, and that Python 3.11")
    home = tmp_path / "home"
    (home / "tmp").mkdir(parents=True)
    for name in FORGET:
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "http_proxy": NOBODY_LISTENS,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", None)  # where the client keeps notes on uploads
    return home


@pytest.fixture
def kaggle(bare: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[kaggle_server.Kaggle]:
    """A Kaggle that listens, and a home with a token that it knows."""
    monkeypatch.setenv("KAGGLE_API_TOKEN", kaggle_server.TOKEN)
    with kaggle_server.serving() as (state, address):
        monkeypatch.setenv("http_proxy", address)
        yield state


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between the attempts of the official client."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def said() -> list[str]:
    """The lines of progress that ``client`` has said."""
    return []


@pytest.fixture
def client(kaggle: kaggle_server.Kaggle, said: list[str]) -> Client:
    return connect(said.append)


@pytest.fixture
def kit() -> Callable[..., subprocess.CompletedProcess]:
    """Run kit as users do; no output may ever hold the token or a signature, nor a traceback."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess:
        line = [sys.executable, "-m", "kitlib.cli", *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120, **options)
        both = done.stdout + done.stderr
        token = os.environ.get("KAGGLE_API_TOKEN") or kaggle_server.TOKEN
        assert token not in both
        assert "secret-signature" not in both
        assert "Traceback (most recent call last)" not in both.replace("  Traceback", "")
        return done

    return run


@pytest.fixture
def killed(kaggle: kaggle_server.Kaggle) -> Callable[..., None]:
    """Run kit, and kill it where the server stalls, once a file has grown as long as is said."""

    def run(*arguments: object, path: Path, size: int) -> None:
        line = [sys.executable, "-m", "kitlib.cli", *map(str, arguments)]
        with subprocess.Popen(line, stdout=subprocess.DEVNULL) as process:
            assert kaggle.stalled.wait(60)
            while not (path.exists() and path.stat().st_size >= size):
                assert process.poll() is None
                time.sleep(0.02)
            process.kill()

    return run
