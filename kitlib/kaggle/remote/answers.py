"""What went wrong at Kaggle, as one sentence with the mend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import requests

from kitlib.errors import KitError
from kitlib.files import cannot_write
from kitlib.kaggle.remote import retry

SITE = "https://www.kaggle.com"
TOKENS = f"{SITE}/settings/api"
NEW_TOKEN = (
    f"make a token at {TOKENS} and set KAGGLE_API_TOKEN to it or save it in ~/.kaggle/access_token "
    "(an older ~/.kaggle/kaggle.json works as well)"
)


def explain(error: BaseException, doing: str, page: str, hide: Callable[[str], str]) -> KitError:
    """The sentence for what the client raised.

    Args:
        doing: what was tried, as in "download the data of titanic".
        page: where the thing is to be seen on Kaggle, such as a competition's page.
        hide: takes secrets out of a text that comes from elsewhere.
    """
    causes = list(chain(error))
    for cause in causes:
        if retry.status(cause):
            return _refused(cause, retry.status(cause), doing, page, hide)
    for cause in causes:
        if isinstance(cause, retry.LOST):
            return _lost(cause, doing, page)
    if isinstance(error, json.JSONDecodeError):
        return KitError(
            f"cannot {doing}: the answer is not Kaggle's; a proxy or the login page of a network may stand "
            "between: open any page in a browser and try again"
        )
    if isinstance(error, OSError) and error.errno is not None and error.filename:
        return KitError(hide(str(cannot_write(error.filename, error))))
    if isinstance(error, requests.RequestException):  # its text holds the address, which may be signed
        return KitError(f"cannot {doing}: the client failed ({type(error).__name__}); run again")
    text = hide(" ".join(str(error).split())) or type(error).__name__
    return KitError(f"cannot {doing}: {text}" + (f"; see {page}" if page else ""))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those it was raised from: the client turns some answers into a ValueError."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _refused(error: BaseException, code: int, doing: str, page: str, hide: Callable[[str], str]) -> KitError:
    said = hide(message(error))
    answer = f"{code}: {said}" if said else str(code)
    if code == 401:
        return KitError(f"cannot {doing}: Kaggle does not accept your credentials ({answer}); {NEW_TOKEN}")
    if code == 403:
        return KitError(f"cannot {doing}: Kaggle refuses it ({answer}); {_permission(said, page)}")
    if code == 404:
        where = f"; check the name, or look at {page}" if page else "; check the name"
        return KitError(f"cannot {doing}: Kaggle has no such thing, or not for you ({answer}){where}")
    if code == 429:
        asked = retry.asked_pause(error)
        when = f"in {asked:.0f} s" if asked else "in some minutes"
        return KitError(f"cannot {doing}: Kaggle asks for fewer requests ({answer}); try again {when}")
    if code >= 500:
        return KitError(
            f"cannot {doing}: Kaggle is in trouble ({answer}); "
            f"{_unsure(page) if _is_write(error) else 'try again later'}"
        )
    return KitError(f"cannot {doing}: Kaggle refuses it ({answer})" + (f"; see {page}" if page else ""))


def _permission(said: str, page: str) -> str:
    text = said.lower()
    if "phone" in text or "verif" in text:
        return f"verify your phone number at {SITE}/settings and run again"
    if "/competitions/" in page:
        return (
            f"accept the competition's rules at {page}/rules (and verify your phone number), then run again"
        )
    return "check that the user of your credentials owns it" + (f": {page}" if page else "")


def _lost(error: BaseException, doing: str, page: str) -> KitError:
    if retry.unreached(error):
        return KitError(
            f"cannot {doing}: Kaggle cannot be reached; check the network and the proxy's settings"
        )
    if isinstance(error, requests.exceptions.SSLError):
        return KitError(
            f"cannot {doing}: {retry.reason(error)}; check the clock, and where a proxy has a certificate of "
            "its own set REQUESTS_CA_BUNDLE to it"
        )
    mend = _unsure(page) if _is_write(error) else "check the network and run again"
    return KitError(f"cannot {doing}: {retry.reason(error)}; {mend}")


def _unsure(page: str) -> str:
    return f"it may have been done all the same: look at {page or SITE} before you try again"


ONCE = ("CreateCodeSubmission", "CreateDataset", "SaveKernel")
"""Requests that are not to be carried out twice."""


def _is_write(error: BaseException) -> bool:
    request = getattr(error, "request", None)
    return str(getattr(request, "url", "")).rsplit("/", 1)[-1] in ONCE


def message(error: BaseException) -> str:
    """What Kaggle's JSON says, in one line; nothing for a page of HTML."""
    response = getattr(error, "response", None)
    try:
        text = response.json()["message"]
    except (AttributeError, ValueError, KeyError, TypeError, requests.RequestException):
        return ""
    return " ".join(str(text).split())[:300].rstrip(".")
