"""What `ssmd doctor` looks at: this machine, what is installed, and what the environment needs. Changes nothing."""

import ctypes
import importlib.metadata
import os
import pwd
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from ssmd.errors import SsmdError
from ssmd.local.airflow_server import INSTALL, require_installed
from ssmd.local.home import Home
from ssmd.local.plan import Plan
from ssmd.local.ports import problem
from ssmd.local.postgres import SERVICE_USERS, wheel_folder
from ssmd.local.valkey_server import MAX_MEMORY, find_server
from ssmd.middleware.storage.interface import Storage

PYTHON = ((3, 11), (3, 14))
LOW_BYTES, SCARCE_BYTES = 1 << 30, 10 << 30
SYNC_GOOD_MS = 50.0
_SYNCS = 20
_NOT_SYNCHRONIZED = 5  # adjtimex(2): TIME_ERROR


class Check(msgspec.Struct, frozen=True):
    """One line of the doctor's report; `fix` is what to do when `state` is not `good`."""

    name: str
    state: Literal["good", "warning", "bad"]
    detail: str
    fix: str = ""


def machine_checks(plan: Plan, home: Home, spool: Path) -> Iterator[Check]:
    """Everything that can be looked at without a server."""
    yield check_python()
    yield check_packages(Path(__file__).parents[2] / "requirements" / "local.txt")
    yield from check_ports(plan, home)
    yield check_disk(home.root)
    yield check_clock()
    if plan.nats:
        yield check_nats_durability(home)
    if plan.postgres:
        yield check_postgres_user()
    if plan.valkey:
        yield check_valkey()
    if plan.airflow:
        yield check_airflow()
    yield check_spool(spool)


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Is this a Python that ssmd is tested with?"""
    detail = ".".join(map(str, version))
    if PYTHON[0] <= version[:2] < PYTHON[1]:
        return Check("python", "good", detail)
    return Check("python", "bad", detail, "Use Python 3.11, 3.12 or 3.13: make setup PYTHON=python3.12")


def check_packages(lock: Path) -> Check:
    """Are the locked versions installed?"""
    if not lock.is_file():
        return Check("packages", "warning", f"no lock file {lock} here to compare with", "Run it in the checkout.")
    wanted = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: *; *(.*?))? *\\?$", lock.read_text(), re.MULTILINE)
    wrong = []
    for name, version, condition in wanted:
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if not condition:  # only on other platforms or Python versions
                wrong.append(f"{name} is missing")
            continue
        if found != version and not condition:
            wrong.append(f"{name} {found} instead of {version}")
    if wrong:
        return Check("packages", "warning", "; ".join(wrong[:5]) + (" …" if len(wrong) > 5 else ""), f"Run: {INSTALL}")
    return Check("packages", "good", f"{len(wanted)} package{'' if len(wanted) == 1 else 's'} as locked")


def check_ports(plan: Plan, home: Home) -> Iterator[Check]:
    """Is every address free, or held by our own stack?"""
    record = home.read_record()
    ours = record is not None and record.supervisord.alive
    for listener in plan.listeners:
        taken = problem(listener)
        where = f"{listener.host}:{listener.port}"
        if not taken:
            yield Check(f"port {listener.program}", "good", f"{where} is free")
        elif ours:
            yield Check(f"port {listener.program}", "good", f"{where} is in use by this stack")
        else:
            yield Check(f"port {listener.program}", "bad", taken, f"Stop that program, or change {listener.setting}.")


def check_disk(folder: Path) -> Check:
    """Is there room for the archive?"""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    detail = f"{free / (1 << 30):.1f} GiB free for {folder}"
    if free < LOW_BYTES:
        return Check("disk", "bad", detail, "Free some space, or set SSMD_HOME to a folder on another disk.")
    if free < SCARCE_BYTES:
        return Check("disk", "warning", detail, "A busy day of Kalshi takes several GiB before compression.")
    return Check("disk", "good", detail)


def check_clock() -> Check:
    """Does somebody keep the wall clock right? Receive times are stamped with it."""
    buffer = ctypes.create_string_buffer(512)  # struct timex, all zero: only ask
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        state = libc.adjtimex(buffer)
    except AttributeError:
        state = -1
    began = time.time_ns() - time.monotonic_ns()
    time.sleep(0.05)
    drift_ms = abs(time.time_ns() - time.monotonic_ns() - began) / 1e6
    if drift_ms > 5:
        return Check("clock", "bad", f"stepped by {drift_ms:.0f} ms while we looked", "Let NTP slew it (chrony).")
    if state == _NOT_SYNCHRONIZED or state < 0:
        return Check(
            "clock", "warning", "the system does not say that it is synchronized", "Run chrony or systemd-timesyncd."
        )
    return Check("clock", "good", "synchronized")


def check_nats_durability(home: Home) -> Check:
    """What would a power cut take from the stream?"""
    try:
        found = re.search(r"sync_interval: (\w+)", (home.run / "nats.conf").read_text())
    except OSError:
        found = None
    said = found[1] if found else ""
    if not said:
        return Check("nats", "good", "not started here yet; `ssmd up` sets sync_interval: 1s")
    if said in ("always", "1s"):
        return Check(
            "nats", "good", f"sync_interval {said}: a power cut costs the stream at most that; the spool has it"
        )
    return Check("nats", "warning", f"sync_interval {said}", "Run: ssmd down, then ssmd up (it writes 1s).")


def check_valkey() -> Check:
    """Is there a server for the cache?"""
    try:
        program = find_server()
    except SsmdError as error:
        return Check("valkey", "bad", error.message, error.hint)
    return Check("valkey", "good", f"{program.name} is installed; it keeps at most {MAX_MEMORY}, nothing on disk")


def check_airflow() -> Check:
    """Is the Airflow installed that the DAGs are made for?"""
    try:
        version = require_installed()
    except SsmdError as error:
        return Check("airflow", "bad", error.message, error.hint)
    return Check("airflow", "good", f"{version} is installed")


def check_postgres_user() -> Check:
    """PostgreSQL refuses to run as root: is there somebody else?"""
    try:
        wheel_folder()
    except SsmdError as error:
        return Check("postgres", "bad", error.message, error.hint)
    if os.geteuid() != 0:
        return Check("postgres", "good", "runs as the present user")
    users = {entry.pw_name for entry in pwd.getpwall()}
    name = next((name for name in SERVICE_USERS if name in users), None)
    if name is None:
        return Check(
            "postgres", "bad", "it does not run as root, and there is nobody else", "useradd --system postgres"
        )
    return Check("postgres", "good", f"runs as {name}, since we are root")


def check_spool(folder: Path) -> Check:
    """How long does the disk take to make a frame durable?"""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            times = [_sync_ms(file.fileno()) for _ in range(_SYNCS)]
    except OSError as error:
        return Check(
            "spool", "bad", f"{folder}: {error.strerror}", "Make it writable, or change spec.connector.spool.path."
        )
    median, worst = statistics.median(times), max(times)
    detail = f"fdatasync takes {median:.1f} ms, at most {worst:.1f} ms, in {folder}"
    if median > SYNC_GOOD_MS:
        return Check("spool", "warning", detail, "Put spec.connector.spool.path on a faster local disk.")
    return Check("spool", "good", detail)


def _sync_ms(descriptor: int) -> float:
    os.write(descriptor, b"x" * 4096)
    began = time.perf_counter()
    os.fdatasync(descriptor)
    return (time.perf_counter() - began) * 1000


async def check_storage(storage: Storage, bucket: str, where: str) -> Check:
    """Do objects appear once? The second of two conditional writes must be refused."""
    key = f"_doctor/{os.urandom(8).hex()}"
    try:
        await storage.ping()
        first = await storage.put_once(bucket, key, b"first")
        second = await storage.put_once(bucket, key, b"second")
        kept = await storage.get(bucket, key)
        await storage.delete(bucket, key)
    except SsmdError as error:
        return Check("storage", "bad", error.message, error.hint)
    if (first, second, kept) != (True, False, b"first"):
        return Check("storage", "bad", f"{where} overwrote an object", "Use a store that supports If-None-Match: *.")
    return Check("storage", "good", f"{where}: conditional writes work")
