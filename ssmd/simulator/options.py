"""What a simulated exchange can be told."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssmd.config.values import is_loopback
from ssmd.errors import ConfigError

WS_PATH = "/trade-api/ws/v2"
REST_PATH = "/trade-api/v2"


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """Where to listen, what to play, whom to let in.

    `port` 0 takes a free one. Without `tapes` the seeded market generator plays, at `rate` messages a second (50 when
    None). With tapes, `rate` is in frames a second; when it is None the recorded times are kept, divided by `speed`
    (0: as fast as the clients take it). A tape starts `settle_s` seconds after the last subscription command, so that
    a client which subscribes channel by channel misses nothing. `objects` are files and folders of recorded REST
    bodies, listed beside what is played. `keys` are the key ids that are let in, each with the PEM file that its
    signatures are checked with (an id of None: any); without keys anyone may enter.
    """

    host: str = "127.0.0.1"
    port: int = 0
    keys: tuple[tuple[str | None, Path], ...] = ()
    ledger: Path | None = None
    seed: int = 1
    rate: float | None = None
    window_s: int = 900
    strikes: int = 3
    tapes: tuple[Path, ...] = ()
    objects: tuple[Path, ...] = ()
    speed: float = 1.0
    in_turn: bool = False
    loop: bool = False
    settle_s: float = 1.0
    heartbeat_s: float = 10.0
    max_tickers: int = 10_000
    max_skew_s: float = 5.0

    def check(self) -> None:
        """Refuse what a test exchange must not do; ConfigError names the option."""
        if not is_loopback(self.host):
            raise ConfigError(
                f"the simulated exchange listens on loopback addresses only, not on {self.host!r}",
                "Use --host 127.0.0.1",
            )
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port {self.port} is outside 0..65535", "Use --port 0 for a free port")
        if self.rate is not None and self.rate <= 0:
            raise ConfigError(f"rate {self.rate} must be above 0", "Leave --rate away for the default")
        if self.speed < 0:
            raise ConfigError(f"speed {self.speed} is negative", "Use --speed 0 for as fast as possible")
        if self.window_s < 1 or self.strikes < 1:
            raise ConfigError("a market window needs at least one second and one strike", "Use --window-s 900")
        for file in (*self.tapes, *(file for _, file in self.keys)):
            if not file.is_file():
                raise ConfigError(f"cannot read {file}: there is no such file", "Give the path of an existing file")


def allowed_keys(key_ids: Sequence[str], public_keys: Sequence[Path]) -> tuple[tuple[str | None, Path], ...]:
    """Key ids and public keys as they were given one after the other; one public key may stand for several ids.

    ConfigError when their numbers do not match.
    """
    if not public_keys:
        return ()
    if not key_ids and len(public_keys) == 1:
        return ((None, public_keys[0]),)
    if len(public_keys) not in (1, len(key_ids)):
        raise ConfigError(
            f"{len(key_ids)} key ids and {len(public_keys)} public keys do not belong together",
            "Give one --public-key for each --key-id, in the same order",
        )
    files = list(public_keys) * (len(key_ids) if len(public_keys) == 1 else 1)
    return tuple(zip(key_ids, files, strict=True))
