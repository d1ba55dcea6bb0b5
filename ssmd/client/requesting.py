"""Plain blocking HTTP: it works in scripts, in threads, and inside a running event loop (Jupyter)."""

import http.client
import json
import threading
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

from ssmd.client.address import Address, connection_refused
from ssmd.client.errors import GatewayAway, GatewayError, refusal

TRIES = 4
LONGEST_WAIT_S = 30.0
MAX_BODY_BYTES = 256 << 20


class Requests:
    """One kept connection, one request at a time; safe to use from several threads."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str, **query: object) -> bytes:
        """The body of a document. GatewayError and its kinds when there is none.

        A gateway that has no time (429, 503) is asked again when it says so, a few times.
        """
        given = {name: value for name, value in query.items() if value is not None}
        target = path + ("?" + urlencode(given) if given else "")
        for attempt in range(1, TRIES + 1):
            try:
                with self._lock:
                    status, headers, body = self._once(target)
                if status == http.client.OK:
                    return body
                raise refusal(status, _problem(body), self._address.url(path), headers.get("Retry-After"))
            except GatewayAway as error:
                wait_s = error.retry_after_s
                if attempt == TRIES or wait_s is None or wait_s > LONGEST_WAIT_S:
                    raise
            time.sleep(max(0.1, wait_s))
        raise AssertionError("the last try ends above")

    def document(self, path: str, **query: object) -> dict[str, Any]:
        """A JSON object; its decimals are exact."""
        try:
            found = json.loads(self.get(path, **query), parse_float=Decimal)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise not_understood(self._address, path)
        return found

    def close(self) -> None:
        """Close the kept connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __del__(self) -> None:
        self._drop()  # `Client().trades(…)` in one line leaves nobody to close it

    def _once(self, target: str) -> tuple[int, Mapping[str, str], bytes]:
        """One answer. A kept connection may have been closed meanwhile: then once more on a new one."""
        kept = self._connection is not None
        try:
            return self._exchange(target)
        except (http.client.HTTPException, OSError) as error:
            self._drop()
            if not kept or isinstance(error, TimeoutError):
                raise connection_refused(self._address, error) from None
        try:
            return self._exchange(target)
        except (http.client.HTTPException, OSError) as error:
            self._drop()
            raise connection_refused(self._address, error) from None

    def _exchange(self, target: str) -> tuple[int, Mapping[str, str], bytes]:
        if self._connection is None:
            self._connection = self._open()
        self._connection.request("GET", self._address.path + target, headers=self._address.headers)
        answer = self._connection.getresponse()
        body = answer.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            self._drop()
            raise GatewayError(f"the answer of {self._address} is too long", "Is this the address of a gateway?")
        return answer.status, dict(answer.headers), body

    def _open(self) -> http.client.HTTPConnection:
        host, port = self._address.host, self._address.port
        if self._address.tls is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
        return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._address.tls)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def not_understood(address: Address, path: str) -> GatewayError:
    """The error for an answer that is not what a gateway says."""
    return GatewayError(f"{address.url(path)} answered with something else", "Is this the address of a gateway?")


def in_path(text: str) -> str:
    """A text as one step of a path."""
    return quote(text.encode("utf-8", "replace"), safe="") if text not in (".", "..") else text.replace(".", "%2E")


def _problem(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
