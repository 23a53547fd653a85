"""Kaggle's official client, signed in, and its errors as sentences that say what to do.

Nothing of the client is imported before ``connect``: ``import kaggle`` alone signs in, over the network.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import requests

from kitlib.errors import KitError
from kitlib.files import cannot_write

if TYPE_CHECKING:
    from kaggle import KaggleApi

T = TypeVar("T")

SITE = "https://www.kaggle.com"
_NEW_TOKEN = (
    f"make a token at {SITE}/settings/api and set KAGGLE_API_TOKEN to it or save it in "
    "~/.kaggle/access_token (an older ~/.kaggle/kaggle.json works as well)"
)
_BROKEN_CONNECTION = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
_OLDEST = (2, 2)  # of the client: earlier versions lack what is called here
_PAGE_SIZE = 200  # the most entries of a list that Kaggle gives at once
_FAILURES = 10  # failed queries in a row after which waiting ends
_REMINDER = 300.0  # seconds between two lines while the state does not change


class Client:
    """The official client of a user who is signed in.

    Attributes:
        api: the client; its methods are to be called through ``call``.
        say: prints a line of progress.
        quiet: for the client's methods: show no progress bar, as the output is no terminal.
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
            doing: what is tried, for the error: "push the notebook".
            function: a method of ``api``, called once.
            page: the web page of what is asked for.
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
        """The answers to ``function(name, token, PAGE_SIZE)``, page by page.

        Args:
            doing, function, page: as of ``call``.
            name: the dataset or competition whose files are listed.
        """
        token = None
        while True:
            answer = self.call(doing, self.api.with_retry(function), name, token, _PAGE_SIZE, page=page)
            yield answer
            token = answer.next_page_token
            if not token:
                return

    def hide(self, text: str) -> str:
        """``text`` without the user's token or key."""
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
    # Warnings of urllib3 hold signed addresses.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
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
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < _OLDEST:
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
        raise KitError(
            f"{unknown if os.environ.get('KAGGLE_API_TOKEN') else missing}; {_NEW_TOKEN}"
        ) from None


def wait_while(
    pending: tuple[str, ...],
    query: Callable[[], str],
    what: str,
    every: float,
    hours: float,
    say: Callable[[str], None],
) -> str:
    """Query a state until it is none of ``pending``, and return it.

    Args:
        pending: the states that will change by themselves.
        query: asks Kaggle for the state, such as "running".
        what: whose state it is, for messages.
        every: seconds between two queries.
        hours: how long to wait at most.
        say: prints a line at each change of the state.

    Raises:
        KitError: it took longer than ``hours``, or ten queries in a row found Kaggle unavailable.
    """
    begun = time.monotonic()
    said, said_at, failures = "", begun, 0
    while True:
        now = time.monotonic()
        try:
            state, failures = query(), 0
        except Unavailable as error:
            state, failures = str(error), failures + 1
            if failures == _FAILURES:
                raise
        if state != said or now - said_at >= _REMINDER:
            say(f"{what}: {state}" + (f" ({(now - begun) / 60:.0f} min)" if now - begun >= 60 else ""))
            said, said_at = state, now
        if not failures and state not in pending:
            return state
        if now - begun > hours * 3600:
            raise KitError(f"{what} is still '{state}' after {hours:g} h; look at it on Kaggle")
        time.sleep(every)


# -------------------------------------------------------------------------------- its errors


class Unavailable(KitError):
    """Kaggle was not reached, or is overloaded: the same call may succeed later."""


def explain(
    error: BaseException,
    doing: str,
    page: str = "",
    repeatable: bool = True,
    hide: Callable[[str], str] = str,
) -> KitError:
    """The error to raise for an error of the official client.

    Args:
        error: what the client raised.
        doing: what was tried: "download the data of titanic".
        page: the web page of what was asked for, such as a competition's.
        repeatable: whether a second call does no harm. A second submission does; as Kaggle may have accepted
            the first one, the sentence names the page to look at before another try.
        hide: takes secrets out of a text.

    Returns:
        An ``Unavailable`` where the same call may succeed later.
    """
    again = "try again later" if repeatable else f"it may have been done: look at {page} before you try again"
    for cause in _causes(error):
        if isinstance(cause, requests.HTTPError) and cause.response is not None:
            return _refused(cause.response, f"cannot {doing}", page, again, hide)
        if isinstance(cause, requests.exceptions.SSLError):
            return KitError(
                f"cannot {doing}: the certificate of the connection cannot be verified; check the clock, and "
                "set REQUESTS_CA_BUNDLE to the certificate of your proxy if it has its own"
            )
        if isinstance(cause, _BROKEN_CONNECTION):
            return Unavailable(f"cannot {doing}: the connection to Kaggle failed; check the network, {again}")
    if isinstance(error, json.JSONDecodeError):
        return KitError(
            f"cannot {doing}: the answer is not Kaggle's, but perhaps the login page of a network; open any "
            "page in a browser and try again"
        )
    # The error's own text holds the address, which may be signed.
    if isinstance(error, requests.RequestException):
        return KitError(f"cannot {doing}: the client failed ({type(error).__name__}); {again}")
    if isinstance(error, OSError) and error.errno is not None:
        return KitError(hide(str(cannot_write(error.filename or "the file", error))))
    text = _short(hide(str(error))) or type(error).__name__
    return KitError(f"cannot {doing}: {text}" + (f"; see {page}" if page else ""))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those it was raised from: the client turns some answers of Kaggle into a ValueError."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _refused(
    response: requests.Response, failed: str, page: str, again: str, hide: Callable[[str], str]
) -> KitError:
    code = response.status_code
    said = hide(_message(response))
    answer = f"{code}: {said}" if said else str(code)
    if code == 401:
        return KitError(f"{failed}: Kaggle does not accept your credentials ({answer}); {_NEW_TOKEN}")
    if code == 403:
        return KitError(f"{failed}: Kaggle refuses it ({answer}); {_permission(said, page)}")
    if code == 404:
        return KitError(
            f"{failed}: Kaggle has no such thing, or not for you ({answer}); check the name at {page}"
        )
    if code == 429:
        return Unavailable(f"{failed}: Kaggle asks for fewer requests ({answer}); try again in some minutes")
    if code >= 500:
        return Unavailable(f"{failed}: Kaggle is in trouble ({answer}); {again}")
    return KitError(f"{failed}: Kaggle refuses it ({answer})" + (f"; see {page}" if page else ""))


def _permission(said: str, page: str) -> str:
    if "phone" in said.lower() or "verif" in said.lower():
        return f"verify your phone number at {SITE}/settings and run again"
    if "/competitions/" in page:
        return (
            f"accept the competition's rules at {page}/rules (and verify your phone number), then run again"
        )
    return f"check that it belongs to the user of your credentials: {page}"


def _message(response: requests.Response) -> str:
    """The message in Kaggle's JSON, in one line; empty for a page of HTML."""
    try:
        return _short(str(response.json()["message"]))
    except (ValueError, KeyError, TypeError, requests.RequestException):
        return ""


def _short(text: str) -> str:
    return " ".join(text.split())[:300].rstrip(".")
