"""An environment written back is the same environment, in one order, without the secrets that stood in its file."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ssmd.config.environment import environment_hash
from ssmd.config.loading import loads
from ssmd.config.values import masked
from ssmd.config.writing import embedded_secrets, settings, to_yaml
from tests.data.broken_environments import GOOD

SHIPPED = sorted((Path(__file__).parents[3] / "environments").glob("*.yaml"))
SECRET = "hunter2/hunter2".replace("/", "-")

AWKWARD = (
    "on",
    "no",
    "010",
    "1e5",
    "10:30",
    "~",
    "null",
    "*a",
    "&a",
    "!x",
    "# x",
    "a: b",
    "'",
    '"',
    "\\",
    "é",
    "x" * 300,
)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_file_survives(path: Path) -> None:
    environment = loads(path.read_bytes())

    again = loads(to_yaml(environment).encode())

    assert again == environment
    assert to_yaml(again) == to_yaml(environment)


@given(
    st.one_of(
        st.sampled_from(AWKWARD),
        st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=40),
    )
)
def test_any_description_and_path_survive(text: str) -> None:
    data: Any = yaml.safe_load(GOOD)
    data["spec"]["keys"]["nats"]["description"] = text
    data["spec"]["connector"] = {"spool": {"path": f"x{text}"}}
    environment = loads(yaml.safe_dump(data).encode())

    assert loads(to_yaml(environment).encode()) == environment


def test_order_and_comments_of_the_file_do_not_matter() -> None:
    data: Any = yaml.safe_load(GOOD)
    turned = {name: data[name] for name in reversed(data)}
    turned["spec"] = {name: data["spec"][name] for name in reversed(data["spec"])}
    turned["spec"]["keys"] = {name: data["spec"]["keys"][name] for name in reversed(data["spec"]["keys"])}

    one = loads(f"# a comment with {SECRET}\n{GOOD}".encode())
    other = loads(yaml.safe_dump(turned, sort_keys=False).encode())

    assert to_yaml(one) == to_yaml(other)
    assert SECRET not in to_yaml(one)


@pytest.mark.parametrize(
    ("section", "value", "kept"),
    [
        ("database", {"url": f"postgresql+psycopg2://ssmd:{SECRET}@db:5432/ssmd"}, "ssmd:***@db:5432/ssmd"),
        ("database", {"url": f"postgresql+psycopg2://ssmd@db/ssmd?password={SECRET}"}, "ssmd@db/ssmd?password=***"),
        ("transport", {"type": "nats", "url": f"nats://u:{SECRET}@n:4222"}, "nats://u:***@n:4222"),
        ("transport", {"type": "nats", "url": f"nats://{SECRET}@n:4222"}, "nats://***@n:4222"),
        ("cache", {"type": "redis", "url": f"redis://:{SECRET}@r:6379/0"}, "redis://:***@r:6379/0"),
        ("endpoints", {"ws": "wss://h/p", "rest": f"https://h/p?api_key={SECRET}&x=1"}, "https://h/p?api_key=***&x=1"),
    ],
    ids=["database", "parameter", "nats password", "nats token", "redis", "exchange"],
)
def test_a_secret_in_a_url_is_masked_and_told(section: str, value: dict[str, str], kept: str) -> None:
    data: Any = yaml.safe_load(GOOD)
    place = data["spec"]["middleware"] if section in ("transport", "cache") else data["spec"]
    place[section] = value
    environment = loads(yaml.safe_dump(data).encode())
    text = to_yaml(environment)

    assert kept in text
    assert SECRET not in text + str(settings(environment)) + repr(environment)
    assert [path.rpartition(".")[2] for path in embedded_secrets(environment)] in (["url"], ["rest"])
    assert environment_hash(loads(text.encode())) == environment_hash(environment)
    other = yaml.safe_dump(data).replace(SECRET, "another")
    assert environment_hash(loads(other.encode())) == environment_hash(environment)


@pytest.mark.parametrize(
    "text",
    ["postgresql+psycopg2://ssmd@db:5432/ssmd", "nats://n:4222", "https://h:1/a@b", "a word", "$key:nats", "x?y=z"],
)
def test_what_holds_no_secret_stays(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg2://u:pa@{SECRET}@h:5432/d",
        f"postgresql+psycopg2://us@er:{SECRET}@h:5432/d",
        f"postgresql+psycopg2://us@er:a/{SECRET}@h:5432/d",
        f"postgresql+psycopg2://u:a/b@{SECRET}?#@h/d",
        f"postgresql://h/d?user=u&password={SECRET}#1",
        f"postgresql://h/d?password=a#{SECRET}",
        f"postgresql://h/d?password=a {SECRET}",
        f"nats://u:a b{SECRET}@h:4222",
        f"nats://u:a\x00{SECRET}@h:4222",
        f"nats://u:1/{SECRET}@h:4222",
        f"nats://a/{SECRET}@h:4222",
        f"NATS://{SECRET}@h:4222",
        f"tls://h:1,nats://u:{SECRET}@h:4222",
        f"https://u:1@2/{SECRET}@h/v2?Signature={SECRET}",
        f"http://u:[{SECRET}@h/v2",
        f"redis://:{SECRET}@{SECRET}@r:6379/0",
    ],
)
def test_a_secret_in_a_broken_url_is_masked_too(url: str) -> None:
    assert SECRET not in masked(url)
    assert masked(masked(url)) == masked(url)
    if " " not in url:  # in a sentence, a URL ends where a blank is
        assert SECRET not in masked(f"cannot open {url!r}: no such host")


def test_settings_name_every_value_and_default_by_its_path() -> None:
    found = settings(loads(GOOD.encode()))

    assert found["spec.gateway.port"] == 18080
    assert found["spec.gateway.metrics_port"] == 18081
    assert found["spec.keys.nats.fields"] == ["username", "password"]
    assert found["spec.schedule.handover"] == "overlap"
    assert found["spec.endpoints"] is None
