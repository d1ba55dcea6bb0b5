"""A checker that cannot go red is a defect: a correct archive is green, and each planted fault names its rule."""

import ast
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checker.check import check, main
from tests.checker.conftest import MS, START_NS, Line, World, gap
from tests.checker.model import Fault

FAULTS = [Fault(START_NS + 500 * MS, START_NS + 1_600 * MS), Fault(START_NS + 1_700 * MS, START_NS + 1_800 * MS)]


def rules_of(world: World) -> set[str]:
    return check([world.ledger], world.storage, faults=FAULTS).rules


def test_a_correct_archive_is_green(world: World) -> None:
    world.write_ledger()
    world.write_archive()

    result = check([world.ledger], world.storage, faults=FAULTS)

    assert [str(finding) for finding in result.findings] == []
    assert result.missing == 3
    assert result.archive.count == len(world.lines) - 3


def lose_a_record(world: World) -> None:
    lines = [line for line in world.archived("orderbook", 0) if line.n != 20 or line.archived != "c-1"]
    world.write_object("orderbook-00", lines)


def lose_the_last_record_of_a_connection(world: World) -> None:
    """The gap after it begins too late to cover it: the numbering cannot show this one."""
    last = max((line for line in world.lines if line.sent == "x-1"), key=lambda line: line.n)
    for number in (0, 1):
        lines = [line for line in world.archived("orderbook", number) if line is not last]
        world.write_object(f"orderbook-{number:02d}", lines)


def double_a_record(world: World) -> None:
    lines = world.archived("orderbook", 0)
    world.write_object("orderbook-00", [*lines[:5], lines[4], *lines[5:]])


def double_a_record_with_a_number_of_its_own(world: World) -> None:
    last = max((line for line in world.lines if line.archived == "c-2"), key=lambda line: line.n)
    lines = world.archived("orderbook", 1)
    copy = replace(lines[-1], n=last.n + 1, t_ns=last.t_ns + 20 * MS)
    world.write_object("orderbook-01", [*lines, copy])


def swap_two_records(world: World) -> None:
    lines = world.archived("orderbook", 0)
    lines[3], lines[4] = lines[4], lines[3]
    world.write_object("orderbook-00", lines)


def swap_two_frames_under_their_numbers(world: World) -> None:
    lines = world.archived("orderbook", 0)
    third, fourth = lines[3], lines[4]
    lines[3], lines[4] = replace(third, frame=fourth.frame), replace(fourth, frame=third.frame)
    world.write_object("orderbook-00", lines)


def flip_a_bit_of_a_frame(world: World) -> None:
    lines = world.archived("trades", 1)
    frame = bytearray(lines[1].frame)
    frame[frame.index(b"0.5200") + 3] ^= 0x01
    lines[1] = replace(lines[1], frame=bytes(frame))
    world.write_object("trades-01", lines)


def add_whitespace_to_a_frame(world: World) -> None:
    lines = world.archived("trades", 0)
    lines[0] = replace(lines[0], frame=lines[0].frame.replace(b'"sid":2', b'"sid": 2'))
    world.write_object("trades-00", lines)


def invent_a_record(world: World) -> None:
    lines = world.archived("control", 1)
    last = max((line for line in world.lines if line.archived == "c-2"), key=lambda line: line.n)
    frame = b'{"type":"ok","id":9,"msg":[]}'
    invented = Line("x-2", "c-2", last.n + 1, "ok", None, None, frame, last.t_ns + MS)
    world.write_object("control-01", [*lines, invented])


def widen_the_gap_between_connections(world: World) -> None:
    """It ends twenty seconds after the new connection came up."""
    original = next((world.day / "_gaps").glob("*-c-1.json"))
    row = json.loads(original.read_text())
    original.unlink()
    row["to_ns"] += 20_000 * MS
    (world.day / "_gaps" / f"{row['to_ns']}-c-1.json").write_text(json.dumps(row))


def widen_the_sequence_gap(world: World) -> None:
    """It covers frames that are archived."""
    original = next((world.day / "_gaps").glob("*-c-2.json"))
    row = json.loads(original.read_text())
    original.write_text(json.dumps({**row, "from_ns": row["from_ns"] - 130 * MS}))


def invent_a_gap(world: World) -> None:
    row = gap("c-9", None, START_NS + 60_000 * MS, START_NS + 60_001 * MS, "silence")
    (world.day / "_gaps" / f"{row['to_ns']}-c-9.json").write_text(json.dumps(row))


def delete_the_sequence_gap(world: World) -> None:
    next((world.day / "_gaps").glob("*-c-2.json")).unlink()


def give_the_sequence_gap_another_sid(world: World) -> None:
    original = next((world.day / "_gaps").glob("*-c-2.json"))
    original.write_text(json.dumps({**json.loads(original.read_text()), "sid": 2}))


def delete_a_manifest(world: World) -> None:
    (world.day / "_manifest" / "trades-01.json").unlink()


def delete_an_object(world: World) -> None:
    (world.day / "trades-01.jsonl.zst").unlink()


def truncate_an_object(world: World) -> None:
    file = world.day / "orderbook-01.jsonl.zst"
    file.write_bytes(file.read_bytes()[:-9])


def cut_an_object_between_two_zstd_frames(world: World) -> None:
    """Every zstd frame that is left is whole: only the manifest and the ledger tell."""
    world.write_object("orderbook-01", world.archived("orderbook", 1)[:14])
    short = (world.day / "orderbook-01.jsonl.zst").read_bytes()
    world.write_object("orderbook-01", world.archived("orderbook", 1))
    (world.day / "orderbook-01.jsonl.zst").write_bytes(short)


def flip_a_bit_of_an_object(world: World) -> None:
    file = world.day / "orderbook-01.jsonl.zst"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def miscount_the_records(world: World) -> None:
    lines = world.archived("trades", 0)
    world.write_object("trades-00", lines, records=len(lines) + 1)


def miscount_the_connections(world: World) -> None:
    world.write_object("trades-00", world.archived("trades", 0), connections={})


def leave_a_half_written_file(world: World) -> None:
    (world.day / "trades-02.jsonl.zst.tmp").write_bytes(b"\x28\xb5\x2f\xfd")


def put_a_record_on_the_wrong_day(world: World) -> None:
    folder = world.day.parent / "12"
    (folder / "_manifest").mkdir(parents=True)
    text = (world.day / "_manifest" / "trades-01.json").read_text()
    (folder / "_manifest" / "trades-01.json").write_text(text.replace("/08/11/", "/08/12/"))
    (world.day / "trades-01.jsonl.zst").rename(folder / "trades-01.jsonl.zst")
    (world.day / "_manifest" / "trades-01.json").unlink()


@pytest.mark.parametrize(
    ("mutate", "rule"),
    [
        (lose_a_record, "I1"),
        (lose_a_record, "N"),
        (lose_the_last_record_of_a_connection, "I1"),
        (double_a_record, "I2"),
        (double_a_record_with_a_number_of_its_own, "I2"),
        (swap_two_records, "I3"),
        (swap_two_frames_under_their_numbers, "I3"),
        (flip_a_bit_of_a_frame, "I4"),
        (flip_a_bit_of_a_frame, "I1"),
        (add_whitespace_to_a_frame, "I4"),
        (invent_a_record, "I4"),
        (widen_the_gap_between_connections, "I5"),
        (widen_the_sequence_gap, "I5"),
        (invent_a_gap, "I5"),
        (delete_the_sequence_gap, "I1"),
        (give_the_sequence_gap_another_sid, "I1"),
        (delete_a_manifest, "I9"),
        (delete_an_object, "I9"),
        (delete_an_object, "I1"),
        (truncate_an_object, "I9"),
        (cut_an_object_between_two_zstd_frames, "I9"),
        (cut_an_object_between_two_zstd_frames, "I1"),
        (flip_a_bit_of_an_object, "I9"),
        (miscount_the_records, "I9"),
        (miscount_the_connections, "I9"),
        (leave_a_half_written_file, "I9"),
        (put_a_record_on_the_wrong_day, "I9"),
    ],
)
def test_a_planted_fault_is_found(world: World, mutate: Callable[[World], None], rule: str) -> None:
    world.write_ledger()
    world.write_archive()
    assert rules_of(world) == set()

    mutate(world)

    assert rule in rules_of(world)


def test_identical_frames_are_told_apart_by_their_neighbours(world: World) -> None:
    """The same bytes are sent thrice on one connection and the middle one is lost in the gap: no false alarm."""
    text = b'{"type":"orderbook_delta","sid":1,"note":"same bytes every time"}'
    second = [line for line in world.lines if line.sent == "x-2" and line.sid == 1]
    for seq in (5, 11, 30):
        line = next(line for line in second if line.seq == seq)
        line.frame = text
    world.write_ledger()
    world.write_archive()

    result = check([world.ledger], world.storage, faults=FAULTS)

    assert [str(finding) for finding in result.findings] == []


def test_frames_sent_after_the_end_need_not_be_archived(world: World) -> None:
    last = world.lines[-1]
    late = replace(last, n=last.n + 1, seq=41, frame=b'{"late":true}', t_ns=last.t_ns + 10 * MS, lost=True)
    world.lines.append(late)
    world.write_ledger()
    world.write_archive()

    assert rules_of(world) == {"I1"}
    assert check([world.ledger], world.storage, faults=FAULTS, ignore_after_ns=last.t_ns).rules == set()


def test_a_connection_that_never_got_into_the_archive_must_lie_in_a_gap(world: World) -> None:
    """Accepted, then killed: its frames were sent between the two known connections."""
    at = START_NS + 1_000 * MS
    lines = [
        Line("x-lost", "", 0, "subscribed", None, None, b'{"type":"subscribed","only":"here"}', at + index, lost=True)
        for index in range(3)
    ]
    world.lines += lines
    world.write_ledger()
    world.write_archive()
    assert rules_of(world) == set()

    next((world.day / "_gaps").glob("*-c-1.json")).unlink()

    assert rules_of(world) == {"I1"}


def test_the_command_prints_a_table_and_says_whether_all_is_well(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.write_ledger()
    world.write_archive()
    arguments = ["--ledger", str(world.ledger), "--storage", str(world.storage), "--fault"]
    arguments += [f"{fault.start_ns}:{fault.end_ns}" for fault in FAULTS]

    assert main(arguments) == 0
    lose_a_record(world)
    assert main(arguments) == 1
    assert "✗ I1" in capsys.readouterr().out


def test_the_checker_imports_nothing_of_ssmd() -> None:
    for file in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []

            assert not [name for name in names if name.partition(".")[0] == "ssmd"], file.name
