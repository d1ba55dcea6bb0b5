"""`ssmd data quality`: how good a day's data is, why, and what was not looked at."""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any

import msgspec

from ssmd.cli.opening import registry_of
from ssmd.cli.options import EnvFile, Feed, Json, choose
from ssmd.cli.output import BAD, GOOD, WAITING, cell, mark_line, show_json
from ssmd.cli.validation import no_data, require_feed
from ssmd.clock import NS_PER_S, day_of, now_ns
from ssmd.errors import EXIT_DONE
from ssmd.market.events import Gap
from ssmd.registry.assessment import DayFacts, all_rows, facts_of, score_of, status_of
from ssmd.registry.interface import Issue
from ssmd.registry.score import Score

_SAMPLE = 120


def quality(*, env: EnvFile = None, feed: Feed = None, date: date | None = None, json: Json = False) -> int:
    """Show how good a day's data is (UTC; default: today): its score with its parts, issues, gaps, verification."""
    chosen, today = choose(env), day_of(now_ns())
    name, day = chosen.feed(feed), date or today
    with registry_of(chosen) as registry:
        require_feed(chosen, registry, name, "tell the quality of feed")
        rows = all_rows(registry, name)
        facts = facts_of(registry, name, day, today, rows)
    if not facts.rows and not facts.gaps and not facts.issues:
        raise no_data(name, day, rows)
    score = score_of(facts)
    answer = _answer(facts, score, day >= today)
    if json:
        show_json(answer)
    else:
        _show(answer, score, facts.issues)
    return EXIT_DONE


def _answer(facts: DayFacts, score: Score | None, running: bool) -> dict[str, Any]:
    parts = ("coverage", "errors", "duplicates", "order", "expectations")
    return {
        "feed": facts.feed,
        "date": facts.day.isoformat(),
        "status": status_of(facts.rows) if facts.rows else "missing",
        "quality_score": score.value if score else None,
        "parts": {part: getattr(score, part) for part in parts} if score else None,
        "meant_seconds": round(score.meant_ns / NS_PER_S, 3) if score else None,
        "lost_seconds": round(score.lost_ns / NS_PER_S, 3) if score else None,
        "records": score.records if score else 0,
        "error_count": score.error_count if score else 0,
        "duplicate_count": score.duplicate_count if score else 0,
        "out_of_order_count": score.out_of_order_count if score else 0,
        "failed_count": score.failed_count if score else 0,
        "issues": [_issue(issue) for issue in facts.issues],
        "gaps": _by_reason(facts.gaps),
        "verified": {row.data_type: row.verified_at for row in facts.rows},
        "stored_scores": {row.data_type: row.quality_score for row in facts.rows},
        "not_checked": _not_checked(facts, running),
    }


def _issue(issue: Issue) -> dict[str, Any]:
    fields = msgspec.to_builtins(issue)
    return {name: fields[name] for name in ("data_type", "issue_type", "detail", "severity", "count", "sample")}


def _by_reason(gaps: Sequence[Gap]) -> dict[str, dict[str, float]]:
    count: Counter[str] = Counter(gap.reason for gap in gaps)
    length: Counter[str] = Counter()
    for gap in gaps:
        length[gap.reason] += gap.to_ns - gap.from_ns
    return {
        reason: {"count": count[reason], "seconds": round(length[reason] / NS_PER_S, 3)} for reason in sorted(count)
    }


def _not_checked(facts: DayFacts, running: bool) -> list[str]:
    options = f"--feed {facts.feed} --date {facts.day.isoformat()}"
    found = []
    if running:
        found.append("the day is not over: the score is that of what is written down by now")
    unverified = sorted({row.data_type for row in facts.rows if row.verified_at is None})
    if unverified and not running:
        found.append(
            f"{' and '.join(unverified)} data was not read back since it changed. Run: ssmd data verify {options}"
        )
    present = {row.data_type for row in facts.rows if row.record_count}
    found += [f"there is no {kind} data" for kind in ("raw", "normalized") if kind not in present]
    found.append(f"whether the archive's gap objects say the same as the rows. Run: ssmd data gaps {options}")
    return found


def _show(answer: dict[str, Any], score: Score | None, issues: Sequence[Issue]) -> None:
    print(f"Feed: {answer['feed']}\nDate: {answer['date']}\nStatus: {answer['status']}")
    print(f"Quality: {score.value:.2f}\n" if score else "Quality: -\n")
    if score is not None:
        of = f"of {score.records:,} records"
        print(f"{'Coverage':<12}{score.coverage:.4f}  {_time(score.lost_ns)} lost of {_time(score.meant_ns)}")
        print(f"{'Errors':<12}{score.errors:.4f}  {score.error_count:,} {of}")
        print(f"{'Duplicates':<12}{score.duplicates:.4f}  {score.duplicate_count:,} {of}")
        print(f"{'Order':<12}{score.order:.4f}  {score.out_of_order_count:,} {of}")
        print(f"{'Expectations':<12} {score.expectations:.4f}  {score.failed_count:,} rows fail a critical one {of}")
    print("\nIssues" if issues else "\nIssues: none")
    for issue in issues:
        sample = f"  {cell(issue.sample)[:_SAMPLE]}" if issue.sample else ""
        kind = f"{issue.issue_type} ({cell(issue.detail)})" if issue.detail else issue.issue_type
        print(f"  {issue.data_type:<11}{issue.severity:<8} {issue.count:>9,}  {kind}{sample}")
    print("\nGaps" if answer["gaps"] else "\nGaps: none")
    for reason, sums in answer["gaps"].items():
        print(f"  {reason:<17}{sums['count']:>7,}  {sums['seconds']:,.3f} s")
    print()
    for kind, at in answer["verified"].items():
        mark_line(WAITING if at is None else GOOD, kind, f"verified {at}" if at else "not verified")
    if answer["status"] == "failed":
        mark_line(BAD, "failed", "the last verification found something. Run: ssmd data verify")
    for what in answer["not_checked"]:
        mark_line(WAITING, "not checked", what)


def _time(ns: int) -> str:
    """`23 h 59 min 58.250 s`."""
    minutes, seconds = divmod(ns / NS_PER_S, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = [f"{hours} h"] if hours else []
    parts += [f"{minutes} min"] if hours or minutes else []
    return " ".join([*parts, f"{seconds:.3f} s"])
