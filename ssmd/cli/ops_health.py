"""`ssmd ops health`: every service asked, with a bounded wait, and the answer noted as a check of the day."""

import http.client
import ssl
from collections.abc import Mapping
from datetime import date
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ssmd.cli.checking import checking
from ssmd.cli.ops_local import local_programs
from ssmd.cli.options import Chosen
from ssmd.cli.output import BAD, GOOD, WAITING, mark_line, show_json
from ssmd.local.home import Home
from ssmd.ops.days import Days
from ssmd.ops.wellness import Finding, await_well, examine, exit_code

_MARKS = {"ok": GOOD, "away": WAITING, "stopped": WAITING, "unwell": BAD}
_ANSWER_S = 5.0


def check_health(chosen: Chosen, wait_s: float, day: date, *, json: bool) -> int:
    """See `ssmd.cli.ops.health`."""
    with checking(chosen, "health", chosen.environment.spec.feed, day) as check:
        with local_programs(chosen) as (programs, record):
            days = Days(Home(chosen.home).run, record.mark)
            url = record.urls.get("health", "")
            found = await_well(lambda: examine(programs, days.read().programs, lambda: ask(url)), wait_s)
        code = exit_code(found)
        wrong = [one for one in found if one.verdict != "ok"]
        summary = "; ".join(f"{one.program}: {', '.join(one.reasons)}" for one in wrong) or "all services are well"
        check.end(
            code, findings=len(wrong), summary=summary, detail={"services": [msgspec.to_builtins(one) for one in found]}
        )
    if json:
        show_json([msgspec.to_builtins(one) for one in found])
    else:
        for one in found:
            mark_line(_MARKS[one.verdict], one.program, _detail(one))
    return code


def ask(url: str) -> Mapping[str, Any] | None:
    """GET a health document from the gateway's own port, as a client would; None when there is no answer."""
    parts = urlsplit(url)
    try:
        link: http.client.HTTPConnection
        if parts.scheme == "https":
            # whatever its certificate says: it is the gateway of this machine, and only looked at
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            link = http.client.HTTPSConnection(parts.netloc, timeout=_ANSWER_S, context=context)
        else:
            link = http.client.HTTPConnection(parts.netloc, timeout=_ANSWER_S)
        try:
            link.request("GET", parts.path)
            answer = msgspec.json.decode(link.getresponse().read())
        finally:
            link.close()
    except (OSError, http.client.HTTPException, msgspec.MsgspecError):
        return None
    return answer if isinstance(answer, dict) else None


def _detail(one: Finding) -> str:
    numbers = ", ".join(f"{key} {value:,}" for key, value in one.facts.items() if type(value) is int)
    words = [one.verdict, f"for {one.day}" if one.day else "", one.role, numbers, "; ".join(one.reasons)]
    return " · ".join(word for word in words if word)
