"""``kit push``: send a run's bundle to Kaggle, run its notebook there, and fetch what that writes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from kitlib.errors import KitError
from kitlib.files import fingerprint, read_json, write_json
from kitlib.kaggle import bundle as bundles
from kitlib.kaggle.bundle import NOBODY, Bundle
from kitlib.kaggle.remote import notebook
from kitlib.kaggle.remote.client import Client, connect, wait_while

_ABSENT = "absent"


@dataclass(frozen=True)
class Pushed:
    """What was sent to Kaggle, as RUN/kaggle/pushed.json has it: a second push sends only what is new.

    Attributes:
        dataset_sum, kernel_sum: fingerprints of what was sent.
        dataset_version, kernel_version: the numbers of these versions on Kaggle.
        fetched_version: the version of the notebook whose output lies in RUN/kaggle/output.
    """

    dataset_sum: str = ""
    dataset_version: int = 0
    kernel_sum: str = ""
    kernel_version: int = 0
    fetched_version: int = 0


def read_pushed(bundle: Bundle) -> Pushed:
    """What was sent; all zero where there is no such file.

    Raises:
        KitError: the file is not whole.
    """
    path = _pushed_path(bundle)
    values = read_json(path) if path.is_file() else {}
    if not isinstance(values, dict):
        raise KitError(f"{path} is not an object of JSON; delete it and push again")
    return Pushed(**{field.name: values[field.name] for field in fields(Pushed) if field.name in values})


def _write_pushed(bundle: Bundle, **changes: str | int) -> None:
    write_json(_pushed_path(bundle), {**asdict(read_pushed(bundle)), **changes})


def _pushed_path(bundle: Bundle) -> Path:
    return bundle.folder / "pushed.json"


def push(
    run: Path | str, wait: bool = True, every: float = 20.0, say: Callable[[str], None] = print
) -> Path | None:
    """Send the dataset and the notebook, wait for its run and fetch what it wrote.

    A dataset that has not changed is not sent again, nor is an unchanged notebook that runs or whose output
    was not fetched yet.

    Args:
        run: the run's folder, which holds a bundle.
        wait: for the notebook's run. The dataset is waited for in any case, as the notebook needs it.
        every: seconds between two queries of a state.
        say: prints a line of progress.

    Returns:
        The submission's path; None without waiting.

    Raises:
        KitError: there is no bundle, there are no credentials, Kaggle refuses, a file of the dataset did not
            arrive, or the notebook failed there.
    """
    bundle = bundles.load(run)
    client = connect(say)
    bundle = bundles.fill_user(bundle, client.user)
    _send_dataset(client, bundle, every)
    is_new = _send_notebook(client, bundle)
    if not wait:
        say(f"running at {bundle.kernel_page}; `kit push {run}` waits for it and fetches what it writes")
        return None
    state = notebook.wait_for_end(client, bundle, every, is_new)
    log = notebook.fetch_output(client, bundle)
    _write_pushed(bundle, fetched_version=read_pushed(bundle).kernel_version)
    submission = notebook.submission_of(client, bundle, state, log)
    say(f"{submission} is the submission; `kit submit {run}` sends it to {bundle.competition}")
    return submission


def _send_dataset(client: Client, bundle: Bundle, every: float) -> None:
    """Send the dataset where it is new, or another version is on Kaggle, and wait until it is ready there."""
    pushed, digest = read_pushed(bundle), _sum_of(bundle.dataset)
    state, version = _dataset_state(client, bundle)
    if state != _ABSENT and pushed.dataset_sum == digest and version <= pushed.dataset_version:
        client.say(f"dataset {bundle.dataset_id}: version {pushed.dataset_version} was sent before")
    else:
        _upload(client, bundle, is_new=state == _ABSENT)
        # A version that was sent before may not be ready yet, and must not be taken for this one.
        newest = 0 if state == _ABSENT else max(version, pushed.dataset_version)
        _write_pushed(bundle, dataset_sum=digest, dataset_version=newest + 1)
    try:
        _wait_until_ready(client, bundle, every)
        _check_files(client, bundle)
    except _DatasetError:
        _write_pushed(bundle, dataset_sum="", dataset_version=0)  # the next push sends it again
        raise


class _DatasetError(KitError):
    """The dataset on Kaggle is not what was sent."""


def _upload(client: Client, bundle: Bundle, is_new: bool) -> None:
    """Send a new dataset, or a new version of it."""
    size = sum(path.stat().st_size for path in bundle.dataset.iterdir())
    what = "a new one" if is_new else "a new version"
    client.say(f"dataset {bundle.dataset_id}: sending {what} ({size / 1e6:.1f} MB)")
    doing = f"send the dataset {bundle.dataset_id}"
    create = client.api.dataset_create_new if is_new else client.api.dataset_create_version
    answer = client.call(
        doing,
        create,
        str(bundle.dataset),
        *(() if is_new else (_version_notes(bundle),)),
        quiet=client.quiet,
        convert_to_csv=False,
        dir_mode="zip",
        page=bundle.dataset_page,
    )
    if (answer.status or "").lower() != "ok" or answer.error:
        raise KitError(f"cannot {doing}: Kaggle says '{client.hide(answer.error or answer.status or '')}'")


def _wait_until_ready(client: Client, bundle: Bundle, every: float) -> None:
    expected = read_pushed(bundle).dataset_version

    def query() -> str:
        state, version = _dataset_state(client, bundle)
        return state if state == "failed" or (state == "ready" and version >= expected) else "processing"

    if wait_while(("processing",), query, f"dataset {bundle.dataset_id}", every, 1.0, client.say) == "failed":
        raise _DatasetError(
            f"Kaggle could not take in the dataset; see {bundle.dataset_page}, and push again"
        )


def _check_files(client: Client, bundle: Bundle) -> None:
    """Make sure that no file is missing: where an upload fails, the client leaves it out without an error."""
    doing, function = f"list the files of {bundle.dataset_id}", client.api.dataset_list_files
    answers = client.pages(doing, function, bundle.dataset_id, bundle.dataset_page)
    there = {file.name for answer in answers for file in answer.files}
    sent = {path.name for path in bundle.dataset.iterdir() if path.is_file()} - {bundles.DATASET}
    missing = ", ".join(sorted(sent - there))
    if missing:
        raise _DatasetError(f"{missing} did not arrive in the dataset at {bundle.dataset_page}; push again")


def _dataset_state(client: Client, bundle: Bundle) -> tuple[str, int]:
    """The dataset's state and the number of its newest version that is ready; 0 where there is none."""
    doing, function = f"ask for the state of {bundle.dataset_id}", client.api.dataset_status
    try:
        text = client.call(doing, function, bundle.dataset_id, "json", page=bundle.dataset_page)
    except KitError as error:
        answer = getattr(error.__cause__, "response", None)
        # Kaggle answers 403 where there is no such dataset.
        if answer is not None and answer.status_code in (403, 404):
            return _ABSENT, 0
        raise
    values = json.loads(text)
    return values["status"], values["current_version_number"] or 0


def _send_notebook(client: Client, bundle: Bundle) -> bool:
    """Push the notebook unless it is under way; whether it was pushed."""
    pushed, digest = read_pushed(bundle), _sum_of(bundle.kernel) + _sum_of(bundle.dataset)
    if pushed.kernel_sum == digest and _is_under_way(client, bundle, pushed):
        client.say(f"notebook {bundle.kernel_id}: version {pushed.kernel_version} was pushed before")
        return False
    doing, function = f"push the notebook {bundle.kernel_id}", client.api.kernels_push
    answer = client.call(doing, function, str(bundle.kernel), page=bundle.kernel_page, repeatable=False)
    unseen = [*(answer.invalid_dataset_sources or []), *(answer.invalid_competition_sources or [])]
    if answer.error or unseen:
        said = answer.error or f"it cannot see {', '.join(unseen)}"
        raise KitError(
            f"cannot {doing}: {client.hide(said)}; accept the rules at {bundle.competition_page}/rules"
        )
    version = answer.version_number or 0
    client.say(f"notebook {bundle.kernel_id}: version {version} pushed, {bundle.kernel_page}")
    _write_pushed(bundle, kernel_sum=digest, kernel_version=version)
    return True


def _is_under_way(client: Client, bundle: Bundle, pushed: Pushed) -> bool:
    """Whether the last version pushed still runs, or has ended well and its output was not fetched yet."""
    state, _ = notebook.state_of(client, bundle)
    return state in notebook.RUNNING or (
        state == "complete" and pushed.fetched_version < pushed.kernel_version
    )


def _sum_of(folder: Path) -> str:
    """A fingerprint of the files of a folder, by name and contents."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return fingerprint(*(part for path in paths for part in (path.relative_to(folder).as_posix(), path)))


def _version_notes(bundle: Bundle) -> str:
    """The notes of a dataset's version."""
    return f"kit bundle of {bundle.run.resolve().name}"


# -------------------------------------------------------------------------------- --dry-run


def commands(run: Path | str) -> list[str]:
    """What ``push`` does, as command lines of the official client; lines with # say when.

    Raises:
        KitError: there is no bundle.
    """
    bundle = bundles.load(run)
    dataset, kernel = bundle.dataset_id, bundle.kernel_id
    status_of = ("kaggle", "datasets", "status", dataset, "--format", "json")
    options = ("-p", str(bundle.dataset), "-r", "zip", "-t")
    return [
        *user_lines(bundle),
        shlex.join(status_of),
        "# where that fails, as there is none yet:",
        shlex.join(("kaggle", "datasets", "create", *options)),
        "# otherwise:",
        shlex.join(("kaggle", "datasets", "version", *options, "-m", _version_notes(bundle))),
        '# again until it is "ready", in a later version than before:',
        shlex.join(status_of),
        "# it must list every file: the client leaves one out whose upload failed",
        shlex.join(("kaggle", "datasets", "files", dataset, "--page-size", "200")),
        shlex.join(("kaggle", "kernels", "push", "-p", str(bundle.kernel))),
        "# again until it is COMPLETE or ERROR:",
        shlex.join(("kaggle", "kernels", "status", kernel)),
        shlex.join(("kaggle", "kernels", "output", kernel, "-p", str(bundle.output), "-o")),
    ]


def user_lines(bundle: Bundle) -> list[str]:
    """The line on the user's name, where the bundle has none yet."""
    if NOBODY not in bundle.dataset_id + bundle.kernel_id:
        return []
    paths = " and ".join(map(str, bundle.metadata))
    return [f"# {NOBODY} is your name on Kaggle: put it into {paths} first"]
