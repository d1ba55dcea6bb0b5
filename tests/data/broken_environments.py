"""Environment files that are wrong, each in its way, and the words without which their errors would be of no use."""

from typing import NamedTuple

GOOD = """\
apiVersion: ssmd/v1
kind: Environment
metadata: {name: broken}
spec:
  keys:
    kalshi: {type: api_key, fields: [api_key, api_secret]}
    nats: {type: transport, fields: [username, password]}
    postgres: {type: database, fields: [host, port, database, username, password]}
    storage: {type: storage, fields: [access_key, secret_key]}
  feed: kalshi
  database: $key:postgres
  middleware:
    transport: {type: nats, url: "nats://127.0.0.1:4222", credentials: $key:nats}
    storage: {type: s3, endpoint: "http://127.0.0.1:3900", region: garage, credentials: $key:storage}
    cache: {type: none}
    journal: {type: memory}
  gateway: {port: 18080}
"""


class Broken(NamedTuple):
    """A file, and what its error must say, all of it."""

    name: str
    content: bytes
    says: tuple[str, ...]


def _with(name: str, *changes: tuple[str, str], says: tuple[str, ...]) -> Broken:
    text = GOOD
    for old, new in changes:
        assert text.count(old) == 1, f"{name}: {old!r} does not stand once in the file"
        text = text.replace(old, new)
    return Broken(name, text.encode("utf-8", "surrogateescape"), says)


BROKEN = (
    Broken("empty", b"", ("empty", "apiVersion: ssmd/v1")),
    Broken("only comments", b"# nothing\n\n", ("empty",)),
    Broken("binary", bytes(range(256)) * 8, ("not UTF-8",)),
    Broken("utf-16", GOOD.encode("utf-16"), ("not UTF-8",)),
    Broken("nul", GOOD.replace("kalshi:", "kal\0shi:", 1).encode(), ("line 6", "U+0000")),
    Broken("escape sequence", GOOD.replace("broken", "\x1b[31mred").encode(), ("line 3", "U+001B")),
    Broken("huge", GOOD.encode() + b"# " + b"x" * (2 << 20), ("at most 1048576",)),
    Broken("deep", b"a: " + b"[" * 100 + b"]" * 100, ("deeper than 24",)),
    Broken("no mapping", b"- a\n- b\n", ("not a mapping", "apiVersion: ssmd/v1")),
    Broken("one word", b"kalshi\n", ("not a mapping",)),
    Broken("two documents", GOOD.encode() + b"---\n" + GOOD.encode(), ("line 18", "second document")),
    Broken("tabs", b"spec:\n\tkeys: {}\n", ("line 2", "spaces, not tabs")),
    Broken("open bracket", GOOD.replace("api_secret]}", "api_secret").encode(), ("line 7", "not plain YAML")),
    Broken(
        "nothing but a kind",
        b"kind: Environment\n",
        ("apiVersion is missing", "metadata is missing", "spec is missing"),
    ),
    Broken(
        "another kind",
        GOOD.replace("Environment", "Deployment").replace("ssmd/v1", "apps/v1").encode(),
        ("apiVersion cannot be 'apps/v1'", "kind cannot be 'Deployment'"),
    ),
    _with(
        "unknown keys",
        ("gateway:", "gatway:"),
        ("type: memory", "type: memory, pth: x"),
        says=("spec.gatway is not a known key; did you mean 'gateway'?", "spec.middleware.journal.pth"),
    ),
    _with(
        "alias",
        ("{type: transport, fields: [username, password]}", "&n {type: transport, fields: [username, password]}"),
        ("$key:postgres", "*n"),
        says=("has an anchor (&n)", "is an alias (*n)"),
    ),
    _with(
        "duplicate keys",
        ("  feed: kalshi\n", "  feed: kalshi\n  feed: kraken\n"),
        says=("spec.feed stands twice", "line 10"),
    ),
    _with("merge key", ("gateway: {port: 18080}", "gateway: {<<: {port: 1}}"), says=("spec.gateway has a merge key",)),
    _with("tag", ("name: broken", "name: !!python/name:os.system x"), says=("metadata.name has a tag",)),
    _with(
        "wrong types",
        ("port: 18080", 'port: "18080"'),
        ("fields: [api_key, api_secret]", "fields: api_key"),
        says=(
            "spec.gateway.port must be a whole number; write 18080 without quotes",
            "spec.keys.kalshi.fields must be a list",
        ),
    ),
    _with(
        "yes and base 60",
        ("port: 18080", "port: 10:30"),
        ("type: none", "type: no"),
        says=("spec.gateway.port is 10:30 without quotes", "spec.middleware.cache.type is no without quotes"),
    ),
    _with(
        "null",
        ("{type: none}", "\n      type:"),
        says=("spec.middleware.cache.type is empty; one of: redis, memory, none",),
    ),
    _with(
        "ports",
        ("port: 18080", "port: 99999"),
        ("127.0.0.1:4222", "127.0.0.1:0"),
        says=("spec.gateway.port must be at most 65535", "spec.middleware.transport.url names port 0"),
    ),
    _with(
        "names",
        ("name: broken", "name: Broken_Env"),
        ("feed: kalshi", "feed: KALSHI"),
        says=("metadata.name must be lower-case letters", "at most 63", "spec.feed must be", "at most 32"),
    ),
    _with(
        "unknown key reference",
        ("credentials: $key:nats", "credentials: $key:natz"),
        says=("spec.middleware.transport.credentials refers to the key 'natz'", "did you mean $key:nats?"),
    ),
    _with(
        "unknown field reference",
        ("database: $key:postgres", "database: $key:postgres.pasword"),
        says=("spec.database refers to the field 'pasword'", "did you mean $key:postgres.password?"),
    ),
    _with(
        "misspelled reference",
        ("credentials: $key:storage", "credentials: $KEY:storage"),
        says=("spec.middleware.storage.credentials is not a key reference",),
    ),
    _with(
        "a secret in place of a reference",
        ("credentials: $key:storage", "credentials: hunter2hunter2"),
        says=("spec.middleware.storage.credentials must be a key reference", "a secret never stands in"),
    ),
    _with(
        "a key of the wrong type",
        ("database: $key:postgres", "database: $key:nats"),
        says=("needs a key of type database; 'nats' is of type transport",),
    ),
    _with(
        "a key without its fields",
        ("fields: [access_key, secret_key]", "fields: [access_key]"),
        says=("the key 'storage' lacks secret_key",),
    ),
    _with(
        "colliding variables",
        ("    nats:", "    kalshi-api: {type: webhook, fields: [key]}\n    nats:"),
        says=("SSMD_KEY_KALSHI_API_KEY", "rename one"),
    ),
    _with(
        "bad URLs",
        ("nats://127.0.0.1:4222", "http://127.0.0.1:4222"),
        ("http://127.0.0.1:3900", "127.0.0.1:3900"),
        ("$key:postgres\n", "postgres://u:hunter2@h/db\n"),
        says=(
            "spec.middleware.transport.url must begin with nats:// or tls://",
            "spec.middleware.storage.endpoint must begin",
            "spec.database must name the driver",
        ),
    ),
    _with(
        "a URL with spaces",
        ("nats://127.0.0.1:4222", "nats://my host:4222"),
        says=("spec.middleware.transport.url names no valid host",),
    ),
    _with(
        "unknown kinds",
        ("type: s3", "type: s4"),
        ("type: memory", "type: memroy"),
        says=(
            "spec.middleware.storage.type cannot be 's4'",
            "spec.middleware.journal.type cannot be 'memroy'; did you mean 'memory'?",
        ),
    ),
    _with(
        "the old flat form",
        ("  feed: kalshi\n", "  feed: kalshi\n  transport: {type: nats}\n  secrets: {kalshi: x}\n"),
        says=("moved to spec.middleware.transport", "moved to spec.keys.kalshi"),
    ),
    _with(
        "selects nothing",
        ("  gateway:", "  symbols: {sync: false}\n  gateway:"),
        says=("spec.symbols selects nothing",),
    ),
    _with(
        "lists without anything in them",
        ("fields: [username, password]}\n    postgres", "fields: []}\n    postgres"),
        ("  gateway:", "  connector: {channels: []}\n  gateway:"),
        says=("spec.keys.nats.fields is an empty list; name at least one", "spec.connector.channels is an empty list"),
    ),
    _with(
        "words of other letters",
        ("region: garage", "region: my region"),
        ("journal: {type: memory}", 'journal: {type: nats, url: "nats://h:1", topics: {audit: "a..b"}}'),
        says=("spec.middleware.storage.region must be letters", "spec.middleware.journal.topics.audit must be words"),
    ),
    _with(
        "bad times",
        ("  gateway:", '  schedule: {timezone: Mars/Olympus, startup: "25:00"}\n  gateway:'),
        says=("spec.schedule.timezone is not an IANA time zone", "spec.schedule.startup is not a time of day"),
    ),
    _with(
        "unknown feed and more",
        ("feed: kalshi", "feed: klashi"),
        ("port: 18080", "port: none"),
        says=("spec.feed is not found in the feed registry", "did you mean 'kalshi'?", "spec.gateway.port"),
    ),
    _with(
        "long words",
        ("name: broken", f"name: {'x' * 10_000}"),
        ("type: none", f"type: {'y' * 10_000}"),
        says=("metadata.name", "spec.middleware.cache.type must be one of: redis, memory, none"),
    ),
)
