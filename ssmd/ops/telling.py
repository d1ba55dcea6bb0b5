"""What services say of themselves, as an operator wants to hear it."""

from collections.abc import Mapping
from typing import Any

from ssmd.service_state import troubles_of


def ready(service: str, health: Mapping[str, Any]) -> bool:
    """Does it do its job? A connector: it captures with all books, as the active one or beside it."""
    if service == "connector":
        return bool(health.get("connected")) and health.get("books_ready", True) is not False
    if service == "gateway":
        return health.get("status") in ("ok", "degraded")
    return health.get("status") == "ok"


def why_not(health: Mapping[str, Any]) -> str:
    """What a service itself says is missing, in a few words."""
    if not health:
        return "it does not answer yet"
    parts = troubles_of(health)
    if health.get("connected") is False:
        parts.append("not connected to the exchange")
    elif health.get("books_ready") is False:
        parts.append("its books are not there yet")
    return "; ".join(parts) or f"its status is {health.get('status', 'unknown')}"


def facts_of(health: Mapping[str, Any]) -> dict[str, Any]:
    """The few words of a health answer that an operator wants in a step's answer."""
    keys = ("status", "role", "books_ready", "connection", "tickers", "taken_seq", "acked_seq", "clients")
    return {key: health[key] for key in keys if health.get(key) not in (None, "")}


def last_facts(service: str, before: Mapping[str, Any], end: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What a drained service left: counts and names from its last word, and findings (what it could not store)."""
    facts: dict[str, Any] = {}
    findings: list[str] = []
    if service == "archiver":
        facts = {key: end[key] for key in ("segments", "taken_seq", "acked_seq") if key in end}
        if isinstance(end.get("segments"), int) and isinstance(before.get("segments"), int):
            facts["drained_segments"] = end["segments"] - before["segments"]
        if end.get("taken_seq") != end.get("acked_seq"):
            findings.append("the archiver could not store all it had taken; the stream keeps it for the next one")
    elif service == "connector":
        facts = {key: end[key] for key in ("frames", "last_segment", "last_gap", "gaps", "role") if key in end}
        if end.get("waiting_segments"):
            left = end["waiting_segments"]
            waits = "segment waits" if left == 1 else "segments wait"
            findings.append(f"{left} spool {waits} to be sealed; the next connector does it")
    else:
        facts = {"clients": before.get("clients", 0), "clients_left": end.get("clients", 0)}
    return facts, findings


def with_numbers(facts: Mapping[str, Any], detail: str) -> str:
    """`detail`, and the numbers that belong to it."""
    words = {
        "drained_segments": "{} segment{s} stored while it drained",
        "last_segment": "last segment {}",
        "last_gap": "gap recorded: {}",
        "clients": "{} client{s} told",
    }
    said = [
        text.format(_short(facts[key]), s="" if facts[key] == 1 else "s")
        for key, text in words.items()
        if facts.get(key) not in (None, "")
    ]
    return f"{detail} ({', '.join(said)})" if said else detail


def _short(value: Any) -> Any:
    """Keys of objects by their last part: where they are, the whole answer says (--json)."""
    if not isinstance(value, str) or "/" not in value:
        return value
    return ", ".join(key.rpartition("/")[2].partition(".")[0] for key in value.split(", "))
