"""How a key may be presented: as a bearer token, as the password of a page, as a first message; never in an address."""

import base64
import binascii
import re
from collections.abc import Collection
from urllib.parse import unquote_plus

import msgspec
from aiohttp import hdrs, web

from ssmd.gateway.origins import from_our_page
from ssmd.gateway.problems import ApiProblem
from ssmd.gateway.routes import Route

HOW = "Send it as the header Authorization: Bearer KEY"
_MAX_FIRST_CHARS = 1_024
_KEY_IN_URL = re.compile(r"ssmd_[0-9A-Fa-f]{8}_")
_KEY_NAMES = frozenset(
    ("key", "api_key", "apikey", "api-key", "x-api-key", "token", "access_token", "auth", "authorization", "password")
)


class FirstMessage(msgspec.Struct):
    """`{"action":"auth","key":…}`."""

    action: str
    key: str
    id: str | int | None = None


def presented(request: web.Request, route: Route | None) -> str | None:
    """The text that is presented as a key; None when there is none."""
    given = request.headers.getall(hdrs.AUTHORIZATION, [])
    if not given:
        return None
    scheme, _, rest = given[0].partition(" ")
    if len(given) > 1:
        raise _wrong_way(route, "the header Authorization is there twice")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        raise _wrong_way(route, "the header Authorization has a scheme that the gateway does not know")
    # Browsers add a password to every request to this host, also to those that other pages make them send.
    page = route is not None and route.media.startswith("text/")
    if request.method not in ("GET", "HEAD") or not (page or from_our_page(request)):
        raise _wrong_way(route, "a password is for pages in a browser")
    try:
        return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        raise _wrong_way(route, "the header Authorization is not what Basic means") from None


def _wrong_way(route: Route | None, what: str) -> ApiProblem:
    return ApiProblem(401, "wrong_key", what, f"{HOW}.", headers=challenge(route, wrong=True))


def refuse_key_in_url(request: web.Request, route: Route | None) -> None:
    """ApiProblem 400 when there is a key in the address, or a parameter that is meant to be one."""
    query = request.rel_url.raw_query_string
    expected: Collection[str] = () if route is None else [parameter.name for parameter in route.parameters]
    names = {unquote_plus(pair.partition("=")[0]).lower() for pair in query.split("&")} if query else set()
    if (names & _KEY_NAMES) - set(expected) or _KEY_IN_URL.search(unquote_plus(request.raw_path)):
        step = f"Addresses end up in logs: revoke it (ssmd client key revoke ID). {HOW}."
        raise ApiProblem(400, "key_in_url", "an API key has no place in an address", step)


def first_message(data: str | bytes) -> FirstMessage:
    """The key of a client that sends it first; ApiProblem 401 when it is something else."""
    if len(data) <= _MAX_FIRST_CHARS:
        try:
            found = msgspec.json.decode(data, type=FirstMessage)
        except (msgspec.MsgspecError, UnicodeError):
            found = None
        if found is not None and found.action == "auth":
            return found
    step = 'Send {"action":"auth","key":"ssmd_…"} before anything else.'
    raise ApiProblem(401, "no_key", "the first message is not an API key", step)


def challenge(route: Route | None, *, wrong: bool) -> dict[str, str]:
    """How to come in: browsers ask their user for a password when they see the one for pages."""
    if route is not None and route.media.startswith("text/"):
        return {hdrs.WWW_AUTHENTICATE: 'Basic realm="ssmd: the API key is the password", charset="UTF-8"'}
    return {hdrs.WWW_AUTHENTICATE: 'Bearer realm="ssmd"' + (', error="invalid_token"' if wrong else "")}
