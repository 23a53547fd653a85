"""``--dry-run``: what the kit asks of the official client, as command lines to type."""

from __future__ import annotations

import shlex
from pathlib import Path

from kitlib.kaggle import bundled
from kitlib.kaggle.bundled import NOBODY, Bundle
from kitlib.kaggle.remote.notebook import FILE
from kitlib.kaggle.remote.push import read_pushed, version_notes
from kitlib.kaggle.remote.submit import submission_message


def of_push(run: Path | str) -> list[str]:
    """What ``push`` does; lines with # say when.

    Raises:
        KitError: there is no bundle.
    """
    bundle = bundled.load(run)
    dataset, kernel = bundle.dataset_id, bundle.kernel_id
    status_of = ("kaggle", "datasets", "status", dataset, "--format", "json")
    options = ("-p", str(bundle.dataset), "-r", "zip", "-t")
    return [
        *_user_lines(bundle),
        shlex.join(status_of),
        "# where that fails, as there is none yet:",
        shlex.join(("kaggle", "datasets", "create", *options)),
        "# otherwise:",
        shlex.join(("kaggle", "datasets", "version", *options, "-m", version_notes(bundle))),
        '# again until it is "ready", in a later version than before:',
        shlex.join(status_of),
        "# it must list every file: the client leaves one out whose upload failed",
        shlex.join(("kaggle", "datasets", "files", dataset, "--page-size", "200")),
        shlex.join(("kaggle", "kernels", "push", "-p", str(bundle.kernel))),
        "# again until it is COMPLETE or ERROR:",
        shlex.join(("kaggle", "kernels", "status", kernel)),
        shlex.join(("kaggle", "kernels", "output", kernel, "-p", str(bundle.output), "-o")),
    ]


def of_submit(run: Path | str, message: str = "", version: int = 0) -> list[str]:
    """What ``submit`` does; lines with # say when.

    Args:
        run: the run's folder, which holds a bundle.
        message: left out: the run and the version.
        version: of the notebook; left out: the one that was pushed last.

    Raises:
        KitError: there is no bundle.
    """
    bundle = bundled.load(run)
    number = str(version or read_pushed(bundle).kernel_version or "VERSION")
    text = message or submission_message(bundle, number)
    options = ("-k", bundle.kernel_id, "-v", number, "-f", FILE, "-m", text)
    lines = _user_lines(bundle)
    if number == "VERSION":
        lines.append("# VERSION is the number that `kaggle kernels push` gave")
    return [
        *lines,
        shlex.join(("kaggle", "competitions", "submit", bundle.competition, *options)),
        "# again until it has a score:",
        shlex.join(("kaggle", "competitions", "submissions", bundle.competition)),
    ]


def _user_lines(bundle: Bundle) -> list[str]:
    """A word on the user's name, where the bundle has none yet."""
    if NOBODY not in bundle.dataset_id + bundle.kernel_id:
        return []
    paths = " and ".join(map(str, bundle.metadata))
    return [f"# {NOBODY} is your name on Kaggle: put it into {paths} first"]
