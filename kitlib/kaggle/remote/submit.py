"""``kit submit``: submit what a version of the notebook wrote to the competition, and wait for its score."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitlib.errors import KitError
from kitlib.kaggle import bundle as bundles
from kitlib.kaggle.bundle import Bundle
from kitlib.kaggle.remote import notebook
from kitlib.kaggle.remote.client import Client, connect, wait_while
from kitlib.kaggle.remote.push import read_pushed, user_lines


@dataclass(frozen=True)
class Scores:
    """A submission's scores; one that the competition does not show (yet) is blank."""

    public: str
    private: str


def submit(
    run: Path | str,
    message: str = "",
    version: int = 0,
    wait: bool = True,
    every: float = 20.0,
    say: Callable[[str], None] = print,
) -> Scores | None:
    """Submit what a version of the run's notebook wrote; Kaggle runs it again on the hidden images.

    Args:
        run: the run's folder, which holds a bundle.
        message: the submission's description; empty: the run and the version.
        version: of the notebook; 0: the one that was pushed last.
        wait: for the scores.
        every: seconds between two queries of the submission.
        say: prints a line of progress.

    Returns:
        The scores; None without waiting.

    Raises:
        KitError: nothing was pushed, the notebook's run is not complete, Kaggle refuses, or the submission
            failed there.
    """
    bundle = bundles.load(run)
    last = read_pushed(bundle).kernel_version
    if not (version or last):
        raise KitError(f"no notebook of {run} was pushed; run `kit push {run}`, or give --version")
    client = connect(say)
    bundle = bundles.fill_user(bundle, client.user)
    if version in (0, last):
        _check_that_it_ran(client, bundle, run)
    ref = _send(client, bundle, version or last, message)
    return _scores(client, bundle, ref, every) if wait else None


def _check_that_it_ran(client: Client, bundle: Bundle, run: Path | str) -> None:
    state, _ = notebook.state_of(client, bundle)
    if state in notebook.RUNNING:
        raise KitError(
            f"the notebook is still {state} at {bundle.kernel_page}; `kit push {run}` waits for it"
        )
    if state != "complete":
        raise KitError(
            f"the notebook's run ended with '{state}'; see {bundle.kernel_page}, correct it and push again"
        )


def _send(client: Client, bundle: Bundle, version: int, message: str) -> int:
    """Submit, once, and return the number that Kaggle gives the submission."""
    answer = client.call(
        f"submit version {version} of {bundle.kernel_id} to {bundle.competition}",
        client.api.competition_submit_code,
        notebook.FILE,
        message or _submission_message(bundle, version),
        bundle.competition,
        bundle.kernel_id,
        version,
        quiet=True,
        page=_page(bundle),
        repeatable=False,
    )
    client.say(f"submitted version {version} of {bundle.kernel_id} to {bundle.competition}; {_page(bundle)}")
    return answer.ref


def _page(bundle: Bundle) -> str:
    return f"{bundle.competition_page}/submissions"


def _submission_message(bundle: Bundle, version: int | str) -> str:
    """A submission's description where the user gives none."""
    return f"{bundle.run.resolve().name}, version {version}"


def _scores(client: Client, bundle: Bundle, ref: int, every: float) -> Scores:
    found: list[Any] = []

    def query() -> str:
        doing, function = "ask for the submission's score", client.api.competition_submissions
        submissions = client.call(doing, function, bundle.competition, page=_page(bundle))
        found[:] = [one for one in submissions or [] if one.ref == ref or not ref][:1]
        return found[0].status.name.lower() if found else "pending"

    if wait_while(("pending",), query, "submission", every, 24.0, client.say) != "complete":
        said = client.hide(found[0].error_description or "without a reason")
        raise KitError(f"Kaggle could not score the submission ({said}); see {_page(bundle)}")
    return Scores(found[0].public_score or "", found[0].private_score or "")


# -------------------------------------------------------------------------------- --dry-run


def commands(run: Path | str, message: str = "", version: int = 0) -> list[str]:
    """What ``submit`` does, as command lines of the official client; lines with # say when.

    Args:
        run: the run's folder, which holds a bundle.
        message: the submission's description; empty: the run and the version.
        version: of the notebook; 0: the one that was pushed last.

    Raises:
        KitError: there is no bundle.
    """
    bundle = bundles.load(run)
    number = str(version or read_pushed(bundle).kernel_version or "VERSION")
    text = message or _submission_message(bundle, number)
    options = ("-k", bundle.kernel_id, "-v", number, "-f", notebook.FILE, "-m", text)
    lines = user_lines(bundle)
    if number == "VERSION":
        lines.append("# VERSION is the number that `kaggle kernels push` gave")
    return [
        *lines,
        shlex.join(("kaggle", "competitions", "submit", bundle.competition, *options)),
        "# again until it has a score:",
        shlex.join(("kaggle", "competitions", "submissions", bundle.competition)),
    ]
