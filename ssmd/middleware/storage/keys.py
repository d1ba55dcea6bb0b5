"""Which bucket names and object keys every backend accepts: nothing that could leave the bucket or mean two things."""

import re

from ssmd.errors import ConfigError, DataError

MAX_KEY_BYTES = 1024
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\~]")


def check_bucket(name: str) -> str:
    """`name` if S3 would accept it as a bucket name, else ConfigError."""
    if not _BUCKET.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"{name[:80]!r} is not a bucket name",
            "Use 3 to 63 characters of a-z, 0-9, '.' and '-' in spec.middleware.storage.buckets.",
        )
    return name


def check_key(key: str) -> str:
    """`key` if it is a relative path of plain segments, else DataError.

    Refused: empty, longer than 1024 bytes, empty segments, segments that begin with `.` (so neither `..` nor hidden
    names), control characters, backslashes and `~` (the local backend marks split segments with it).
    """
    if not key or len(key.encode(errors="replace")) > MAX_KEY_BYTES or _FORBIDDEN.search(key):
        raise DataError(f"{key[:200]!r} is not an object key")
    if any(not segment or segment.startswith(".") for segment in key.split("/")):
        raise DataError(f"{key[:200]!r} is not an object key: empty, hidden and '..' segments are refused")
    return key


def check_prefix(prefix: str) -> str:
    """`prefix` if it could be the beginning of a key (the empty one included), else DataError."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix
