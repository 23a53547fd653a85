"""``kit push``: a run's bundle to Kaggle, its notebook run there, and what it wrote back."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kitlib.errors import KitError
from kitlib.kaggle import bundled
from kitlib.kaggle.bundled import NOBODY, Bundle
from kitlib.kaggle.remote import pushed, session
from kitlib.kaggle.remote.client import Client, connect
from kitlib.kaggle.remote.pushed import Pushed
from kitlib.kaggle.remote.retry import status
from kitlib.kaggle.remote.session import Patience

ABSENT = "absent"


def push(
    run: Path | str,
    wait: bool = True,
    client: Client | None = None,
    patience: Patience | None = None,
    say: Callable[[str], None] = print,
) -> Path | None:
    """Send the dataset and the notebook, wait for its run and fetch what it wrote.

    What is as it was is not sent again: neither a dataset, nor a notebook that runs or was not fetched yet.

    Args:
        wait: for the notebook's run; for the dataset it waits in any case, as the notebook needs it.
        client: left out: signed in with the user's credentials.
        say: prints a line of progress; a given ``client`` has its own.

    Returns:
        The submission's path; None without waiting.

    Raises:
        KitError: no bundle, no credentials, Kaggle refuses, or the notebook failed there.
    """
    bundle, patience = bundled.load(run), patience or Patience()
    client = client or connect(say)
    bundle = bundled.fill_user(bundle, client.user)
    _send_dataset(client, bundle, patience)
    fresh = _send_kernel(client, bundle)
    if not wait:
        client.say(
            f"running at {bundle.kernel_page}; `kit push {run}` waits for it and fetches what it writes"
        )
        return None
    submission = session.finish(client, bundle, patience, fresh)
    client.say(f"{submission} is the submission; `kit submit {run}` sends it to {bundle.competition}")
    return submission


def _send_dataset(client: Client, bundle: Bundle, patience: Patience) -> None:
    known, digest = pushed.read(bundle), pushed.sum_of(bundle.dataset)
    state, version = _dataset(client, bundle)
    if state == "ready" and (known.dataset_sum, known.dataset_version) == (digest, version):
        client.say(f"dataset {bundle.dataset_id}: version {version} is as it is here")
        return
    if state != ABSENT and known.dataset_sum == digest and known.dataset_version <= 0:
        before = -known.dataset_version
        client.say(f"dataset {bundle.dataset_id}: sent before, and not ready then")
    else:
        before = version
        _upload(client, bundle, state == ABSENT)
        pushed.write(bundle, replace(known, dataset_sum=digest, dataset_version=-before))
    version = _until_ready(client, bundle, before, patience)
    pushed.write(bundle, replace(known, dataset_sum=digest, dataset_version=version))


def _upload(client: Client, bundle: Bundle, new: bool) -> None:
    """Send a new dataset, or a new version of it."""
    client.say(f"dataset {bundle.dataset_id}: {'a new one' if new else 'a new version'}")
    if new:
        sent = (client.api.dataset_create_new, str(bundle.dataset), False, True, False, "zip")
    else:
        sent = (
            client.api.dataset_create_version,
            str(bundle.dataset),
            notes(bundle),
            True,
            False,
            False,
            "zip",
        )
    doing = f"send the dataset {bundle.dataset_id}"
    answer = client.call(doing, *sent, page=bundle.dataset_page)
    if (answer.status or "").lower() != "ok" or answer.error:
        raise KitError(f"cannot {doing}: Kaggle says '{client.hide(answer.error or answer.status or '')}'")


def _until_ready(client: Client, bundle: Bundle, before: int, patience: Patience) -> int:
    """Wait until a version later than ``before`` is ready, and return its number."""

    def look() -> str:
        state, version = _dataset(client, bundle)
        return (
            "ready"
            if state == "ready" and version > before
            else "failed"
            if state == "failed"
            else "processing"
        )

    what = f"dataset {bundle.dataset_id}"
    if session.wait(look, ("processing",), what, replace(patience, hours=1.0), client.say) == "failed":
        pushed.write(bundle, replace(pushed.read(bundle), dataset_sum=""))  # it has to be sent again
        raise KitError(f"Kaggle could not take in the dataset; see {bundle.dataset_page}, and push again")
    return _dataset(client, bundle)[1]


def _dataset(client: Client, bundle: Bundle) -> tuple[str, int]:
    """The dataset's state and version; Kaggle says 403 of a dataset that is not there."""
    try:
        text = client.call(
            f"ask for the state of {bundle.dataset_id}",
            client.api.dataset_status,
            bundle.dataset_id,
            "json",
            page=bundle.dataset_page,
        )
    except KitError as error:
        if error.__cause__ is not None and status(error.__cause__) in (403, 404):
            return ABSENT, 0
        raise
    values = json.loads(text)
    return values["status"], values["current_version_number"] or 0


def _send_kernel(client: Client, bundle: Bundle) -> bool:
    """Push the notebook; whether there was a need to."""
    known, digest = pushed.read(bundle), pushed.sum_of(bundle.kernel) + pushed.sum_of(bundle.dataset)
    if known.kernel_sum == digest and _is_under_way(client, bundle, known):
        client.say(f"notebook {bundle.kernel_id}: version {known.kernel_version} is as it is here")
        return False
    doing = f"push the notebook {bundle.kernel_id}"
    answer = client.call(doing, client.api.kernels_push, str(bundle.kernel), page=bundle.kernel_page)
    left_out = [*(answer.invalid_dataset_sources or []), *(answer.invalid_competition_sources or [])]
    if answer.error or left_out:
        said = answer.error or f"it cannot see {', '.join(left_out)}"
        raise KitError(
            f"cannot {doing}: {client.hide(said)}; accept the rules at {bundle.competition_page}/rules"
        )
    version = answer.version_number or 0
    client.say(f"notebook {bundle.kernel_id}: version {version} pushed, {bundle.kernel_page}")
    new = replace(
        known,
        kernel_sum=digest,
        kernel_version=version,
        kernel=bundle.kernel_id,
        competition=bundle.competition,
    )
    pushed.write(bundle, new)
    return True


def _is_under_way(client: Client, bundle: Bundle, known: Pushed) -> bool:
    """Whether the last version pushed still runs, or has ended well without its output being fetched."""
    state, _ = session.state(client, bundle)
    return state in session.RUNNING or (state == "complete" and known.fetched_version < known.kernel_version)


def notes(bundle: Bundle) -> str:
    """What a dataset's version is called."""
    return f"kit bundle of {bundle.run.resolve().name}"


def commands(run: Path | str) -> list[str]:
    """What ``push`` does, as command lines of the official client; lines with # say when.

    Raises:
        KitError: there is no bundle.
    """
    bundle = bundled.load(run)
    dataset, kernel = bundle.dataset_id, bundle.kernel_id
    status_of = ("kaggle", "datasets", "status", dataset, "--format", "json")
    options = ("-p", str(bundle.dataset), "-r", "zip", "-t")
    return [
        *user_lines(bundle),
        shlex.join(status_of),
        "# where that fails, as there is none yet:",
        shlex.join(("kaggle", "datasets", "create", *options)),
        "# otherwise:",
        shlex.join(("kaggle", "datasets", "version", *options, "-m", notes(bundle))),
        '# again until it is "ready", in a later version than before:',
        shlex.join(status_of),
        shlex.join(("kaggle", "kernels", "push", "-p", str(bundle.kernel))),
        "# again until it is COMPLETE or ERROR:",
        shlex.join(("kaggle", "kernels", "status", kernel)),
        shlex.join(("kaggle", "kernels", "output", kernel, "-p", str(bundle.output), "-o")),
    ]


def user_lines(bundle: Bundle) -> list[str]:
    """A word on the user's name, where the bundle has none yet."""
    if NOBODY not in bundle.dataset_id + bundle.kernel_id:
        return []
    paths = " and ".join(map(str, bundle.metadata))
    return [f"# {NOBODY} is your name on Kaggle: put it into {paths} first"]
