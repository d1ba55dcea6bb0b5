"""`ssmd key`: what it prints, what it refuses, and that values come in every way and go out in none."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ssmd.cli.main import main
from ssmd.keys.sealing import Scope, unseal
from ssmd.keys.stores import LocalStore
from ssmd.local.home import Home, StackRecord
from ssmd.local.processes import identify
from tests.unit.keys.certificates import certificate, private_pem, rsa_key, signing_pem

ENVIRONMENT = """
apiVersion: ssmd/v1
kind: Environment
metadata: {name: kalshi-prod}
spec:
  keys:
    kalshi: {type: api_key, required: true, fields: [api_key, api_secret], rotation_days: 90, description: the exchange}
    nats: {type: transport, required: true, fields: [url, username, password, tls_cert, tls_key]}
    storage: {type: storage, required: false, fields: [endpoint, access_key, secret_key, region]}
  feed: kalshi
  runtime: RUNTIME
  middleware: {transport: {type: memory}, storage: {type: memory}}
"""
SECRET = "hunter2-canary"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments" / "k.yaml").write_text(ENVIRONMENT.replace("RUNTIME", "{type: local}"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSMD_HOME", str(tmp_path / "home"))
    for name in ("SSMD_ENV", "SEALED_SECRETS_CERT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def go(*arguments: str) -> tuple[int, str, str]:
        code = main(["key", *arguments])
        said = capsys.readouterr()
        assert SECRET not in said.out + said.err
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return go


def kept(home: Path, key: str, field: str) -> str | None:
    value = LocalStore(home / "home", "kalshi-prod").read(key, field)
    return value.reveal() if value else None


def set_all(run: Run, home: Path) -> None:
    (home / "key.pem").write_text(signing_pem())
    assert run("set", "kalshi-prod", "kalshi", "--api-key", SECRET, "--from-file", "api_secret=key.pem")[0] == 0
    flags = ["--url", "nats://h:4222", "--username", "u", "--password", SECRET]
    assert run("set", "kalshi-prod", "nats", *flags)[0] == 0


def test_the_list_has_the_designs_columns(run: Run, home: Path) -> None:
    set_all(run, home)
    code, out, _ = run("list", "kalshi-prod")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert lines[0] == ["NAME", "TYPE", "REQUIRED", "STATUS", "LAST_ROTATED", "EXPIRES"]
    assert lines[1][:4] == ["kalshi", "api_key", "yes", "set"]
    assert lines[2][:4] + lines[2][5:] == ["nats", "transport", "yes", "set", "-"]
    assert lines[3] == ["storage", "storage", "no", "not_set", "-", "-"]
    rows = json.loads(run("list", "kalshi-prod", "--json")[1])
    assert [row["status"] for row in rows] == ["set", "set", "not_set"]
    assert rows[0]["expires_in_days"] == 90


def test_verify_says_the_designs_lines(run: Run, home: Path) -> None:
    code, out, err = run("verify", "kalshi-prod")
    assert code == 3
    assert out == "✗ kalshi: not set\n✗ nats: not set\n○ storage: not set (optional)\n"
    assert (
        "Error: Required key 'nats' is not set.\n"
        "Run: ssmd key set kalshi-prod nats --url xxx --username yyy --password zzz" in err
    )
    set_all(run, home)
    code, out, err = run("verify", "kalshi-prod")
    assert (code, err) == (0, "")
    assert out == (
        "✓ kalshi: set (expires in 90 days)\n✓ nats: set\n○ storage: not set (optional)\nAll required keys present.\n"
    )
    assert json.loads(run("verify", "kalshi-prod", "--json")[1])["ok"] is True


def test_show_tells_everything_but_the_value(run: Run, home: Path) -> None:
    set_all(run, home)
    lines = run("show", "kalshi-prod", "kalshi")[1].splitlines()
    assert lines[:4] == ["Name: kalshi", "Type: api_key", "Status: set", "Fields: api_key, api_secret"]
    assert [line.partition(":")[0] for line in lines[4:7]] == ["Last Rotated", "Rotation Policy", "Expires"]
    assert json.loads(run("show", "kalshi-prod", "storage", "--json")[1])["missing_fields"] == [
        "access_key", "secret_key",
    ]  # fmt: skip


def test_flags_are_taken_with_a_warning(run: Run, home: Path) -> None:
    code, _, err = run("set", "kalshi-prod", "kalshi", "--api-key", SECRET)
    assert code == 0
    assert "(ps)" in err
    assert kept(home, "kalshi", "api_key") == SECRET
    (home / "v").write_text(SECRET + "\n")
    assert "(ps)" not in run("set", "kalshi-prod", "kalshi", "--from-file", "api_key=v")[2]


def test_values_come_from_variables_by_the_end_of_their_names(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KALSHI_API_KEY", "id")
    pem = signing_pem()
    monkeypatch.setenv("KALSHI_API_SECRET", pem)
    assert run("set", "kalshi-prod", "kalshi", "--from-env", "KALSHI_API_KEY,KALSHI_API_SECRET")[0] == 0
    assert (kept(home, "kalshi", "api_key"), kept(home, "kalshi", "api_secret")) == ("id", pem)
    monkeypatch.setenv("OTHER", "x")
    assert run("rotate", "kalshi-prod", "kalshi", "--from-env", "api_key=OTHER")[0] == 0
    assert kept(home, "kalshi", "api_key") == "x"
    for given, why in (
        ("OTHER", "ends with the name of no field"),
        ("NOT_THERE", "is not the name of an environment variable that is set"),
        ("KALSHI_API_KEY,api_key=OTHER", "given twice"),
    ):
        code, _, err = run("set", "kalshi-prod", "kalshi", "--from-env", given)
        assert code == 2
        assert why in err
    assert kept(home, "kalshi", "api_key") == "x"


@pytest.mark.parametrize("given", [["--stdin", "password"], ["--password", "-"], ["--from-file", "password=-"]])
def test_a_value_may_be_piped_in(run: Run, home: Path, given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SECRET.encode() + b"\n")))
    assert run("set", "kalshi-prod", "nats", *given)[0] == 0
    assert kept(home, "nats", "password") == SECRET


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["set", "kalshi-prod", "kalsi", "--api-key", SECRET], "Did you mean 'kalshi'?"),
        (["set", "kalshi-prd", "kalshi", "--api-key", SECRET], "Did you mean 'kalshi-prod'?"),
        (["set", "kalshi-prod", "kalshi", "--api-secrt", SECRET], "Did you mean 'api_secret'?"),
        (["set", "kalshi-prod", "kalshi", SECRET], "a value is not given as an argument"),
        (["set", "kalshi-prod", "kalshi", "--api-key", ""], "is empty"),
        (["set", "kalshi-prod", "kalshi", "--api-key", "a\x00" + SECRET], "NUL"),
        (["set", "kalshi-prod", "kalshi", "--api-key", "\udcff" + SECRET], "not UTF-8"),
        (["set", "kalshi-prod", "kalshi", "--api-key", SECRET * 100_000], "more than"),
        (["set", "kalshi-prod", "kalshi", "--from-file", "api_key"], "is not FIELD=PATH"),
        (["set", "kalshi-prod", "kalshi", "--from-file", "api_key=gone"], "--from-file api_key=: cannot read the file"),
        (["set", "kalshi-prod", "kalshi", "--from-file", f"api_key={SECRET}"], "No such file"),
        (["set", "kalshi-prod", "kalshi", "--from-file", SECRET], "is not FIELD=PATH"),
        (["set", "kalshi-prod", "kalshi", "--from-file", f"{SECRET}=="], "--from-file: it names no field"),
        (["set", "kalshi-prod", "kalshi", "--from-file", f"{SECRET}="], "is not FIELD=PATH"),
        (["set", "kalshi-prod", "kalshi", "--from-env", SECRET], "a variable's name and not its value"),
        (["set", "kalshi-prod", "kalshi", "--from-env", f"api_key={SECRET}"], "is not the name of an environment"),
        (["set", "kalshi-prod", "kalshi", "--from-env", f"{SECRET}=PATH"], "--from-env: it names no field"),
        (["set", "kalshi-prod", "kalshi", "--from-env", f"X,{SECRET}"], "number 1 of what is given"),
        (["set", "kalshi-prod", "kalshi", "--stdin", SECRET], "--stdin: it names no field"),
        (["rotate", "kalshi-prod", "kalshi", "--from-file", f"api_key={SECRET}"], "nothing to rotate"),
        (["delete", "kalshi-prod", "kalshi", "--yes", SECRET], "nothing was deleted"),
        (["set", "kalshi-prod", "kalshi", "--from-file", "api_key=a\x00b"], "not a path"),
        (["set", "kalshi-prod", "kalshi"], "stdin is no terminal"),
        (["set", "kalshi-prod", "kalshi", "--stdin", "api_key", "--from-file", "api_secret=-"], "stdin cannot hold"),
        (["rotate", "kalshi-prod", "kalshi", "--api-key", SECRET], "nothing to rotate"),
        (["delete", "kalshi-prod", "kalshi", "--yes", "nats"], "nothing was deleted"),
        (["delete", "kalshi-prod", "kalshi"], "--yes kalshi"),
        (["init", "kalshi-prod"], "ssmd key set kalshi-prod kalshi"),
        (["audit", "kalshi-prod", "--limit", "0"], "--limit 0"),
        (["show", "kalshi-prod", "x" * 10_000], "has no key"),
        (["show", "x'; DROP TABLE keys; --\x1b[31m\n\udcff", "k"], "no file in environments/"),
        (["list", "kalshi-prod", "--api-key", SECRET], "Unknown option"),
        (["sett", "kalshi-prod", "kalshi", "--api-key", SECRET], "set"),
        (["set", "kalshi-prod", "kalshi", "--api-key", SECRET, "--store", SECRET], "--store"),
    ],
)
def test_what_is_unclear_is_refused_in_words_and_nothing_is_kept(
    run: Run, home: Path, arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SECRET.encode())))
    code, out, err = run(*arguments)
    assert code in (2, 3)
    assert why in err
    assert out == ""
    assert len(err.splitlines()) <= 4
    assert all(len(line) < 300 for line in err.splitlines())
    assert err.replace("\n", "").isprintable()
    assert not list((home / "home").glob("keys/*/*/*"))


def test_one_bad_field_keeps_the_old_values_of_all(run: Run, home: Path) -> None:
    set_all(run, home)
    old = kept(home, "kalshi", "api_secret")
    for pem in ("-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n", private_pem(rsa_key(), b"pw")):
        (home / "bad.pem").write_text(pem)
        code, _, err = run("rotate", "kalshi-prod", "kalshi", "--api-key", "new", "--from-file", "api_secret=bad.pem")
        assert code == 2
        assert "the value of 'api_secret'" in err
        assert (kept(home, "kalshi", "api_key"), kept(home, "kalshi", "api_secret")) == (SECRET, old)


def test_a_secret_that_cannot_sign_for_the_feed_is_refused_and_one_that_is_there_is_not_set(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(run, home)
    old = kept(home, "kalshi", "api_secret")
    code, out, err = run("set", "kalshi-prod", "kalshi", "--api-key", "new", "--api-secret", SECRET)
    assert (code, out) == (2, "")
    why = "the value of 'api_secret' is not a PEM private key (RSA or Ed25519)"
    assert why in err
    assert "Nothing was changed." in err
    assert (kept(home, "kalshi", "api_key"), kept(home, "kalshi", "api_secret")) == (SECRET, old)
    assert run("set", "kalshi-prod", "nats", "--password", SECRET)[0] == 0  # no feed has an opinion on that

    monkeypatch.setenv("SSMD_KEY_KALSHI_API_SECRET", SECRET)
    code, out, _ = run("verify", "kalshi-prod")
    assert code == 3
    assert out.startswith(f"✗ kalshi: cannot be used ({why})\n")
    assert json.loads(run("show", "kalshi-prod", "kalshi", "--json")[1])["problem"] == why
    one_line = signing_pem().replace("\n", "\\n")
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_SECRET", one_line)
    assert run("verify", "kalshi-prod")[0] == 0


def test_a_rotation_may_change_one_field_only(run: Run, home: Path) -> None:
    set_all(run, home)
    old = kept(home, "kalshi", "api_secret")
    assert run("rotate", "kalshi-prod", "kalshi", "--api-key", "new")[0] == 0
    assert (kept(home, "kalshi", "api_key"), kept(home, "kalshi", "api_secret")) == ("new", old)


def test_a_stronger_variable_is_told(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_KEY", SECRET)
    assert (
        "SSMD_KEY_KALSHI_API_KEY is set and is used instead" in run("set", "kalshi-prod", "kalshi", "--api-key", "i")[2]
    )
    code, out, err = run("delete", "kalshi-prod", "kalshi", "--yes", "kalshi")
    assert (code, out) == (0, "✓ kalshi: deleted from the local store\n")
    assert "SSMD_KEY_KALSHI_API_KEY still provides it" in err
    assert kept(home, "kalshi", "api_key") is None
    assert run("delete", "kalshi-prod", "storage", "--yes", "storage")[1] == "○ storage: nothing to delete\n"


def test_export_holds_references_and_no_values(run: Run, home: Path) -> None:
    set_all(run, home)
    said = yaml.safe_load(run("export", "kalshi-prod")[1])
    assert (said["kind"], said["metadata"]["name"]) == ("KeyManifest", "kalshi-prod")
    assert said["spec"]["keys"]["kalshi"]["reference"] == "$key:kalshi"
    assert said["spec"]["keys"]["kalshi"]["variables"]["api_key"] == "SSMD_KEY_KALSHI_API_KEY"


def test_every_change_is_in_the_audit_log_by_name(run: Run, home: Path) -> None:
    set_all(run, home)
    run("rotate", "kalshi-prod", "kalshi", "--api-key", SECRET)
    run("delete", "kalshi-prod", "kalshi", "--yes", "kalshi")
    rows = json.loads(run("audit", "kalshi-prod", "kalshi", "--json")[1])
    assert [row["action"] for row in rows] == ["deleted", "rotated", "created"]
    assert all(row["actor"].startswith("cli:") for row in rows)
    assert rows[1]["details"] == {"fields": ["api_key"], "given_by": ["flags"], "store": "local store"}
    assert run("audit", "kalshi-prod", "--limit", "1")[1].count("\n") == 2


def test_a_key_for_kubernetes_becomes_a_manifest_that_opens(run: Run, home: Path) -> None:
    file = home / "environments" / "k.yaml"
    file.write_text(ENVIRONMENT.replace("RUNTIME", "{type: kubernetes, namespace: prod}"))
    (home / "cert.pem").write_bytes(certificate())
    flags = ["--from-file", "api_secret=key.pem", "--api-key", SECRET]
    (home / "key.pem").write_text(signing_pem())
    code, _, err = run("set", "kalshi-prod", "kalshi", *flags)
    assert (code, "no certificate to seal with" in err) == (2, True)
    code, out, err = run("set", "kalshi-prod", "kalshi", *flags, "--cert", "cert.pem")
    assert (code, out) == (0, "✓ kalshi: set (expires in 90 days)\n")
    assert "kubectl apply -f sealed-secrets/kalshi-prod-kalshi.yaml" in err
    made = yaml.safe_load((home / "sealed-secrets" / "kalshi-prod-kalshi.yaml").read_text())
    label = Scope.STRICT.label("prod", "kalshi-prod-kalshi")
    assert unseal(made["spec"]["encryptedData"]["api_key"], rsa_key(), label) == SECRET.encode()
    assert "Sealed Secret: prod/kalshi-prod-kalshi" in run("show", "kalshi-prod", "kalshi")[1]
    assert kept(home, "kalshi", "api_key") is None

    code, _, err = run("rotate", "kalshi-prod", "kalshi", "--api-key", "new", "--cert", "cert.pem")
    assert code == 2
    assert "cannot be read back" in err
    piped = ["--cert", "cert.pem", "--output", "-", "--scope", "cluster-wide"]
    code, out, err = run("rotate", "kalshi-prod", "kalshi", *flags, *piped)
    assert code == 0
    assert unseal(yaml.safe_load(out)["spec"]["encryptedData"]["api_key"], rsa_key(), b"") == SECRET.encode()
    assert "✓ kalshi: set" in err
    assert "kubectl -n prod delete sealedsecret" in run("delete", "kalshi-prod", "kalshi", "--yes", "kalshi")[2]
    assert json.loads(run("show", "kalshi-prod", "kalshi", "--json")[1])["status"] == "not_set"
    (home / "cert.pem").write_bytes(certificate(first=-9, last=-1))
    code, _, err = run("set", "kalshi-prod", "kalshi", *flags, "--cert", "cert.pem")
    assert (code, "expired on" in err) == (2, True)


def test_a_manifest_makes_no_folder_that_was_misspelt(run: Run, home: Path) -> None:
    (home / "cert.pem").write_bytes(certificate())
    sealed = ["--store", "kubernetes", "--cert", "cert.pem", "--output", str(home / "nonexistent" / "x.yaml")]
    code, out, err = run("set", "kalshi-prod", "storage", "--access-key", "a", "--secret-key", "b", *sealed)
    assert (code, out) == (2, "")
    assert "No such file or directory" in err
    assert not (home / "nonexistent").exists()


def test_the_store_can_be_chosen(run: Run, home: Path) -> None:
    (home / "out").mkdir()
    (home / "cert.pem").write_bytes(certificate())
    sealed = ["--store", "kubernetes", "--cert", "cert.pem", "--output", "out/s.yaml"]
    assert run("set", "kalshi-prod", "storage", "--access-key", "a", "--secret-key", SECRET, *sealed)[0] == 0
    assert yaml.safe_load((home / "out" / "s.yaml").read_text())["metadata"]["namespace"] == "ssmd"
    assert (
        json.loads(run("show", "kalshi-prod", "storage", "--json")[1])["sealed_secret_ref"]
        == "ssmd/kalshi-prod-storage"
    )


KILLED = """
import os, signal, sys
whole, when, call = os.replace, sys.argv[1], sys.argv[2]
def killing(*arguments):
    if when == "after":
        whole(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, call, killing)
from ssmd.cli.main import main
main(["key", *sys.argv[3:]])
"""


@pytest.mark.parametrize(("when", "fields"), [("before", []), ("after", ["api_key"])])
def test_a_change_that_was_killed_is_in_the_audit_log_and_stands_as_it_is(
    run: Run, home: Path, when: str, fields: list[str]
) -> None:
    given = ["--api-key", SECRET, "--api-secret", signing_pem()]
    command = [sys.executable, "-c", KILLED, when, "replace", "set", "kalshi-prod", "kalshi", *given]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    rows = json.loads(run("audit", "kalshi-prod", "--json")[1])
    assert [(row["key"], row["action"]) for row in rows] == [("kalshi", "created")]
    if fields:  # one of two files was replaced
        assert rows[0]["details"]["fields"] == fields
        assert rows[0]["details"]["missing"] == ["api_secret"]
        assert "outcome" not in rows[0]["details"]
    else:
        assert rows[0]["details"]["outcome"] == "attempted"
    assert kept(home, "kalshi", "api_key") == (SECRET if fields else None)
    state = json.loads(run("show", "kalshi-prod", "kalshi", "--json")[1])
    assert (state["status"], state["last_rotated"]) == ("not_set", None)
    assert json.loads(run("audit", "kalshi-prod", "--json")[1]) == rows


def test_a_deletion_that_was_killed_is_in_the_audit_log(run: Run, home: Path) -> None:
    set_all(run, home)
    command = [sys.executable, "-c", KILLED, "before", "rmdir", "delete", "kalshi-prod", "kalshi", "--yes", "kalshi"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    row = json.loads(run("audit", "kalshi-prod", "kalshi", "--json")[1])[0]
    assert (row["action"], row["details"]) == ("deleted", {"fields": ["api_key", "api_secret"]})


def test_a_change_that_failed_leaves_no_row(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(run, home)
    before = run("audit", "kalshi-prod", "--json")[1]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    code, _, err = run("rotate", "kalshi-prod", "kalshi", "--api-key", "other")
    assert code == 2
    assert "No space left" in err
    monkeypatch.undo()
    monkeypatch.chdir(home)
    monkeypatch.setenv("SSMD_HOME", str(home / "home"))
    assert kept(home, "kalshi", "api_key") == SECRET
    assert run("audit", "kalshi-prod", "--json")[1] == before


def test_a_value_that_something_else_overrides_is_kept_with_a_warning(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "warning" not in run("set", "kalshi-prod", "nats", "--from-file", f"password={__file__}")[2]
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        supervisord = identify(process.pid)
        assert supervisord is not None
        record = StackRecord(
            mark="m", environment="kalshi-prod", file="k.yaml", socket="", password="", supervisord=supervisord,
            programs=["nats"], urls={}, given=["SSMD_KEY_NATS_PASSWORD_FILE", "SSMD_KEY_OTHER"],
        )  # fmt: skip
        state = Home(home / "home")
        state.prepare()
        state.write_record(record)
        monkeypatch.setenv("SSMD_KEY_NATS_USERNAME", "mine")
        err = run("set", "kalshi-prod", "nats", "--from-file", f"password={__file__}")[2]
        process.kill()
    assert "the environment variable SSMD_KEY_NATS_USERNAME is set and is used instead; unset it" in err
    assert "the running stack was started with SSMD_KEY_NATS_PASSWORD_FILE, and uses that instead" in err
    assert "ssmd down, then: ssmd up" in err
    assert "was started with" not in run("set", "kalshi-prod", "nats", "--from-file", f"password={__file__}")[2]


@pytest.fixture
def database_is_away(home: Path) -> None:
    database = 'database: {url: "postgresql+psycopg2://postgres@127.0.0.1:1/ssmd"}'
    text = ENVIRONMENT.replace("RUNTIME", "{type: local}").replace("feed: kalshi", f"feed: kalshi\n  {database}")
    (home / "environments" / "k.yaml").write_text(text)


@pytest.mark.usefixtures("database_is_away")
def test_an_audit_log_that_cannot_be_read_is_no_empty_one(run: Run, home: Path) -> None:
    code, out, err = run("audit", "kalshi-prod", "kalshi", "--json")
    assert (code, out) == (7, "")
    assert err.startswith("cannot read the audit log of 'kalshi-prod': PostgreSQL at 127.0.0.1:1/ssmd")
    assert "was done" not in err

    assert "audit rows wait for it" in run("set", "kalshi-prod", "nats", "--from-file", f"password={__file__}")[2]
    code, out, err = run("audit", "kalshi-prod", "--json")
    assert (code, [row["action"] for row in json.loads(out)]) == (7, ["created"])
    assert "these are only the rows that wait for it" in err
    assert run("audit", "kalshi-prod", "kalshi")[:2] == (7, "")


@pytest.mark.usefixtures("database_is_away")
def test_a_question_mentions_a_database_that_is_away_only_where_it_would_know_better(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for question in (["list", "kalshi-prod"], ["show", "kalshi-prod", "nats"], ["verify", "kalshi-prod"]):
        assert "database" not in run(*question)[2]
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_KEY", "id")
    monkeypatch.setenv("SSMD_KEY_KALSHI_API_SECRET", signing_pem())
    err = run("list", "kalshi-prod")[2]  # since when is known to the database alone, and so whether it has expired
    assert "the database was not asked (cannot read the keys of 'kalshi-prod'" in err
    assert "mark" not in err
    file = home / "environments" / "k.yaml"
    file.write_text(file.read_text().replace("{type: local}", "{type: kubernetes}"))
    monkeypatch.delenv("SSMD_KEY_KALSHI_API_KEY")
    assert "what only it knows of them is not shown" in run("list", "kalshi-prod")[2]
    (home / "cert.pem").write_bytes(certificate())
    sealed = ["--from-file", f"access_key={__file__}", "--from-file", f"secret_key={__file__}", "--cert", "cert.pem"]
    err = run("set", "kalshi-prod", "storage", *sealed)[2]
    assert "audit rows wait for it" in err
