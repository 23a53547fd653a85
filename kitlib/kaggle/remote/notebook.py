"""A notebook's run on Kaggle: its state, its log, its output."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

from kitlib.errors import KitError
from kitlib.files import make_folder, write_text
from kitlib.kaggle.bundle import Bundle
from kitlib.kaggle.remote.client import Client, wait_while

FILE = "submission.csv"
RUNNING = ("queued", "running", "new_script", "cancel_requested")
_HOURS = 14.0  # to wait at most: a notebook may be queued, and then run for 9 h
_TAIL = 12  # lines of a failed run's log that are shown
_REASON = re.compile(r"Error|Exception|Killed|killed|No space left|exceeded|Traceback")
_BELOW = r"(?s)^(?!/)(?!(.*/)?\.\.(/|$))"  # file names that stay below the folder they are written to


def state_of(client: Client, bundle: Bundle) -> tuple[str, str]:
    """The state of the newest run of the bundle's notebook, such as "running", and why it failed."""
    doing, function = f"ask for the state of {bundle.kernel_id}", client.api.kernels_status
    answer = client.call(doing, function, bundle.kernel_id, page=bundle.kernel_page)
    return answer.status.name.lower(), " ".join(client.hide(answer.failure_message or "").split())


def wait_for_end(client: Client, bundle: Bundle, every: float, is_new: bool) -> str:
    """Wait for the notebook's run, and return the state in which it ended.

    Args:
        client: signed in.
        bundle: whose notebook runs.
        every: seconds between two queries of its state.
        is_new: it was pushed just now, so that Kaggle may still show the state of an earlier run.
    """
    if is_new:
        time.sleep(every)

    def query() -> str:
        return state_of(client, bundle)[0]

    return wait_while(RUNNING, query, f"notebook {bundle.kernel_id}", every, _HOURS, client.say)


def fetch_output(client: Client, bundle: Bundle) -> str:
    """Fetch the output of the newest run into RUN/kaggle/output, in place of an earlier one's.

    Returns:
        The log as text, which is also written there.

    Raises:
        KitError: a file cannot be fetched, or submission.csv does not begin as a submission does.
    """
    shutil.rmtree(bundle.output, ignore_errors=True)
    make_folder(bundle.output)
    client.call(
        f"fetch the output of {bundle.kernel_id}",
        client.api.kernels_output,
        bundle.kernel_id,
        str(bundle.output),
        file_pattern=_BELOW,
        force=True,
        page_size=100,
        page=bundle.kernel_page,
    )
    path = _log_path(bundle)
    log = client.hide(log_text(path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""))
    write_text(path, log)
    _check_header(bundle.output / FILE)
    return log


def _check_header(submission: Path) -> None:
    """Make sure that the file is a submission: the client saves the page of an error under its name, too."""
    if not submission.is_file():
        return
    with submission.open("rb") as file:
        header = file.readline(80).strip()
    if header != b"id,predicted":
        raise KitError(
            f"{submission} begins with {str(header)[:80]}, not with id,predicted; push again to fetch it"
        )


def submission_of(client: Client, bundle: Bundle, state: str, log: str) -> Path:
    """The path of the submission that the run wrote.

    Args:
        client: signed in.
        bundle: whose notebook ran.
        state: in which the run ended.
        log: as text, from ``fetch_output``.

    Raises:
        KitError: the run failed, with the lines of its log that say why, or it wrote no submission.
    """
    path = bundle.output / FILE
    if state != "complete":
        why = state_of(client, bundle)[1]
        raise KitError(
            f"the notebook's run at {bundle.kernel_page} ended with '{state}'"
            + (f" ({why})" if why else "")
            + f"; its log is {_log_path(bundle)}"
            + "".join(f"\n  {line}" for line in tail(log))
        )
    if not path.is_file():
        raise KitError(
            f"the notebook's run wrote no {FILE}; {_log_path(bundle)} says why; correct it and push again"
        )
    return path


def _log_path(bundle: Bundle) -> Path:
    return bundle.output / f"{bundle.kernel_id.partition('/')[2]}.log"


def log_text(log: str) -> str:
    """The text of a log, which Kaggle stores as a JSON list of pieces."""
    try:
        pieces = json.loads(log)
    except ValueError:
        return log
    pieces = pieces if isinstance(pieces, list) else [pieces]
    return "".join(str(piece.get("data", "")) if isinstance(piece, dict) else str(piece) for piece in pieces)


def tail(log: str) -> list[str]:
    """The last lines of a log, up to the last one with an error; what follows it is of no use to the user."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", log)
    found = [line.rstrip() for line in plain.splitlines() if line.strip()]
    ends = [number for number, line in enumerate(found, 1) if _REASON.search(line)]
    end = ends[-1] if ends else len(found)
    return found[max(0, end - _TAIL) : end]
