"""Kaggle's official client, signed in, whose failures are one sentence with the mend.

Nothing of it is imported before ``connect``: merely importing ``kaggle`` signs in, over the network.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, TypeVar

from kitlib.errors import KitError

if TYPE_CHECKING:
    from kitlib.kaggle.remote.official import Api
    from kitlib.kaggle.remote.retry import Retry

T = TypeVar("T")


class Client:
    """The official client of a user who is signed in.

    Attributes:
        api: the client itself; its methods are to be called through ``call``.
        user: the name of the user.
        retry: how patiently it tries again.
        say: prints a line of progress.
    """

    def __init__(self, api: Api, retry: Retry) -> None:
        self.api, self.retry, self.say = api, retry, retry.say

    @property
    def user(self) -> str:
        return str(self.api.config_values.get("username", ""))

    def call(self, doing: str, function: Callable[..., T], *arguments: object, page: str = "") -> T:
        """``function(*arguments)`` of the client, without what it prints.

        Args:
            doing: what is tried, as in "push the notebook", for the error.
            page: where the thing is to be seen on Kaggle.

        Raises:
            KitError: it failed, in the end.
        """
        from kitlib.kaggle.remote.answers import explain

        try:
            with redirect_stdout(io.StringIO()):
                return function(*arguments)
        except KitError:
            raise
        except (Exception, SystemExit) as error:
            raise explain(error, doing, page, self.hide) from error

    def hide(self, text: str) -> str:
        """``text`` without the user's token or key, should it hold them."""
        return hide(text, self.api.secrets())


def hide(text: str, secrets: list[str] = ()) -> str:
    """``text`` with the secrets, those of the environment too, made unreadable."""
    for secret in [*secrets, *map(os.environ.get, ("KAGGLE_API_TOKEN", "KAGGLE_KEY"))]:
        if secret and len(secret) > 5:
            text = text.replace(secret, "(hidden)")
    return text


def connect(say: Callable[[str], None] = print, retry: Retry | None = None) -> Client:
    """Sign in to Kaggle with the credentials that the official client finds.

    Args:
        say: told of pauses, and what is being uploaded.
        retry: left out: the usual patience.

    Raises:
        KitError: no credentials, or refused ones; no network; no fit client.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings and more hold signed addresses
    say = _aloud(say)
    with redirect_stdout(io.StringIO()):
        official = _official()
    from kitlib.kaggle.remote import retry as patience

    retry = replace(retry or patience.default(), say=say)
    client = Client(official.Api(retry, say), retry)
    client.call("sign in to Kaggle", _sign_in, client.api, official)
    return client


def _official() -> object:
    try:
        from kitlib.kaggle.remote import official
    except ImportError as error:
        raise KitError(
            f"the official client, kaggle {_version()}, cannot be used; `pip install 'kaggle>=2.2'`, which "
            "needs Python 3.11 or later"
        ) from error
    except OSError as error:
        raise KitError(
            f"the official client cannot make its folder {error.filename}: {error.strerror}; set "
            "KAGGLE_CONFIG_DIR to a folder that can be written"
        ) from error
    return official


def _version() -> str:
    try:
        return metadata.version("kaggle")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _sign_in(api: Api, official: object) -> None:
    from kitlib.kaggle.remote.answers import NEW_TOKEN

    try:
        api.authenticate()
        return
    except SystemExit:
        _, source = official.get_access_token_from_env()
    if source:
        place = source if source.startswith("KAGGLE") else f"~/.kaggle/{source}"
        raise KitError(f"Kaggle does not know the token in {place}, it may have been withdrawn; {NEW_TOKEN}")
    raise KitError(f"no Kaggle credentials found; {NEW_TOKEN}")


def _aloud(say: Callable[[str], None]) -> Callable[[str], None]:
    """``say`` to where output goes now, even while the client's own is thrown away."""
    stream = sys.stdout

    def speak(line: str) -> None:
        with redirect_stdout(stream):
            say(line)

    return speak
