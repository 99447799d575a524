"""The journal: read as it grows, each line once; a damaged one is named, and nothing of it that can be read is lost."""

import pytest

from activelr_service.errors import RunDamagedError
from activelr_service.runs.journal import JournalReader, append_journal, read_journal, salvage_journal, write_journal
from activelr_service.runs.record import Record


def record(epoch):
    return Record(epoch, 10 * epoch, 1000 + epoch, {"val/loss": 1 / epoch}, [])


def test_a_growing_journal_is_read_line_by_line_and_a_replaced_one_from_its_start(tmp_path):
    path = tmp_path / "journal.jsonl"
    reader = JournalReader(path)
    assert reader.read() == []
    for epoch in (1, 2, 3):
        append_journal(path, record(epoch))
        assert reader.read() == [record(n) for n in range(1, epoch + 1)]
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"epoch": 4, "glo')
    assert reader.read() == read_journal(path) == [record(1), record(2), record(3)]
    write_journal(path, [record(1)])
    assert reader.read() == [record(1)]


def test_a_line_that_was_cut_off_does_not_take_the_next_one_with_it(tmp_path):
    path = tmp_path / "journal.jsonl"
    append_journal(path, record(1))
    path.write_bytes(path.read_bytes() + b'{"epoch": 2, "glo')
    append_journal(path, record(3))
    assert salvage_journal(path) == [record(1), record(3)]


@pytest.mark.parametrize("garbage", [b"\0" * 40, b"no json", b"[1, 2]", b'{"epoch": 2}', b"\xff\xfe", b"17"])
def test_a_damaged_line_is_named_and_the_others_are_salvaged(tmp_path, garbage):
    path = tmp_path / "journal.jsonl"
    append_journal(path, record(1))
    path.write_bytes(path.read_bytes() + garbage + b"\n")
    append_journal(path, record(3))
    with pytest.raises(RunDamagedError, match=r"line 2 of .*journal.jsonl is damaged: .*; resuming the run"):
        read_journal(path)
    assert salvage_journal(path) == [record(1), record(3)]
