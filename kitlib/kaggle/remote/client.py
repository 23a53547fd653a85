"""Kaggle's official client, signed in.

Nothing of it is imported before ``connect``: ``import kaggle`` alone signs in, over the network.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

from kitlib.errors import KitError
from kitlib.kaggle.remote.failures import NEW_TOKEN, Unavailable, explain

if TYPE_CHECKING:
    from kaggle import KaggleApi

T = TypeVar("T")

OLDEST = (2, 2)  # of the client: earlier versions lack what is called here
PAGE_SIZE = 200  # the most entries of a list that Kaggle gives at once
FAILURES = 10  # looks in a row that find Kaggle unavailable, after which the waiting ends
REMINDER = 300.0  # seconds after which a line says that the waiting goes on


class Client:
    """The official client of a user who is signed in.

    Attributes:
        api: the client; its methods are to be called through ``call``.
        say: prints a line of progress.
        quiet: what to give the client's methods of that name. Its bars are for terminals.
    """

    def __init__(self, api: KaggleApi, say: Callable[[str], None]) -> None:
        self.api, self.say = api, say
        self.quiet = not sys.stderr.isatty()

    @property
    def user(self) -> str:
        return str(self.api.config_values.get("username", ""))

    def call(
        self,
        doing: str,
        function: Callable[..., T],
        *arguments: object,
        page: str = "",
        repeatable: bool = True,
        **options: object,
    ) -> T:
        """``function(*arguments, **options)`` of the client, without what it prints.

        Args:
            doing: what is tried, as in "push the notebook", for the error.
            function: a method of ``api``, called once.
            page: the web page of the thing.
            repeatable: whether a second call does no harm; see ``explain``.

        Raises:
            KitError: it failed; ``Unavailable`` where it may succeed later.
        """
        try:
            with redirect_stdout(io.StringIO()):
                return function(*arguments, **options)
        except (Exception, SystemExit) as error:
            raise explain(error, doing, page, repeatable, self.hide) from error

    def pages(self, doing: str, function: Callable[..., Any], name: str, page: str) -> Iterator[Any]:
        """The answers to ``function(name, token, PAGE_SIZE)``, page by page; see ``call``."""
        token = None
        while True:
            answer = self.call(doing, self.api.with_retry(function), name, token, PAGE_SIZE, page=page)
            yield answer
            token = answer.next_page_token
            if not token:
                return

    def hide(self, text: str) -> str:
        """``text`` without the user's token or key, should it hold them."""
        return hide(text, [self.api.config_values.get(name) for name in ("token", "key")])


def hide(text: str, secrets: Iterable[str | None] = ()) -> str:
    """``text`` without the secrets, those of the environment, and whatever looks like a token of Kaggle's."""
    for secret in [*secrets, os.environ.get("KAGGLE_API_TOKEN"), os.environ.get("KAGGLE_KEY")]:
        if secret and len(secret) > 5:
            text = text.replace(secret, "(hidden)")
    return re.sub(r"KGAT_\w+", "(hidden)", text)


def connect(say: Callable[[str], None] = print) -> Client:
    """Sign in to Kaggle with the credentials that the official client finds.

    Raises:
        KitError: no credentials, or refused ones; no network; the client is missing or too old.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings hold signed addresses
    _check_version()
    try:
        with redirect_stdout(io.StringIO()):
            from kaggle import KaggleApi
    except ImportError as error:
        raise _unusable(str(error)) from error
    except OSError as error:
        raise KitError(
            f"the official client cannot make its folder {error.filename}: {error.strerror}; set "
            "KAGGLE_CONFIG_DIR to a folder that can be written"
        ) from error
    client = Client(KaggleApi(), say)
    client.call("sign in to Kaggle", _sign_in, client.api)
    return client


def _check_version() -> None:
    try:
        version = metadata.version("kaggle")
    except metadata.PackageNotFoundError:
        raise _unusable("it is not installed") from None
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST:
        raise _unusable(f"it is version {version}")


def _unusable(why: str) -> KitError:
    return KitError(
        f"the official client of Kaggle cannot be used ({why}); `pip install 'kaggle>=2.2' six`, which needs "
        "Python 3.11 or later"
    )


def _sign_in(api: KaggleApi) -> None:
    try:
        api.authenticate()
    except SystemExit:
        unknown = "Kaggle does not know the token in KAGGLE_API_TOKEN"
        missing = "no Kaggle credentials that are valid were found"
        raise KitError(f"{unknown if os.environ.get('KAGGLE_API_TOKEN') else missing}; {NEW_TOKEN}") from None


def wait_while(
    pending: tuple[str, ...],
    look: Callable[[], str],
    what: str,
    every: float,
    hours: float,
    say: Callable[[str], None],
) -> str:
    """Look until the state is none of ``pending``, and return it. Each change is said.

    Args:
        pending: the states that will change by themselves.
        look: gives the state, such as "running".
        what: the thing that is waited for, for messages.
        every: seconds between two looks.
        hours: how long to wait at most.

    Raises:
        KitError: it took too long, or Kaggle was unavailable at ten looks in a row.
    """
    begun = time.monotonic()
    said, said_at, failures = "", begun, 0
    while True:
        now = time.monotonic()
        try:
            state, failures = look(), 0
        except Unavailable as error:
            state, failures = str(error), failures + 1
            if failures == FAILURES:
                raise
        if state != said or now - said_at >= REMINDER:
            say(f"{what}: {state}" + (f" ({(now - begun) / 60:.0f} min)" if now - begun >= 60 else ""))
            said, said_at = state, now
        if not failures and state not in pending:
            return state
        if now - begun > hours * 3600:
            raise KitError(f"{what} is still '{state}' after {hours:g} h; look at it on Kaggle")
        time.sleep(every)
