"""HTTPS and WSS from certificate files: checked before they are used, and taken anew when they change."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from ssmd.config.environment import Tls
from ssmd.errors import ConfigError
from ssmd.telemetry import GATEWAY_TLS_EXPIRES_IN_DAYS

MAX_FILE_BYTES = 1 << 20
_PUBLIC = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

log = structlog.get_logger()


class Certificate(NamedTuple):
    """What the files hold."""

    subject: str
    expires_at: datetime

    def days_left(self, now: datetime) -> float:
        """Days until it expires; negative when it has."""
        return (self.expires_at - now).total_seconds() / 86_400


class TlsFiles:
    """The certificate and the key that spec.gateway.tls names; relative paths are below `home`."""

    def __init__(self, settings: Tls, home: Path) -> None:
        self.certificate = home / settings.cert_file
        self.key = home / settings.key_file
        self.context: ssl.SSLContext | None = None
        self.used: Certificate | None = None
        self._seen: tuple[object, ...] = ()
        self._refused: tuple[object, ...] = ()

    def check(self, now: datetime) -> Certificate:
        """What the files hold. ConfigError when one is missing or unreadable, or when they do not fit together."""
        chain = _read(self.certificate, "cert_file")
        private = _read(self.key, "key_file")
        try:
            first = x509.load_pem_x509_certificates(chain)[0]
            public = first.public_key().public_bytes(*_PUBLIC)
        except (ValueError, IndexError) as error:
            hint = "The server's own certificate stands first, the intermediate ones after it."
            raise ConfigError(
                f"{self.certificate} (spec.gateway.tls.cert_file) holds no PEM certificate", hint
            ) from error
        if b"ENCRYPTED" in private:
            hint = "Services cannot be asked for it: openssl pkey -in FILE -out FILE.plain, readable by ssmd alone."
            raise ConfigError(f"{self.key} (spec.gateway.tls.key_file) is locked with a passphrase", hint)
        try:
            own = load_pem_private_key(private, None).public_key().public_bytes(*_PUBLIC)
        except (ValueError, TypeError) as error:
            hint = "It begins with -----BEGIN PRIVATE KEY-----."
            raise ConfigError(f"{self.key} (spec.gateway.tls.key_file) holds no PEM private key", hint) from error
        if own != public:
            raise ConfigError(
                f"{self.key} is not the private key of the certificate in {self.certificate}",
                "Name the files of one pair in spec.gateway.tls; cert_file must begin with the server's certificate.",
            )
        found = Certificate(first.subject.rfc4514_string()[:200], first.not_valid_after_utc)
        if found.expires_at <= now:
            raise ConfigError(
                f"the certificate in {self.certificate} expired on {found.expires_at:%Y-%m-%d %H:%M} UTC", "Renew it."
            )
        if first.not_valid_before_utc > now:
            begins = f"{first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            raise ConfigError(
                f"the certificate in {self.certificate} is not valid before {begins}", "Wait, or check the clock."
            )
        return found

    def open(self) -> ssl.SSLContext:
        """The context for the server; ConfigError as `check` raises it."""
        self._seen = self._stamp()
        self.used = self.check(datetime.now(UTC))
        self.context = _context()
        self._load(self.context)
        return self.context

    def refresh(self) -> None:
        """Take changed files into use for new connections; broken ones are logged once, and the old ones stay."""
        now = datetime.now(UTC)
        stamp = self._stamp()
        if self.context is not None and stamp not in (self._seen, self._refused):
            try:
                found = self.check(now)
                self._load(_context())  # on one that nobody uses first: a failure leaves a context without its key
                self._load(self.context)
            except ConfigError as error:
                self._refused = stamp
                log.error("certificate files not taken, the old ones stay", error=error.message, hint=error.hint)
            else:
                self._seen, self._refused, self.used = stamp, (), found
                log.info("certificate changed", subject=found.subject, expires_at=found.expires_at.isoformat())
        if self.used is not None:
            GATEWAY_TLS_EXPIRES_IN_DAYS.set(self.used.days_left(now))

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = error.reason if isinstance(error, ssl.SSLError) else error.__class__.__name__
            raise ConfigError(
                f"the certificate files {self.certificate} and {self.key} cannot be used: {reason}",
                "Check them with: openssl x509 -in CERT -noout -text",
            ) from error

    def _stamp(self) -> tuple[object, ...]:
        """Changes when a file does, also when a link is pointed at another (as Kubernetes does)."""
        stamps: list[object] = []
        for path in (self.certificate, self.key):
            try:
                found = path.stat()
            except OSError as error:
                stamps.append(error.errno)
            else:
                stamps.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return tuple(stamps)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _read(path: Path, setting: str) -> bytes:
    where = f"{path} (spec.gateway.tls.{setting})"
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        hint = "A relative path is meant below SSMD_HOME. Correct the path, or make the file readable for ssmd."
        raise ConfigError(f"cannot read {where}: {error.strerror}", hint) from error
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{where} is larger than a megabyte: it is no certificate file", "Correct the path.")
    return text
