"""Ask the running gateway of an environment something over HTTP, as its operator."""

import os
import ssl
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener
from urllib.request import HTTPSHandler as TlsHandler

import msgspec
from cyclopts import Parameter

from ssmd.cli.options import Chosen
from ssmd.errors import ConfigError, RefusedError, Unavailable

KEY_VARIABLE = "SSMD_CLIENT_KEY"
TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 32 << 20

KeyFile = Annotated[
    Path | None,
    Parameter(name="--key-file", help=f"A file with an API key of scope admin; default: the variable {KEY_VARIABLE}."),
]
Url = Annotated[
    str | None, Parameter(name="--url", help="The gateway, like https://host:8080; default: the environment's.")
]


class GatewayCalls:
    """The admin side of one gateway."""

    def __init__(self, chosen: Chosen, url: str | None = None, key_file: Path | None = None) -> None:
        settings = chosen.environment.spec.gateway
        host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 compared only
        at = f"[{host}]" if ":" in host else host
        self.url = (url or f"http{'s' if settings.tls else ''}://{at}:{settings.port}").rstrip("/")
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ConfigError(f"--url {self.url[:80]!r} is no address of a gateway", "Write http://127.0.0.1:8080.")
        self._environment = chosen.environment.name
        self._key = _key(key_file)
        context = ssl.create_default_context()
        if settings.tls and url is None:
            context.check_hostname = False  # the certificate is this very file's, whatever name it carries
            context.load_verify_locations(chosen.home / settings.tls.cert_file)
        self._opener = build_opener(TlsHandler(context=context), _NoRedirects())

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The decoded JSON answer. Unavailable when nobody answers; RefusedError and ConfigError as the answer says."""
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        data = None
        if body is not None:
            data, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        request = Request(self.url + path, data, headers, method=method)  # noqa: S310  # the scheme was checked
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return msgspec.json.decode(answer.read(MAX_ANSWER_BYTES))
        except HTTPError as error:
            raise self._problem(error) from error
        except (URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(
                f"the gateway of {self._environment} at {self.url} does not answer: {reason}",
                "Start it (ssmd up, or ssmd run gateway), or name another with --url.",
            ) from error
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise Unavailable(f"{self.url} is not a gateway of ssmd", "Name it with --url.") from error

    def _problem(self, error: HTTPError) -> Exception:
        try:
            said = msgspec.json.decode(error.read(65_536), type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeError, OSError, HTTPException):
            said = {}
        detail = str(said.get("detail") or error.reason)[:500]
        if error.code in (401, 403):
            hint = f"Make one: ssmd client key create --name me --scope admin; then export {KEY_VARIABLE}=<key>."
            return ConfigError(f"the gateway of {self._environment} wants a key of scope admin: {detail}", hint)
        if error.code == 404:
            return ConfigError(detail, "Run: ssmd client list")
        if error.code >= 500 or error.code == 429:
            return Unavailable(
                f"the gateway of {self._environment} cannot say now: {detail}", "Run it again in a moment."
            )
        return RefusedError(detail, str(said.get("next") or "")[:500])


class _NoRedirects(HTTPRedirectHandler):
    """A key must not follow a redirect to another host."""

    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        return None


def _key(key_file: Path | None) -> str:
    if key_file is None:
        return os.environ.get(KEY_VARIABLE, "").strip()
    name, hint = ascii(str(key_file))[1:81], "Give a file with the key alone."
    try:
        text = key_file.read_text().strip()
    except (OSError, UnicodeError, ValueError) as error:
        raise ConfigError(f"cannot read the key in '{name}'", hint) from error
    if not text.isascii() or not text.isprintable():
        raise ConfigError(f"'{name}' holds no API key", hint)
    return text
