"""An environment file is accepted whole, or refused with every problem at once: path, line and way out."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.config import loading
from ssmd.config.environment import Environment, environment_hash
from ssmd.config.loading import InvalidEnvironment, load, loads
from ssmd.errors import EXIT_CONFIG, ConfigError

ISSUE_FILE = """\
apiVersion: ssmd/v1
kind: Environment
metadata: {name: judge}
spec:
  keys:
    kalshi: {type: api_key, required: true, fields: [api_key, api_secret], rotation_days: 90}
  feed: kalshi
  endpoints: {ws: "ws://127.0.0.1:19555/trade-api/ws/v2", rest: "http://127.0.0.1:19555/trade-api/v2"}
  runtime: {type: local}
  schedule: {timezone: UTC, startup: "00:10", teardown: "00:00"}
  symbols: {sync: true}
  database: {url: "postgresql+psycopg2://postgres@127.0.0.1:25432/ssmd"}
  middleware:
    transport: {type: nats, url: "nats://127.0.0.1:24222"}
    storage: {type: local, path: /var/lib/ssmd/storage, buckets: {raw: ssmd-raw, normalized: ssmd-normalized}}
    cache: {type: memory}
    journal: {type: nats, url: "nats://127.0.0.1:24222"}
  gateway: {host: 127.0.0.1, port: 28080}
"""

SMALL_FILE = """\
apiVersion: ssmd/v1
kind: Environment
metadata: {name: small}
spec:
  keys:
    kalshi: {type: api_key, fields: [api_key, api_secret]}
    postgres: {type: database, fields: [host, port, database, username, password]}
    nats: {type: transport, fields: [username, password]}
  feed: kalshi
  middleware:
    transport: {type: memory}
    storage: {type: memory}
"""


def problems_of(text: str | bytes) -> dict[str, str]:
    """Path to text of every problem; the file must be refused."""
    with pytest.raises(InvalidEnvironment) as refused:
        loads(text if isinstance(text, bytes) else text.encode())
    assert refused.value.exit_code == EXIT_CONFIG
    return {problem.path: problem.text for problem in refused.value.problems}


def changed(path: str, value: Any) -> str:
    """The small file with one value set (`spec.gateway.port`), or taken away (`...`)."""
    data = yaml.safe_load(SMALL_FILE)
    *parents, last = path.split(".")
    target = data
    for part in parents:
        target = target.setdefault(part, {})
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=False)


def test_the_file_of_the_issue_loads_unchanged() -> None:
    spec = loads(ISSUE_FILE.encode()).spec
    assert spec.endpoints is not None
    assert spec.endpoints.ws == "ws://127.0.0.1:19555/trade-api/ws/v2"
    assert spec.database_url == "postgresql+psycopg2://postgres@127.0.0.1:25432/ssmd"
    assert (spec.gateway.port, spec.gateway.metrics_port) == (28080, 28081)
    assert spec.middleware.storage.type == "local"
    assert spec.middleware.storage.path == "/var/lib/ssmd/storage"
    assert spec.keys["kalshi"].fields == ("api_key", "api_secret")


def test_the_designs_files_load_with_their_jetstream_topics_and_optional_keys() -> None:
    text = """\
    apiVersion: ssmd/v1
    kind: Environment
    metadata:
      name: kalshi-prod
    spec:
      keys:
        kalshi: {type: api_key, description: "Kalshi trading API", required: true, fields: [api_key, api_secret]}
        nats: {type: transport, required: true, fields: [url, username, password, tls_cert, tls_key]}
        storage: {type: storage, required: false, fields: [endpoint, access_key, secret_key, region]}
      feed: kalshi
      middleware:
        transport:
          type: nats
          url: nats://nats.ssmd.local:4222
          credentials: $key:nats
          jetstream: {enabled: true, domain: ssmd}
        storage:
          type: s3
          endpoint: http://garage.ssmd.local:3900
          region: garage
          credentials: $key:storage
          buckets: {raw: ssmd-raw, normalized: ssmd-normalized}
        cache: {type: redis, url: redis://redis.ssmd.local:6379, max_connections: 10}
        journal:
          type: nats
          url: nats://nats.ssmd.local:4222
          topics:
            secmaster: ssmd.journal.secmaster
            audit: ssmd.journal.audit
            deployments: ssmd.journal.deployments
    """
    spec = loads(textwrap.dedent(text).encode()).spec
    assert spec.middleware.transport.type == "nats"
    assert spec.middleware.transport.jetstream.domain == "ssmd"
    assert spec.middleware.journal.type == "nats"
    assert spec.middleware.journal.topics.audit == "ssmd.journal.audit"


def test_what_is_left_out_has_its_documented_default() -> None:
    spec = loads(SMALL_FILE.encode()).spec
    assert spec.database_url is None
    assert spec.endpoints is None
    assert spec.runtime.type == "local"
    assert (spec.connector.publish_raw, spec.connector.seal_s, spec.connector.seal_mb) == (False, 300, 64)
    assert (spec.archiver.seal_s, spec.archiver.seal_mb) == (300, 64)
    assert (spec.schedule.handover, spec.schedule.startup) == ("overlap", "00:10")
    assert (spec.middleware.cache.type, spec.middleware.journal.type) == ("none", "memory")


def test_a_database_key_stands_as_url_or_alone() -> None:
    alone = loads(changed("spec.database", "$key:postgres").encode())
    as_url = loads(changed("spec.database", {"url": "$key:postgres"}).encode())
    assert alone.spec.database_url == "$key:postgres"
    assert environment_hash(alone) == environment_hash(as_url)


def test_all_problems_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = SMALL_FILE.replace("ssmd/v1", "ssmd/v2").replace("feed: kalshi", "feed: Kalshi").replace("memory", "memori")
    with pytest.raises(InvalidEnvironment) as refused:
        loads(text.encode(), "some.yaml")
    lines = str(refused.value).splitlines()
    assert lines[0] == "some.yaml: 4 problems"
    assert [line.split()[1] for line in lines[1:5]] == ["1:", "9:", "11:", "12:"]
    assert "line 11: spec.middleware.transport.type cannot be 'memori'; did you mean 'memory'?" in lines[3]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("spec.middlware", {}, "is not a known key; did you mean 'middleware'?"),
        ("spec.gateway.prot", 1, "is not a known key; did you mean 'port'?"),
        ("spec.gateway.zzz", 1, "is not a known key; known: host, port"),
        ("spec.feed", ..., "is missing"),
        ("spec.keys", ..., "is missing"),
        ("spec.middleware.storage", {}, ""),
        ("spec.keys.kalshi.type", "apikey", "did you mean 'api_key'?"),
        ("spec.keys.kalshi.fields", [], "is an empty list; name at least one"),
        ("spec.runtime", {"type": "kubernets"}, ""),
        ("spec.schedule.handover", "overlp", "did you mean 'overlap'?"),
        ("spec.schedule.timezone", "Mars/One", "is not an IANA time zone"),
        ("spec.schedule.startup", "24:00", 'in quotes like "00:10"'),
        ("spec.symbols.sync", "true", "write true without quotes"),
        ("spec.symbols.include", "KX*", "must be a list, not text"),
        ("spec.symbols.include", ["[ab"], ""),
        ("spec.symbols.include", ["A"] * 1_001, "must name at most 1000, and names 1001"),
        ("spec.symbols.tickers", [""], "must not be empty"),
        ("spec.keys.kalshi.description", "x" * 1_001, "must have at most 1000 characters"),
        ("spec.runtime", {"type": "kubernetes", "namespace": "A"}, "must be lower-case letters, digits and '-'"),
        ("spec.runtime", {"type": ["local"]}, "must be one of: local, kubernetes"),
        ("spec.symbols", {"sync": False}, "selects nothing"),
        ("spec.gateway.port", "8080", "write 8080 without quotes"),
        ("spec.gateway.port", 0, "must be at least 1"),
        ("spec.gateway.port", 65536, "must be at most 65535"),
        ("spec.gateway.port", 80.5, "must be a whole number, not a fraction"),
        ("spec.gateway", None, "is empty; give a mapping"),
        ("spec.gateway", {"port": 65535}, "leaves no port for metrics"),
        ("spec.gateway", {"port": 80, "metrics_port": 80}, "uses port 80 twice"),
        ("spec.gateway", {"host": "0.0.0.0"}, "without a key; write auth: keys, or host: 127.0.0.1"),
        ("spec.gateway.host", "a b", "is no host name"),
        ("spec.feed", 7, 'write it in quotes: "7"'),
        ("spec.database.url", "postgresql://u@h/d", "write postgresql+psycopg2:// in place of postgresql://"),
        ("spec.database.url", "mysql://u@h/d", "must begin with postgresql+psycopg2://"),
        ("spec.database.url", "postgresql+psycopg2://u@h", "names no database"),
        ("spec.database.url", "postgresql+psycopg2://u@h:0/d", "port 0"),
        ("spec.database.url", "postgresql+psycopg2://u@h:99999/d", "is not a URL"),
        ("spec.database.url", "postgresql+psycopg2://u:a@b@h:1/d", "percent-encode it: %40"),
        ("spec.middleware.transport", {"type": "nats", "url": "http://h:1"}, ""),
        ("spec.endpoints", {"ws": "https://h/p", "rest": "https://h/p"}, ""),
        ("spec.connector.channels", ["trade", "trades"], ""),
        ("spec.connector.seal_s", 0, "must be at least 1"),
    ],
)
def test_a_wrong_value_is_explained(path: str, value: Any, says: str) -> None:
    found = problems_of(changed(path, value))
    assert any(where.startswith(path) and says in text for where, text in found.items()), found


@pytest.mark.parametrize(
    ("connector", "archiver", "says"),
    [
        (9_101, 9_101, "uses port 9101 twice, as connector.metrics_port and as archiver.metrics_port"),
        (28_080, None, "uses port 28080 twice, as connector.metrics_port and as gateway.port"),
        (None, 28_081, "uses port 28081 twice, as archiver.metrics_port and as gateway.metrics_port"),
    ],
)
def test_services_of_one_machine_have_ports_of_their_own(
    connector: int | None, archiver: int | None, says: str
) -> None:
    data = yaml.safe_load(ISSUE_FILE)
    data["spec"] |= {"connector": {"metrics_port": connector}, "archiver": {"metrics_port": archiver}}

    assert problems_of(yaml.safe_dump(data)) == {"spec": says}
    data["spec"]["runtime"] = {"type": "kubernetes"}  # pods have an address each
    assert loads(yaml.safe_dump(data).encode()).spec.archiver.metrics_port == archiver


def test_an_airflow_of_this_machine_has_a_port_of_its_own() -> None:
    data = yaml.safe_load(ISSUE_FILE)
    data["spec"]["airflow"] = {"url": "http://127.0.0.1:28080"}

    assert problems_of(yaml.safe_dump(data)) == {
        "spec": "uses port 28080 twice, as gateway.port and as airflow.url"
    }  # fmt: skip
    data["spec"]["airflow"] = {"url": "https://airflow.example:28080"}
    assert loads(yaml.safe_dump(data).encode()).spec.airflow is not None


def test_every_limit_of_an_environment_has_words_of_ours() -> None:
    def constraints(node: Any) -> Iterator[tuple[str, Any]]:
        for name, inner in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(inner, dict | list):
                yield from constraints(inner)
            elif isinstance(name, str):
                yield name, inner

    found = set(constraints(Environment.model_json_schema()))

    assert {text for name, text in found if name == "pattern"} <= set(loading._PATTERNS)
    assert {least for name, least in found if name in ("minLength", "minItems")} == {1}  # the words say "empty"
    other = {name for name, _ in found if name.startswith(("exclusive", "multiple", "unique", "additionalItems"))}
    assert other == set()


def test_a_kind_that_is_missing_or_unknown_lists_the_kinds() -> None:
    assert (
        "one of: s3, local, memory"
        in problems_of(changed("spec.middleware.storage", {"path": "x"}))["spec.middleware.storage.type"]
    )
    assert (
        "known: s3, local, memory"
        in problems_of(changed("spec.middleware.storage.type", "floppy"))["spec.middleware.storage.type"]
    )


def test_the_flat_shape_is_told_where_each_key_moved() -> None:
    text = """\
    apiVersion: ssmd/v1
    kind: Environment
    metadata: {name: kalshi-prod}
    spec:
      feed: kalshi
      symbols: {sync: true, filters: [{category: financials}]}
      transport: {type: nats, url: "nats://nats.ssmd.local:4222", stream: ssmd-kalshi}
      storage:
        raw: {bucket: ssmd-raw, endpoint: s3.homelab.local}
        normalized: {bucket: ssmd-normalized, endpoint: s3.homelab.local}
      secrets: {kalshi: sealed-secret/kalshi-creds}
    """
    found = problems_of(textwrap.dedent(text))
    assert found.pop("spec.transport.type") == "moved to spec.middleware.transport.type"
    assert found.pop("spec.transport.url") == "moved to spec.middleware.transport.url"
    assert "ssmd-{feed}" in found.pop("spec.transport.stream")
    assert found.pop("spec.storage.raw.bucket") == "moved to spec.middleware.storage.buckets.raw"
    assert found.pop("spec.storage.normalized.bucket") == "moved to spec.middleware.storage.buckets.normalized"
    assert found.pop("spec.storage.raw.endpoint").startswith("moved to spec.middleware.storage.endpoint")
    assert found.pop("spec.storage.normalized.endpoint").startswith("moved to spec.middleware.storage.endpoint")
    assert "SSMD_KEY_" in found.pop("spec.secrets.kalshi")
    assert "spec.symbols.include" in found.pop("spec.symbols.filters")
    assert found == {}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("spec.database", {"url": "$key:postgre"}, "did you mean $key:postgres?"),
        ("spec.database", {"url": "$key:zzz"}, "define it in spec.keys.zzz"),
        ("spec.database", {"url": "$key:postgres.pasword"}, "did you mean $key:postgres.password?"),
        ("spec.database", {"url": "$key:kalshi"}, "needs a key of type database"),
        ("spec.database", {"url": "$key: postgres"}, "is not a key reference"),
        ("spec.middleware.transport", {"type": "nats", "url": "$key:nats"}, "must say which field"),
        ("spec.middleware.transport", {"type": "nats", "url": "nats://h:1", "credentials": "hunter2"}, "key reference"),
        ("spec.middleware.transport", {"type": "nats", "url": "nats://h:1", "credentials": "$key:kalshi"}, "lacks"),
        ("spec.middleware.storage", {"type": "s3", "credentials": "$key:nats"}, "access_key"),
    ],
)
def test_a_key_reference_must_lead_somewhere(path: str, value: Any, says: str) -> None:
    found = problems_of(changed(path, value))
    assert len(found) == 1
    ((where, text),) = found.items()
    assert where.startswith(path)
    assert says in text
    assert "hunter2" not in text


def test_two_keys_that_share_an_environment_variable_are_refused() -> None:
    keys = {"a-b": {"type": "webhook", "fields": ["c"]}, "a_b": {"type": "webhook", "fields": ["c"]}}
    assert "SSMD_KEY_A_B_C" in problems_of(changed("spec.keys", keys))["spec.keys.a_b.fields"]
    keys = {"a-b": {"type": "webhook", "fields": ["c"]}, "a_b": {"type": "webhook", "fields": ["d"]}}
    assert "is the Secret 'a-b' in Kubernetes" in problems_of(changed("spec.keys", keys))["spec.keys.a_b"]
    keys = {"a": {"type": "webhook", "fields": ["x", "x_file"]}}
    assert "SSMD_KEY_A_X_FILE" in problems_of(changed("spec.keys", keys))["spec.keys.a.fields"]


@pytest.mark.parametrize(
    "secret_url",
    [
        "postgresql://postgres:hunter2@127.0.0.1/ssmd",
        "postgresql+psycopg2://postgres:hunter2/@/",
        "mysql://root:hunter2@h/d",
        "hunter2",
    ],
)
def test_no_password_of_a_wrong_value_is_shown(secret_url: str) -> None:
    with pytest.raises(InvalidEnvironment) as refused:
        loads(changed("spec.database.url", secret_url).encode())
    assert "hunter2" not in str(refused.value) + repr(refused.value)
    assert "hunter2" not in "".join(map(str, problems_of(changed("spec.keys.kalshi.api_secret", "hunter2")).values()))


def test_no_password_is_in_a_repr() -> None:
    text = changed("spec.database.url", "postgresql+psycopg2://postgres:hunter2@127.0.0.1:5432/ssmd")
    environment = loads(text.encode())
    assert "hunter2" in (environment.spec.database_url or "")
    assert "hunter2" not in repr(environment) + str(environment) + repr(environment.spec.database)
    assert "postgres:***@127.0.0.1:5432" in repr(environment)


def test_a_missing_file_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "kalshi.yaml").write_text(SMALL_FILE)
    with pytest.raises(ConfigError, match=r"Did you mean .*kalshi\.yaml"):
        load(tmp_path / "kalsih.yaml")
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "nowhere" / "x.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="no name of a file"):
        load("nul\0.yaml")
    with pytest.raises(ConfigError, match="cannot be read") as refused:
        load(tmp_path / ("x" * 10_000))
    assert len(str(refused.value)) < 300
    assert load(tmp_path / "kalshi.yaml").name == "small"


def test_the_hash_follows_the_meaning_and_not_the_spelling() -> None:
    environment = loads(ISSUE_FILE.encode())
    data = yaml.safe_load(ISSUE_FILE)
    data["spec"]["gateway"]["metrics_port"] = 28081
    data["spec"]["connector"] = {"seal_s": 300}
    respelled = "# a comment\n" + yaml.safe_dump(data, sort_keys=True)
    assert environment_hash(loads(respelled.encode())) == environment_hash(environment)
    data["spec"]["connector"] = {"seal_s": 301}
    assert environment_hash(loads(yaml.safe_dump(data).encode())) != environment_hash(environment)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
PATHS = [
    *("apiVersion", "metadata", "metadata.name", "spec", "spec.keys", "spec.keys.kalshi", "spec.keys.kalshi.fields"),
    *("spec.feed", "spec.database", "spec.database.url", "spec.middleware", "spec.middleware.transport"),
    *("spec.middleware.storage.type", "spec.symbols", "spec.symbols.tickers", "spec.transport", "spec.secrets"),
    *("spec.connector", "spec.connector.spool.path", "spec.gateway.port", "spec.runtime", "spec.symbols.filters"),
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_no_value_anywhere_makes_anything_but_an_environment_or_problems(path: str, value: Any) -> None:
    refused: InvalidEnvironment | None = None
    accepted: Environment | None = None
    try:
        accepted = loads(changed(path, value).encode())
    except InvalidEnvironment as error:
        refused = error
    assert accepted is not None or (refused is not None and refused.problems and all(p.text for p in refused.problems))
