"""Where a gateway is and how to get in; the key is in no URL, no text and no error."""

import os
import re
import ssl
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from ssmd.client.errors import GatewayAway, GatewayError, NotAllowed

KEY_VARIABLE = "SSMD_CLIENT_KEY"
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_KEY = re.compile(r"[!-~]{1,256}")
_KEY_IN_URL = re.compile(r"ssmd_[0-9A-Fa-f]{8}_")
_EXAMPLE = "Give an address like http://127.0.0.1:18080 or https://gateway.example:18080."


class Address:
    """A gateway's address, checked. GatewayError when it is none."""

    def __init__(self, url: str, key: str | None, ca_file: str | Path | None) -> None:
        if _KEY_IN_URL.search(url):
            raise GatewayError("an address with a key in it ends up in logs", "Give the key as Client(key=…).")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise GatewayError(f"{url[:80]!a} is not an address", _EXAMPLE) from None
        if parts.scheme not in _SCHEMES or not parts.hostname or re.search(r"[\x00-\x20\x7f]", url):
            raise GatewayError(f"{url[:80]!a} is not an address", _EXAMPLE)
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise GatewayError("an address has no user, no query and no fragment", _EXAMPLE)
        self.scheme = _SCHEMES[parts.scheme]
        self.host = parts.hostname
        self.port = port or (443 if self.scheme == "https" else 80)
        self.path = parts.path.rstrip("/")
        key = key or os.environ.get(KEY_VARIABLE) or None
        if key is not None and not _KEY.fullmatch(key):
            raise NotAllowed("the key has characters that no key has", "Give it as it was printed: ssmd_…, one line.")
        self._key = key
        self._ca_file = ca_file

    @property
    def headers(self) -> dict[str, str]:
        """Of every request."""
        return {"User-Agent": "ssmd-client"} | ({} if self._key is None else {"Authorization": f"Bearer {self._key}"})

    @cached_property
    def tls(self) -> ssl.SSLContext | None:
        """How certificates are checked; None without TLS."""
        if self.scheme != "https":
            return None
        try:
            return ssl.create_default_context(cafile=None if self._ca_file is None else str(self._ca_file))
        except (OSError, ssl.SSLError) as error:
            raise GatewayError(
                f"ca_file {str(self._ca_file)[:200]!a} cannot be used: {error}", "Give a file of PEM certificates."
            ) from None

    def url(self, path: str) -> str:
        """The whole address of a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}{path}"

    def __str__(self) -> str:
        return self.url("")

    def __repr__(self) -> str:
        return f"<Address {self}{' with a key' if self._key else ''}>"


def connection_refused(address: Address, error: BaseException) -> GatewayAway:
    """The error for a gateway that cannot be reached."""
    step = "Is it running there? Start it with `make up` or `ssmd run gateway --env FILE`."
    cause = error.__cause__ or error.__context__ or error
    if isinstance(error, ssl.SSLCertVerificationError) or isinstance(cause, ssl.SSLCertVerificationError):
        step = "For a certificate of your own, give Client(ca_file=…)."
    elif isinstance(error, ssl.SSLError) or isinstance(cause, ssl.SSLError):
        step = "Does it speak TLS? Try http:// in place of https://."
    said = "it did not answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return GatewayAway(f"the gateway at {address} cannot be reached: {said}", step)
