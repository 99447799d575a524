"""Splits of text told from names, and text that is read or refused as what it is."""

import gzip
import json

import pytest

from activelr_service.data import check_files, inspect_data, prepare_data
from activelr_service.data.text_splits import find_splits
from activelr_service.errors import JobError
from tests.data.generate_text import articles
from tests.data.test_text import stream, text_config

TEXT = "\n".join(articles(4))


def write(root, names, text=TEXT):
    """Files below ``root``: a list of names, or the bytes of each."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(names[name] if isinstance(names, dict) else text.encode())
    return text_config(root)


def splits(root, names):
    """The names of the files of each split below ``root``, and what is warned of."""
    found = find_splits(write(root, names))
    return {split: [str(path.relative_to(root)) for path in paths] for split, paths in found.files.items()}, "\n".join(
        found.warnings
    )


@pytest.mark.parametrize(
    "names",
    [
        {"train": ["wiki.train.tokens"], "validation": ["wiki.valid.tokens"], "test": ["wiki.test.tokens"]},
        {"train": ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], "test": ["test-00000-of-00001.parquet"]},
        {"train": ["train.jsonl"], "validation": ["validation.jsonl"]},
        {"train": ["Train.TXT"], "validation": ["DEV.txt"]},
        {"train": ["my_corpus_train.txt"], "test": ["my_corpus_test.txt"]},
        {"train": ["de_train.txt", "en_train.txt"], "validation": ["en_val.txt"]},
        {"train": ["train/a.txt", "train/b.txt"], "validation": ["val/a.txt"], "test": ["test/a.txt"]},
        {"train": ["en/Training/x.txt"], "validation": ["en/Valid/x.txt"]},
        {"train": ["books_train.txt"], "validation": ["news_val.txt"]},
        {"train": ["c4-train.00000-of-00010.jsonl.gz"], "validation": ["c4-validation.00000-of-00001.jsonl.gz"]},
    ],
)  # fmt: skip
def test_names_that_people_give_to_splits_are_told(tmp_path, names):
    found, warnings = splits(tmp_path, [name for files in names.values() for name in files])
    assert found == names
    assert not warnings


@pytest.mark.parametrize(
    "titles",
    [
        ["emma.txt", "moby dick.txt", "the night train to lisbon.txt", "ulysses.txt"],
        ["emma.txt", "test of time.txt"],
        ["crash_test.txt", "emma.txt", "night_train.txt"],
        ["a valid point.txt", "strangers on a train.txt"],
        ["val d'isere.txt"],
    ],
)
def test_words_in_titles_are_no_splits(tmp_path, titles):
    found, _ = splits(tmp_path, titles)
    assert found == {"train": titles}
    assert any("taken as titles" in note for note in find_splits(text_config(tmp_path)).notes)


def test_files_beside_splits_are_left_out_or_trained_on_with_a_warning(tmp_path):
    found, warnings = splits(tmp_path / "a", ["train.txt", "val.txt", "emma.txt"])
    assert found == {"train": ["train.txt"], "validation": ["val.txt"]}
    assert "left out, since their names tell no split" in warnings
    found, warnings = splits(tmp_path / "b", ["corpus.txt", "valid.txt"])
    assert found == {"train": ["corpus.txt"], "validation": ["valid.txt"]}
    assert "taken as text to train on" in warnings
    found, warnings = splits(tmp_path / "c", ["train.parquet", "about.txt"])
    assert found == {"train": ["train.parquet"]}
    assert "left out, beside files of another format: 1 .txt" in warnings


def test_hidden_files_are_no_text_and_other_files_are_counted(tmp_path):
    config = write(tmp_path, ["a.txt", ".ipynb_checkpoints/a-checkpoint.txt", "._a.txt", "__MACOSX/a.txt", "b.pdf"])
    found = find_splits(config)
    assert [path.name for path in found.files["train"]] == ["a.txt"]
    assert any("left out, since they are no text that is read: 1 .pdf" in note for note in found.notes)


def rows(count):
    return "".join(
        json.dumps({"text": f"Row {number}:\n{TEXT[:300]}\n", "n": number}) + "\n" for number in range(count)
    )


@pytest.mark.parametrize("name", ["a.jsonl", "A.NDJSON", "a.jsonl.gz", "a.txt.gz", "a.TXT"])
def test_json_lines_compressed_files_and_capitals_are_read(tmp_path, name):
    content = rows(20).encode() if "JSON" in name.upper() else TEXT.encode()
    prepared = prepare_data(
        write(tmp_path, {name: gzip.compress(content) if "gz" in name else content}), tmp_path / "c"
    )
    tokens, tokenizer = stream(prepared)
    text = tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
    if "JSON" in name.upper():
        assert text.startswith(f"Row 0:\n{TEXT[:300]}\n<|endoftext|>Row 1:\n")
    else:
        assert TEXT.startswith(text[:1000])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "utf-16-le", "latin-1", "cp1252"])
def test_other_encodings_are_read_by_their_mark_or_as_the_job_says(tmp_path, encoding):
    config = write(tmp_path, {"a.txt": TEXT.replace("—", "-").encode(encoding)})
    if encoding in ("utf-16-le", "latin-1", "cp1252"):
        with pytest.raises(JobError, match=r"set data\.encoding"):
            check_files(config, 10)
        config = config.model_copy(update={"encoding": encoding})
    check_files(config, 10)
    tokens, tokenizer = stream(prepare_data(config, tmp_path / "c"))
    assert "café - naïve" in tokenizer.decode(tokens.tolist())
    with pytest.raises(JobError, match=r"data\.encoding: 'utf8000' is no encoding"):
        inspect_data(text_config(tmp_path, encoding="utf8000"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a.txt": b"fine " * 9 + b"caf\xe9 "},
            r"a\.txt is not UTF-8: byte 48 is not text \(0xe9\); set data\.encoding",
        ),
        ({"a.txt": b"\x7fELF\0\0\1"}, r"a\.txt holds bytes of value 0 .*if it is no text, take it out"),
        ({"a.jsonl": b'{"text": "x"}\n{"text": \n'}, r"line 2 of .*a\.jsonl is not JSON"),
        ({"a.jsonl": b'{"body": "x"}\n'}, r"data\.text_column: line 1 of .* has no column 'text'; it has body"),
        ({"a.jsonl": b'{"text": 3}\n'}, r"line 1 of .*: 'text' is no text, got 3"),
        ({"a.jsonl": b"[1]\n"}, r"line 1 of .* is no JSON object"),
        ({"a.jsonl": b'{"text": "\\ud83d"}\n'}, r"line 1 of .* holds half of a character"),
        ({"a.txt.gz": b"not gzip"}, r"a\.txt\.gz cannot be read"),
    ],
)
def test_what_is_no_text_is_refused_before_a_training(tmp_path, files, message):
    with pytest.raises(JobError, match=message) as caught:
        check_files(write(tmp_path, files), 10)
    assert "\n" not in str(caught.value)


def test_an_empty_split_is_named_with_the_remedy(tmp_path):
    with pytest.raises(JobError, match=r"the split 'validation' of .* holds no text: .*val\.txt; fill or remove it"):
        prepare_data(write(tmp_path, {"train.txt": TEXT.encode(), "val.txt": b""}), tmp_path / "c")


def test_what_was_read_is_said_after_it_was_prepared(tmp_path):
    same = {f"{split}/{name}.txt": TEXT.encode() for split in ("train", "val", "test") for name in "ab"}
    config = write(tmp_path / "text", same)
    assert any("text of the train split: 2 files" in note for note in inspect_data(config).notes)
    info = inspect_data(prepare_data(config, tmp_path / "c"))
    text = "\n".join(info.notes)
    for part in (
        "train: 2 documents, ",
        "trained on the training text, 300",
        "test: the test split; measured once, at the end",
        "validation: the val",
    ):
        assert part in text
    assert "documents of the validation split that are in the training text too: 1" in info.warnings
    alone = inspect_data(prepare_data(write(tmp_path / "one", ["emma.txt"]), tmp_path / "c"))
    share = "the last 10% of the text, in pieces of about 1,024 characters"
    assert f"validation: {share}, since there is no validation split" in alone.notes


def test_a_file_of_an_unknown_suffix_is_said_to_be_read_as_plain_text(tmp_path):
    for name, is_said in (("a.json", True), ("a.txt", False)):
        write(tmp_path, [name])
        notes = find_splits(text_config(tmp_path / name)).notes
        assert ("read as plain text" in notes[0]) == is_said


def test_another_root_is_encoded_and_not_measured_as_the_old_one(tmp_path):
    prepared = prepare_data(write(tmp_path / "one", ["emma.txt"]), tmp_path / "c")
    write(tmp_path / "two", ["ulysses.txt"], "\n".join(articles(4, 9)))
    other = prepare_data(prepared.model_copy(update={"root": str(tmp_path / "two")}), tmp_path / "c")
    assert other.tokens != prepared.tokens


def test_an_encoding_of_two_bytes_is_refused_for_text_of_one(tmp_path):
    config = write(tmp_path, ["emma.txt"]).model_copy(update={"encoding": "utf-16-le"})
    with pytest.raises(JobError, match=r"data\.encoding: .* holds no zero byte"):
        check_files(config, None)
