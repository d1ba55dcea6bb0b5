"""Log files that their own writers keep open are made small in place."""

from pathlib import Path

from ssmd.local.rotation import rotate


def test_a_large_file_is_copied_and_emptied_and_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("a") as writer:
        for number in range(5):
            writer.write(f"{number}" * 11)
            writer.flush()
            assert rotate(log, max_bytes=10, backups=3)
        writer.write("last")
        writer.flush()

    assert log.read_text() == "last"
    assert [Path(f"{log}.{number}").read_text()[0] for number in (1, 2, 3)] == ["4", "3", "2"]
    assert not Path(f"{log}.4").exists()


def test_a_small_file_and_one_that_is_not_there_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("0123456789")

    assert not rotate(tmp_path / "a.log", max_bytes=10)
    assert not rotate(tmp_path / "b.log", max_bytes=10)
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]
