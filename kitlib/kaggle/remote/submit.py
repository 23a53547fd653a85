"""``kit submit``: the submission.csv of a notebook's version to the competition, and its score."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kitlib.errors import KitError
from kitlib.kaggle import bundled
from kitlib.kaggle.bundled import Bundle
from kitlib.kaggle.remote import pushed, session
from kitlib.kaggle.remote.client import Client, connect
from kitlib.kaggle.remote.push import user_lines
from kitlib.kaggle.remote.session import Patience

FILE = "submission.csv"


@dataclass(frozen=True)
class Scores:
    """What the competition gives; a blank one is not shown (yet)."""

    public: str
    private: str


def submit(
    run: Path | str,
    message: str = "",
    version: int = 0,
    wait: bool = True,
    client: Client | None = None,
    patience: Patience | None = None,
    say: Callable[[str], None] = print,
) -> Scores | None:
    """Submit what a version of the run's notebook wrote; Kaggle runs it again on the hidden images.

    Args:
        message: left out: the run and the version.
        version: of the notebook; left out: the one that was pushed last.
        wait: for the scores.
        client: left out: signed in with the user's credentials.
        say: prints a line of progress; a given ``client`` has its own.

    Returns:
        The scores; None without waiting.

    Raises:
        KitError: nothing pushed, its run not complete, Kaggle refuses, or the submission failed there.
    """
    bundle = bundled.load(run)
    version, own = _version(bundle, version)
    client, patience = client or connect(say), patience or Patience()
    bundle = bundled.fill_user(bundle, client.user)
    if own:
        _make_sure_it_ran(client, bundle, run)
    page = f"{bundle.competition_page}/submissions"
    answer = client.call(
        f"submit version {version} of {bundle.kernel_id} to {bundle.competition}",
        client.api.competition_submit_code,
        FILE,
        message or _message(bundle, version),
        bundle.competition,
        bundle.kernel_id,
        version,
        True,
        page=bundle.competition_page,
    )
    client.say(f"submitted version {version} of {bundle.kernel_id} to {bundle.competition}; {page}")
    return _scores(client, bundle, answer.ref, page, patience) if wait else None


def _version(bundle: Bundle, version: int) -> tuple[int, bool]:
    """The version to submit, and whether it is the last one pushed from here."""
    last = pushed.read(bundle).kernel_version
    if not (version or last):
        raise KitError(
            f"no notebook of {bundle.run} was pushed; run `kit push {bundle.run}`, or give --version"
        )
    return version or last, version in (0, last)


def _make_sure_it_ran(client: Client, bundle: Bundle, run: Path | str) -> None:
    state, _ = session.state(client, bundle)
    if state in session.RUNNING:
        raise KitError(
            f"the notebook is still {state} at {bundle.kernel_page}; `kit push {run}` waits for it"
        )
    if state != "complete":
        raise KitError(
            f"the notebook's run ended with '{state}'; see {bundle.kernel_page}, mend it and push again"
        )


def _message(bundle: Bundle, version: int | str) -> str:
    return f"{bundle.run.resolve().name}, version {version}"


def _scores(client: Client, bundle: Bundle, ref: int, page: str, patience: Patience) -> Scores:
    found: list[Any] = []

    def look() -> str:
        submissions = client.call(
            "ask for the submission's score",
            client.api.competition_submissions,
            bundle.competition,
            page=page,
        )
        found[:] = [one for one in submissions or [] if one.ref == ref or not ref][:1]
        return found[0].status.name.lower() if found else "pending"

    ended = session.wait(look, ("pending",), "submission", replace(patience, hours=24.0), client.say)
    if ended != "complete":
        said = client.hide(found[0].error_description or "without a reason")
        raise KitError(f"Kaggle could not score the submission ({said}); see {page}")
    return Scores(found[0].public_score or "", found[0].private_score or "")


def commands(run: Path | str, message: str = "", version: int = 0) -> list[str]:
    """What ``submit`` does, as command lines of the official client.

    Raises:
        KitError: there is no bundle.
    """
    bundle = bundled.load(run)
    number = str(version or pushed.read(bundle).kernel_version or "VERSION")
    text = message or _message(bundle, number)
    options = ("-k", bundle.kernel_id, "-v", number, "-f", FILE, "-m", text)
    lines = user_lines(bundle)
    if number == "VERSION":
        lines.append("# VERSION is the number that `kaggle kernels push` gave")
    return [
        *lines,
        shlex.join(("kaggle", "competitions", "submit", bundle.competition, *options)),
        "# again until it has a score:",
        shlex.join(("kaggle", "competitions", "submissions", bundle.competition)),
    ]
