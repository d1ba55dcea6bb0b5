"""Who publishes: of the connectors of a feed on this machine one is active, another may stand by.

Both places are locks beside the spool folders, held as long as the process lives: a kill frees them at once. The
active lock's file names the spool folder of the connector that was active last, for the one that comes after it. Until
that one has announced itself it holds both places: nobody begins meanwhile, least of all the one whose spool it reads.
"""

import asyncio
import os
from pathlib import Path

import msgspec
import structlog

from ssmd import telemetry as metrics
from ssmd.connector.spool import take_lock
from ssmd.errors import ConfigError

POLL_S = 0.025
"""How soon a connector that stands by notices that the other one is gone."""
_PATIENCE_S = 20.0
"""At a start, for one that is about to change its place, or that still reads what was left by the one before."""
_FILE_BYTES = 4096
"""The lock's file is written whole in one go: what a kill leaves is the old content or the new one."""

log = structlog.get_logger(component="connector")


class Holder(msgspec.Struct, frozen=True):
    """What the active lock's file says: whose spool is the feed's latest."""

    folder: str
    pid: int = 0


class Role:
    """The place of one connector. `active`: nobody else publishes; it stays so until `release`."""

    def __init__(self, feed: str, folder: Path) -> None:
        self._feed = feed
        self._folder = folder
        self._active_path = folder.parent / f"{feed}.active.lock"
        self._standby_path = folder.parent / f"{feed}.standby.lock"
        self._active: int | None = None
        self._standby: int | None = None

    @property
    def active(self) -> bool:
        """Is this the one that publishes?"""
        return self._active is not None

    @property
    def name(self) -> str:
        """`active` or `standby`."""
        return "active" if self.active else "standby"

    async def take(self) -> None:
        """Become active when nobody is, else stand by; ConfigError when both places are taken."""
        self._measure()
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        while not self.try_active():
            if self._standby is None:
                self._standby = take_lock(self._standby_path)
            if self._standby is not None:
                log.info("standing by, another connector is active", feed=self._feed)
                break
            if asyncio.get_running_loop().time() > deadline:
                raise ConfigError(
                    f"two connectors of {self._feed!r} run on this machine already: one is active, one stands by",
                    "Stop one of them first (`ssmd ops status`, `ssmd down`).",
                )
            await asyncio.sleep(POLL_S)

    def try_active(self) -> bool:
        """Become active if nobody is. The place of the one that stands by is held, too, until `announce`."""
        if self._active is None:
            self._active = take_lock(self._active_path)
            if self._active is None:
                return False
            if self._standby is None:
                self._standby = take_lock(self._standby_path)
            self._measure()
        return True

    async def become_active(self) -> None:
        """Return when the other connector is gone."""
        while not self.try_active():  # noqa: ASYNC110 - a lock of the system is asked, not told
            await asyncio.sleep(POLL_S)

    def someone_stands_by(self) -> bool:
        """Is there another connector that will take over?"""
        if self._standby is not None:
            return False
        probe = take_lock(self._standby_path)
        if probe is not None:
            os.close(probe)
        return probe is None

    def predecessor(self) -> Path | None:
        """The spool folder of the connector that was active last; None when it is not known or this one's own."""
        try:
            holder = msgspec.json.decode(self._active_path.read_bytes(), type=Holder)
        except (OSError, msgspec.MsgspecError):  # nobody was, or it was cut off while it was written
            return None
        found = Path(holder.folder)
        return None if found == self._folder.absolute() else found

    def announce(self) -> None:
        """Write down that this connector's spool is the feed's latest, which tells the one before it that it may go.

        Only when it is true: whoever comes after a crash goes on from the end of what stands in the folder named here.
        """
        assert self._active is not None
        content = msgspec.json.encode(Holder(str(self._folder.absolute()), os.getpid()))
        os.pwrite(self._active, content.ljust(_FILE_BYTES - 1) + b"\n", 0)
        self._leave_standby()

    def _leave_standby(self) -> None:
        if self._standby is not None:
            os.close(self._standby)
            self._standby = None

    @property
    def succeeded(self) -> bool:
        """Has another connector announced itself?"""
        return self.predecessor() is not None

    def release(self) -> None:
        """Give up both places."""
        for file in (self._active, self._standby):
            if file is not None:
                os.close(file)
        self._active = self._standby = None

    def _measure(self) -> None:
        for role in ("active", "standby"):
            metrics.CONNECTOR_ROLE.labels(self._feed, role).set(1 if role == self.name else 0)
