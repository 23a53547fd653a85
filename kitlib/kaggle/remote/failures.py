"""What the official client raises, as one sentence that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import requests

from kitlib.errors import KitError
from kitlib.files import cannot_write

SITE = "https://www.kaggle.com"
NEW_TOKEN = (
    f"make a token at {SITE}/settings/api and set KAGGLE_API_TOKEN to it or save it in "
    "~/.kaggle/access_token (an older ~/.kaggle/kaggle.json works as well)"
)
BROKEN_CONNECTION = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


class Unavailable(KitError):
    """Kaggle was not reached, or had no time: the same call may succeed later."""


def explain(
    error: BaseException,
    doing: str,
    page: str = "",
    repeatable: bool = True,
    hide: Callable[[str], str] = str,
) -> KitError:
    """The error to raise for one of the official client's.

    Args:
        error: what the client raised.
        doing: what was tried, as in "download the data of titanic".
        page: the web page of the thing, such as a competition's.
        repeatable: whether a second call does no harm. Where it does, as with a submission, and Kaggle may
            have carried out the first one, the sentence says where to look before another try.
        hide: takes secrets out of a text.

    Returns:
        An ``Unavailable`` where the same call may succeed later.
    """
    again = "try again later" if repeatable else f"it may have been done: look at {page} before you try again"
    for cause in _causes(error):
        if isinstance(cause, requests.HTTPError) and cause.response is not None:
            return _refused(cause, f"cannot {doing}", page, again, hide)
        if isinstance(cause, requests.exceptions.SSLError):
            return KitError(
                f"cannot {doing}: the certificate of the connection cannot be verified; check the clock, and "
                "set REQUESTS_CA_BUNDLE to the certificate of your proxy if it has its own"
            )
        if isinstance(cause, BROKEN_CONNECTION):
            return Unavailable(f"cannot {doing}: the connection to Kaggle failed; check the network, {again}")
    if isinstance(error, json.JSONDecodeError):
        return KitError(
            f"cannot {doing}: the answer is not Kaggle's, but perhaps the login page of a network; open any "
            "page in a browser and try again"
        )
    if isinstance(error, requests.RequestException):  # its text holds the address, which may be signed
        return KitError(f"cannot {doing}: the client failed ({type(error).__name__}); {again}")
    if isinstance(error, OSError) and error.errno is not None:
        return KitError(hide(str(cannot_write(error.filename or "the file", error))))
    text = _short(hide(str(error))) or type(error).__name__
    return KitError(f"cannot {doing}: {text}" + (f"; see {page}" if page else ""))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those it was raised from: the client turns some answers of Kaggle into a ValueError."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _refused(
    error: requests.HTTPError, failed: str, page: str, again: str, hide: Callable[[str], str]
) -> KitError:
    code = error.response.status_code
    said = hide(_message(error.response))
    answer = f"{code}: {said}" if said else str(code)
    if code == 401:
        return KitError(f"{failed}: Kaggle does not accept your credentials ({answer}); {NEW_TOKEN}")
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
    """What Kaggle's JSON says, in one line; nothing for a page of HTML."""
    try:
        return _short(str(response.json()["message"]))
    except (ValueError, KeyError, TypeError, requests.RequestException):
        return ""


def _short(text: str) -> str:
    return " ".join(text.split())[:300].rstrip(".")
