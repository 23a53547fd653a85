"""A notebook's run on Kaggle: waiting for it, its log, its files."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import requests

from kitlib.errors import KitError
from kitlib.files import make_folder, write_text
from kitlib.kaggle.bundled import Bundle
from kitlib.kaggle.remote import pushed
from kitlib.kaggle.remote.client import Client
from kitlib.kaggle.remote.source import Source
from kitlib.kaggle.remote.transfer import fetch

TAIL = 12  # lines of a failed run's log that are shown
REASON = re.compile(r"Error|Exception|Killed|killed|No space left|exceeded|Traceback")


@dataclass(frozen=True)
class Patience:
    """How to wait for something at Kaggle.

    Attributes:
        every: seconds between two looks.
        hours: how long at most; a notebook may be queued, and then run for 9 h.
        tell: seconds after which a line says that it goes on.
    """

    every: float = 20.0
    hours: float = 14.0
    tell: float = 300.0


def wait(
    look: Callable[[], str], going: tuple[str, ...], what: str, patience: Patience, say: Callable[[str], None]
) -> str:
    """Look until the state is not one of those of ``going``, and return it. Each change is said.

    Raises:
        KitError: it took too long.
    """
    begun, told, last = time.monotonic(), time.monotonic(), ""
    while True:
        state = look()
        passed = time.monotonic() - begun
        if state != last or time.monotonic() - told >= patience.tell:
            say(f"{what}: {state}" + (f" ({passed / 60:.0f} min)" if passed >= 60 else ""))
            told, last = time.monotonic(), state
        if state not in going:
            return state
        if passed > patience.hours * 3600:
            raise KitError(f"{what} is still '{state}' after {patience.hours:g} h; look at it on Kaggle")
        time.sleep(patience.every)


def state(client: Client, bundle: Bundle) -> tuple[str, str]:
    """The state of the newest run of the bundle's notebook, such as "running", and why it failed."""
    answer = client.call(
        f"ask for the state of {bundle.kernel_id}",
        client.api.kernels_status,
        bundle.kernel_id,
        page=bundle.kernel_page,
    )
    return answer.status.name.lower(), answer.failure_message or ""


RUNNING = ("queued", "running", "new_script", "cancel_requested")


def finish(client: Client, bundle: Bundle, patience: Patience, fresh: bool = False) -> Path:
    """Wait for the notebook's run, fetch its log and output, and return the submission's path.

    Args:
        fresh: it has just been pushed, so that an end at the first look is the end of an earlier run.

    Raises:
        KitError: the run failed, with the log's lines that say why, or wrote no submission.
    """
    looks = 0

    def look() -> str:
        nonlocal looks
        looks += 1
        now = state(client, bundle)[0]
        return "queued" if fresh and looks == 1 and now not in RUNNING else now

    ended = wait(look, RUNNING, f"notebook {bundle.kernel_id}", patience, client.say)
    log = output(client, bundle)
    known = pushed.read(bundle)
    pushed.write(bundle, replace(known, fetched_version=known.kernel_version))
    if ended != "complete":
        why = client.hide(state(client, bundle)[1])
        raise KitError(
            f"the notebook's run at {bundle.kernel_page} ended with '{ended}'"
            + (f" ({' '.join(why.split())})" if why else "")
            + f"; its log is {_log_path(bundle)}"
            + "".join(f"\n  {line}" for line in tail(log))
        )
    submission = bundle.output / "submission.csv"
    if not submission.is_file():
        raise KitError(
            f"the notebook's run wrote no submission.csv; {_log_path(bundle)} says why: mend it, push again"
        )
    return submission


def output(client: Client, bundle: Bundle) -> str:
    """Fetch what the newest run wrote into RUN/kaggle/output, in place of what an earlier one did.

    Returns:
        The log as text; it lies there as well.

    Raises:
        KitError: a file cannot be fetched, or its name leaves the folder.
    """
    doing = f"fetch the output of {bundle.kernel_id}"
    files, log = client.call(doing, client.api.session_output, bundle.kernel_id, page=bundle.kernel_page)
    if bundle.output.is_dir():
        shutil.rmtree(bundle.output)
    make_folder(bundle.output)
    text = client.hide("".join(lines(log)))
    write_text(_log_path(bundle), text)
    for name, address in files.items():
        target = bundle.output / _inside(name, bundle.kernel_id)
        client.say(f"fetching {name}")
        client.call(f"fetch {name}", _fetch, client, address, target, page=bundle.kernel_page)
    return text


def _fetch(client: Client, address: str, target: Path) -> None:
    def ask() -> requests.PreparedRequest:
        return requests.Request("GET", address).prepare()

    fetch(Source(ask, client.retry), target, client.retry, target.name)


def _inside(name: str, kernel: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise KitError(
            f"the output of {kernel} holds '{name}', which leaves its folder; rename it in the notebook"
        )
    return path


def _log_path(bundle: Bundle) -> Path:
    return bundle.output / f"{bundle.kernel_id.partition('/')[2]}.log"


def lines(log: str) -> Iterator[str]:
    """The text of a log, which Kaggle keeps as a JSON list of pieces."""
    try:
        pieces = json.loads(log)
    except ValueError:
        yield log
        return
    for piece in pieces if isinstance(pieces, list) else [pieces]:
        yield str(piece.get("data", "")) if isinstance(piece, dict) else str(piece)


def tail(log: str) -> list[str]:
    """The last lines of a log, up to the last that names a reason: what comes after is of the machinery."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", log)
    found = [line.rstrip() for line in plain.splitlines() if line.strip()]
    ends = [number for number, line in enumerate(found, 1) if REASON.search(line)]
    end = ends[-1] if ends else len(found)
    return found[max(0, end - TAIL) : end]
