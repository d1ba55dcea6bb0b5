"""From staged answers to markets and their history: sets, not rows; one comparison for a market that did not change.

What a market is called now is its raw object, overlaid with the columns that the registry keeps against empty or
weaker answers (`CURRENT`). History rows lead back from there. A correction of a settlement (better evidence, another
result) ends the knowledge of the row that it corrects and takes over that row's old value and time; when it goes back
to that old value, the new row says so with twice the same.

An answer is stale when the exchange's time of it is older than that of the market as known, or, where these times do
not tell, when it was asked for before the market was last observed: a sync applies a page minutes after it asked for
it, and a connector may have heard more meanwhile. A stale answer changes nothing, unless it settles the market on
better evidence. A finalized market stays finalized: a status of weaker evidence is not believed either.

A series or category that was not known before was learnt, and did not change: its row of history says that it has
held since the market was listed, and is known from now on.
"""

from datetime import datetime

import msgspec
import sqlalchemy as sa

from ssmd.registry.market_values import EVIDENCE_RANK, LISTED, MAX_FIELD, SETTLEMENT_FIELDS

CURRENT = """
  m.raw_metadata
  || jsonb_strip_nulls(jsonb_build_object(
       'status', m.status, 'result', nullif(m.result, ''),
       'category', nullif(m.category, ''), 'series_ticker', nullif(m.series_ticker, '')))
  || coalesce(m.settlement_kept, '{}')
"""
"""The fields of market `m` as they are known now, as one jsonb; volatile ones are among them."""

_TOLD = """
  s.raw::jsonb
  || jsonb_strip_nulls(jsonb_build_object(
       'status', s.status, 'result', nullif(s.result, ''),
       'category', coalesce(nullif(s.category, ''), nullif(m.category, '')),
       'series_ticker', coalesce(nullif(s.series_ticker, ''), nullif(m.series_ticker, ''))))
"""


def _rank(evidence: str) -> str:
    cases = " ".join(f"WHEN '{name}' THEN {rank}" for name, rank in EVIDENCE_RANK.items())
    return f"CASE {evidence} {cases} ELSE 0 END"


_BETTER = f"{_rank('s.evidence')} > {_rank('m.result_evidence')}"


def _believed(old: str, new: str) -> str:
    """Is the new value of a settlement field believed? (m: the market as known, s: the new answer)"""
    return f"""(
      nullif(m.result, '') IS NULL
      OR (s.result <> '' AND s.result = m.result AND {old} IS NULL)
      OR (s.result <> '' AND {_BETTER} AND ({new} IS NOT NULL OR s.result <> m.result)))"""


_STATUS_BELIEVED = (
    f"(m.result_evidence IS DISTINCT FROM 'finalized' OR {_rank('s.evidence')} >= {_rank('m.result_evidence')})"
)

_LEARNT = """(
  d.field IN ('category', 'series_ticker') AND d.old_value IS NULL AND d.new_value <> ''
  AND NOT EXISTS (SELECT FROM market_history h WHERE h.market_id = m.id AND h.field_name = d.field))"""

# times ahead of the clock tell nothing; neither does an observation, after the clock was put back
_STALE = f"""(
  m.id IS NOT NULL AND NOT (s.result <> '' AND {_BETTER})
  AND CASE WHEN s.source_updated_at <> m.source_updated_at AND greatest(s.source_updated_at, m.source_updated_at) <= :at
           THEN s.source_updated_at < m.source_updated_at
           ELSE s.asked_at < m.observed_at AND m.observed_at <= :at END)"""

_PLAN = f"""
CREATE TEMPORARY TABLE planned ON COMMIT DROP AS
SELECT n, status, id, source_updated_at, relisted, stale, differs AND NOT stale AS changed,
       least(greatest(asked_at, observed_at), :at) AS observed_at
FROM (
  SELECT DISTINCT ON (s.ticker) s.ticker, s.n, s.status, m.id, s.source_updated_at, s.asked_at, m.observed_at,
         m.known_to IS NOT NULL AS relisted, {_STALE} AS stale,
         m.metadata_hash IS DISTINCT FROM s.metadata_hash
           OR (s.category <> '' AND s.category IS DISTINCT FROM m.category)
           OR (s.series_ticker <> '' AND s.series_ticker <> m.series_ticker) AS differs
  FROM staged_markets s LEFT JOIN markets m ON m.feed_id = :feed_id AND m.ticker = s.ticker
  ORDER BY s.ticker, s.n DESC) latest
"""  # noqa: S608  (made of constants)

_DIFFER = f"""
CREATE TEMPORARY TABLE differences ON COMMIT DROP AS
SELECT m.id AS market_id, d.field, d.old_value, d.new_value, d.settles,
       CASE WHEN d.settles THEN {_believed("nullif(d.old_value, '')", "nullif(d.new_value, '')")}
            WHEN d.field = 'status' THEN {_STATUS_BELIEVED} ELSE true END AS believed,
       d.settles AND nullif(m.result, '') IS NOT NULL AND nullif(d.old_value, '') IS NOT NULL AS settled_before,
       CASE WHEN d.settles THEN s.evidence WHEN {_LEARNT} THEN 'learnt' END AS evidence,
       CASE WHEN {_LEARNT} THEN least(m.listed_at, m.known_from) ELSE greatest(
         CASE WHEN (d.settles OR (d.field = 'status' AND s.evidence IS NOT NULL))
                AND s.settled_at > m.observed_at AND s.settled_at <= :at THEN s.settled_at
              WHEN d.field = 'status' AND s.status = 'closed' AND s.close_time > m.observed_at AND s.close_time <= :at
                THEN s.close_time
              WHEN s.source_updated_at > m.observed_at AND s.source_updated_at <= :at THEN s.source_updated_at
              ELSE greatest(:at, m.observed_at) END,
         (SELECT max(h.changed_at) FROM market_history h WHERE h.market_id = m.id AND h.field_name = d.field)
       ) END AS changed_at  -- never before the field's last change
FROM planned p JOIN staged_markets s ON s.n = p.n JOIN markets m ON m.id = p.id
CROSS JOIN LATERAL (
  SELECT field, o.value AS old_value, n.value AS new_value, field = ANY(:settlement) AS settles
  FROM jsonb_each_text({CURRENT}) AS o(field, value) FULL JOIN jsonb_each_text({_TOLD}) AS n(field, value) USING (field)
  WHERE o.value IS DISTINCT FROM n.value
) d
WHERE p.changed AND d.field <> ALL(:volatile) AND length(d.field) <= :max_field AND d.field <> :listed
"""  # noqa: S608  (made of constants)

_RECORD = """
WITH closed AS (
  UPDATE market_history h SET known_to = greatest(:at, h.known_from)
  FROM differences d
  WHERE d.believed AND d.settled_before AND h.id = (
    SELECT c.id FROM market_history c
    WHERE c.market_id = d.market_id AND c.field_name = d.field AND c.known_to IS NULL
      AND c.new_value IS NOT DISTINCT FROM d.old_value
    ORDER BY c.changed_at DESC, c.id DESC LIMIT 1)
  RETURNING h.market_id, h.field_name, h.old_value, h.changed_at
)
INSERT INTO market_history (market_id, field_name, old_value, new_value, changed_at, known_from, evidence)
SELECT d.market_id, d.field, CASE WHEN c.market_id IS NULL THEN d.old_value ELSE c.old_value END, d.new_value,
       coalesce(c.changed_at, d.changed_at), :at, d.evidence
FROM differences d LEFT JOIN closed c ON c.market_id = d.market_id AND c.field_name = d.field
WHERE d.believed
ORDER BY d.market_id, d.field
"""

_UPDATE = f"""
UPDATE markets m SET
  event_ticker = s.event_ticker, title = s.title,
  status = CASE WHEN {_STATUS_BELIEVED} THEN s.status ELSE m.status END,
  open_time = s.open_time, close_time = s.close_time, expiration_time = s.expiration_time,
  settlement_time = s.settlement_time,
  series_ticker = coalesce(nullif(s.series_ticker, ''), m.series_ticker),
  category = coalesce(nullif(s.category, ''), m.category),
  result = CASE WHEN {_believed("nullif(m.result, '')", "nullif(s.result, '')")}
                THEN nullif(s.result, '') ELSE m.result END,
  result_evidence = CASE WHEN nullif(m.result, '') IS NULL OR (s.result <> '' AND {_BETTER})
                         THEN s.evidence ELSE m.result_evidence END,
  settled_at = CASE WHEN {_believed("m.settled_at", "s.settled_at")} THEN s.settled_at ELSE m.settled_at END,
  settlement_value = CASE WHEN {_believed("m.settlement_value", "nullif(s.settlement_value, '')")}
                          THEN nullif(s.settlement_value, '') ELSE m.settlement_value END,
  settlement_kept = k.fields,
  source_updated_at = coalesce(s.source_updated_at, m.source_updated_at), metadata_hash = s.metadata_hash,
  observed_at = p.observed_at, listed_at = coalesce(s.listed_at, m.listed_at),
  known_to = NULL, updated_at = :at, raw_metadata = s.raw::jsonb
FROM planned p JOIN staged_markets s ON s.n = p.n
  LEFT JOIN (SELECT market_id, jsonb_object_agg(field, old_value) AS fields
             FROM differences WHERE NOT believed GROUP BY market_id) k ON k.market_id = p.id
WHERE p.changed AND m.id = p.id
"""  # noqa: S608  (made of constants)

_TOUCH = """
UPDATE markets m SET known_to = NULL,
  observed_at = CASE WHEN p.stale THEN m.observed_at ELSE p.observed_at END,
  source_updated_at = CASE WHEN p.stale THEN m.source_updated_at
                           ELSE coalesce(p.source_updated_at, m.source_updated_at) END
FROM planned p
WHERE m.id = p.id AND NOT p.changed
  AND (p.relisted OR NOT p.stale AND (
    m.observed_at < :seen_before OR p.source_updated_at <> coalesce(m.source_updated_at, '-infinity')))
"""

_RELIST = """
INSERT INTO market_history (market_id, field_name, old_value, new_value, changed_at, known_from)
SELECT p.id, :listed, 'false', 'true', :at, :at FROM planned p WHERE p.relisted ORDER BY p.id
"""

_INSERT = """
INSERT INTO markets (feed_id, ticker, event_ticker, title, status, open_time, close_time, result, series_ticker,
  category, expiration_time, settlement_time, settled_at, settlement_value, source_updated_at, result_evidence,
  metadata_hash, raw_metadata, listed_at, observed_at, known_from, created_at, updated_at)
SELECT :feed_id, s.ticker, s.event_ticker, s.title, s.status, s.open_time, s.close_time, nullif(s.result, ''),
  s.series_ticker, nullif(s.category, ''), s.expiration_time, s.settlement_time, s.settled_at,
  nullif(s.settlement_value, ''), s.source_updated_at, s.evidence, s.metadata_hash, s.raw::jsonb, s.listed_at,
  least(s.asked_at, :at), :at, :at, :at
FROM planned p JOIN staged_markets s ON s.n = p.n
WHERE p.id IS NULL ORDER BY s.ticker
"""

_COUNT = """
SELECT (SELECT count(*) FROM planned) AS tickers,
       (SELECT count(*) FROM planned WHERE changed AND id IS NOT NULL) AS differing,
       (SELECT count(*) FROM (SELECT 1 FROM differences GROUP BY market_id HAVING NOT bool_or(believed)) k) AS unmoved,
       (SELECT count(DISTINCT market_id) FROM differences WHERE NOT believed) AS weaker,
       ARRAY(SELECT ticker FROM markets WHERE id IN (SELECT market_id FROM differences WHERE NOT believed)
             ORDER BY ticker LIMIT 3) AS weaker_tickers
"""


class Merged(msgspec.Struct, frozen=True):
    """What a merge did: markets, and in `fields` rows of history.

    `weaker`: settlements held against weaker answers, with the first tickers.
    """

    inserted: int
    changed: int
    unchanged: int
    fields: int
    weaker: int
    weaker_tickers: tuple[str, ...]


def plan_markets(connection: sa.Connection, feed_id: int, at: datetime) -> None:
    """Find out which staged markets are new, changed or as before; writes nothing but the temporary `planned`."""
    connection.execute(sa.text("DROP TABLE IF EXISTS planned"))
    connection.execute(sa.text(_PLAN), {"feed_id": feed_id, "at": at})
    connection.execute(sa.text("ANALYZE planned"))


def merge_markets(
    connection: sa.Connection, feed_id: int, volatile: frozenset[str], at: datetime, seen_before: datetime
) -> Merged:
    """Bring `markets` and `market_history` up to what is planned, learnt at `at`.

    Of unchanged markets, only those last observed before `seen_before` are marked as observed.
    """
    values = {
        "feed_id": feed_id,
        "at": at,
        "seen_before": seen_before,
        "volatile": sorted(volatile),
        "settlement": list(SETTLEMENT_FIELDS),
        "max_field": MAX_FIELD,
        "listed": LISTED,
    }
    connection.execute(sa.text(_DIFFER), values)
    connection.execute(sa.text("ANALYZE differences"))
    fields = connection.execute(sa.text(_RECORD), values).rowcount
    connection.execute(sa.text(_UPDATE), values)
    connection.execute(sa.text(_TOUCH), values)
    fields += connection.execute(sa.text(_RELIST), values).rowcount
    inserted = connection.execute(sa.text(_INSERT), values).rowcount
    counts = connection.execute(sa.text(_COUNT)).one()
    changed = counts.differing - counts.unmoved
    unchanged = counts.tickers - inserted - changed
    return Merged(inserted, changed, unchanged, fields, counts.weaker, tuple(counts.weaker_tickers))


_MERGE_PARENTS = """
INSERT INTO {table} AS known (feed_id, ticker, {series} title, category, source_updated_at, raw_metadata,
                              known_from, updated_at)
SELECT DISTINCT ON (ticker) :feed_id, ticker, {series} title, nullif(category, ''), source_updated_at, raw::jsonb,
       :at, :at
FROM staged_{kind} ORDER BY ticker, n DESC
ON CONFLICT (feed_id, ticker) DO UPDATE SET
  {set_series} title = excluded.title, category = excluded.category, raw_metadata = excluded.raw_metadata,
  source_updated_at = excluded.source_updated_at, updated_at = excluded.updated_at
WHERE (known.title, known.category, known.source_updated_at, known.raw_metadata)
  IS DISTINCT FROM (excluded.title, excluded.category, excluded.source_updated_at, excluded.raw_metadata)
"""


def merge_parents(connection: sa.Connection, feed_id: int, at: datetime) -> None:
    """Bring `market_series` and `market_events` up to what is staged."""
    series = _MERGE_PARENTS.format(table="market_series", kind="series", series="", set_series="")
    events = _MERGE_PARENTS.format(
        table="market_events",
        kind="events",
        series="series_ticker,",
        set_series="series_ticker = excluded.series_ticker,",
    )
    for statement in (series, events):
        connection.execute(sa.text(statement), {"feed_id": feed_id, "at": at})
