"""The exchange's credentials in a connector that runs on: read anew, tried, and the last good ones kept."""

import asyncio

import structlog

from ssmd import telemetry as metrics
from ssmd.connector.exchange import Credentials, Exchange
from ssmd.connector.spool import SpoolState
from ssmd.errors import ConfigError

CHECK_S = 2.0
"""How often the stores are asked whether the credentials changed."""
REFUSED_AGAIN_S = 60.0
"""Refused credentials are tried again after this time, or as soon as they change."""
AWAY_AGAIN_S = 5.0

log = structlog.get_logger(component="connector")


class Keys:
    """What signs in now, and what the exchange accepted last.

    A changed value counts when two looks in a row found it: a key has two parts, and they are not written at once.
    """

    def __init__(self, feed: str, exchange: Exchange, state: SpoolState) -> None:
        self._feed = feed
        self._exchange = exchange
        self._state = state
        self._reading = asyncio.Lock()
        self._latest: Credentials | None = None
        self._unreadable = ""
        self._seen = ""
        self._postponed = ("", 0.0)  # a fingerprint and until when (loop time) it is not tried
        self.accepted: Credentials | None = None
        """The last ones that the exchange accepted in the life of this process."""
        self.problem = ""
        """Why the credentials that the stores hold are not in use; "" when they are."""

    async def read(self) -> Credentials:
        """As the stores hold them now, read in a thread; the last readable ones when they cannot be read.

        ConfigError when they never could.
        """
        async with self._reading:
            try:
                self._latest = await asyncio.to_thread(self._exchange.credentials)
            except ConfigError as error:
                if self._latest is None:
                    raise
                self._cannot_read(error)
                return self._latest
        if self._unreadable:
            self._unreadable = ""
            self._settle_problem(self._latest)
        return self._latest

    def is_due(self, found: Credentials, used: Credentials, now_s: float) -> bool:
        """Should `found` be tried in place of `used`? Call once per look; `now_s` is loop time."""
        again, self._seen = found.fingerprint == self._seen, found.fingerprint
        if found.fingerprint == used.fingerprint:
            self._settle_problem(found)
            return False
        fingerprint, until_s = self._postponed
        return again and (fingerprint != found.fingerprint or now_s >= until_s)

    def is_new(self, credentials: Credentials) -> bool:
        """Did the exchange never accept these, in this run or the last one?"""
        return credentials.fingerprint != self._state.accepted_key

    def accept(self, credentials: Credentials) -> None:
        """The exchange opened a connection for these."""
        if self.accepted is not None and self.accepted.fingerprint != credentials.fingerprint:
            log.info("key changed", key=self._exchange.key_name)
            metrics.CONNECTOR_KEY_CHANGES.labels(self._feed).inc()
        self.accepted = credentials
        self._state.accepted_key = credentials.fingerprint
        self._settle_problem(credentials)

    def refuse(self, credentials: Credentials, error: ConfigError, now_s: float) -> None:
        """The exchange refused these, or they are unusable: they are not tried again for a while."""
        name = self._exchange.key_name
        self._postponed = (credentials.fingerprint, now_s + REFUSED_AGAIN_S)
        self.problem = f"the value that the stores hold for the key {name!r} was refused: {error.message}"
        metrics.CONNECTOR_KEY_REFUSED.labels(self._feed).inc()
        log.error(
            "key refused", key=name, error=error.message, again_s=REFUSED_AGAIN_S,
            in_use="the value that worked before" if self.accepted else "none", hint=self._exchange.key_hint("rotate"),
        )  # fmt: skip

    def postpone(self, credentials: Credentials, now_s: float) -> None:
        """The exchange could not be asked about these."""
        self._postponed = (credentials.fingerprint, now_s + AWAY_AGAIN_S)

    def _cannot_read(self, error: ConfigError) -> None:
        if self._unreadable != error.message:
            log.error("key unreadable, the last value stays in use", error=error.message, hint=error.hint)
            metrics.CONNECTOR_KEY_REFUSED.labels(self._feed).inc()
        self._unreadable = error.message
        self.problem = error.message

    def _settle_problem(self, used: Credentials) -> None:
        """What the stores hold is in use: no problem is left."""
        if not self._unreadable and self._latest is not None and self._latest.fingerprint == used.fingerprint:
            self.problem = ""
