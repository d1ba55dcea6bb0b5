"""The schemas folder as an outside reader meets it: each file alone, the README's example, fixed ids."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import zstandard

from ssmd.market.events import EVENT_TYPES
from ssmd.resources import resource
from ssmd.wire.normalized import encode
from tests.unit.wire.reference import SAMPLES

SCHEMAS = resource("schemas")
IDS = {
    "trade": "@0x8e2ea5d2c5aff2c0",
    "orderbook": "@0x8e43076c0cd11a4a",
    "ticker": "@0xc4741755ef644035",
    "status": "@0xd0abc13f6c19076d",
    "gap": "@0x866dbf7dc3419633",
}


def run_python(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_one_file_per_event_type_with_its_fixed_id() -> None:
    found = {path.stem: path.read_text().partition(";")[0] for path in SCHEMAS.glob("*.capnp")}

    assert found == IDS
    assert set(found) == set(EVENT_TYPES)


def test_each_file_can_be_read_alone(tmp_path: Path) -> None:
    for event_type, cls in EVENT_TYPES.items():
        (tmp_path / "alone.capnp").write_bytes((SCHEMAS / f"{event_type}.capnp").read_bytes())
        shown = run_python(f"import capnp; print(capnp.load('alone.capnp').{cls.__name__}.schema.fieldnames)", tmp_path)

        assert "receivedTime" in shown


def test_the_readme_names_every_file_and_struct() -> None:
    readme = (SCHEMAS / "README.md").read_text()

    for event_type, cls in EVENT_TYPES.items():
        assert f"| `{event_type}.capnp` | `{cls.__name__}`" in readme


def test_the_readme_example_reads_a_file_of_several_zstd_frames(tmp_path: Path) -> None:
    trade = SAMPLES["trade"]
    messages = [encode(msgspec.structs.replace(trade, price=price)) for price in range(1, 6)]
    compress = zstandard.ZstdCompressor().compress
    (tmp_path / "data.capnp.zst").write_bytes(compress(b"".join(messages[:2])) + compress(b"".join(messages[2:])))
    (tmp_path / "schemas").symlink_to(SCHEMAS)
    example = re.search(r"```python\n(.*?)```", (SCHEMAS / "README.md").read_text(), re.DOTALL)
    assert example is not None

    lines = run_python(example[1], tmp_path).splitlines()

    assert [line.split()[2] for line in lines] == ["1", "2", "3", "4", "5"]
    assert all(line.endswith("9850000 sell") for line in lines)
