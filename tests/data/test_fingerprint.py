"""The fingerprint of data: a change is noticed, a copy is not one, and a sample says that it is a sample."""

import os
import shutil
from types import SimpleNamespace

import pytest

from activelr_service.data import fingerprint
from activelr_service.data.fingerprint import Fingerprint, compare_data, take_fingerprint


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    for name in ("a/1.txt", "a/2.txt", "b/1.txt", ".cache/x", "cache-123.arrow"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the text of {name}")
        os.utime(folder / name, (10, 10))
    return folder


def compare(folder, before):
    return compare_data(SimpleNamespace(root=str(folder)), Fingerprint.from_json(before._asdict()))


def taken(folder):
    return take_fingerprint(SimpleNamespace(root=str(folder)))


def rewrite(path, text):
    path.write_text(text)


CHANGES = {
    "another value of the same length": (
        lambda folder: rewrite(folder / "a/1.txt", "THE TEXT OF a/1.txt"),
        "the files have the same names and sizes and hold something else",
    ),
    "a longer file": (
        lambda folder: rewrite(folder / "a/1.txt", "the text of a/1.txt and more"),
        "there were 3 files, 57 bytes; now there are 3 files, 66 bytes",
    ),
    "one file more": (lambda folder: rewrite(folder / "b/2.txt", "new"), "now there are 4 files"),
    "another name": (lambda folder: (folder / "a/1.txt").rename(folder / "a/3.txt"), "files have other names or sizes"),
    "nothing left": (shutil.rmtree, "and there is none now"),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_noticed_and_said(folder, change, expected):
    before = taken(folder)
    assert before.describe() == "3 files, 57 bytes", "hidden files and caches are no data"
    change(folder)
    assert expected in compare(folder, before).change


def test_a_copy_in_another_place_and_other_hidden_files_are_no_change(folder, tmp_path):
    before = taken(folder)
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    (tmp_path / "copy" / ".DS_Store").write_text("x")
    assert compare(tmp_path / "copy", before) == ("", "")


def test_of_many_files_a_sample_is_read_and_that_is_said(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "READ_WHOLE", 20)
    before = taken(folder)
    assert before.is_sample
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    assert "a sample of what they hold is the same" in compare(tmp_path / "copy", before).doubt
    rewrite(folder / "b/1.txt", "THE TEXT OF b/1.txt")
    assert compare(folder, before).change == "1 of 3 files were modified since"


def test_a_single_file_is_known_by_its_content(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    config = SimpleNamespace(path=str(tmp_path / "t.csv"), val_path=None)
    before = take_fingerprint(config)
    (tmp_path / "t.csv").write_text("a,b\n1,3\n")
    assert "hold something else" in compare_data(config, before).change
    assert take_fingerprint(SimpleNamespace(type="digits")) is None
