"""Text: every format becomes the same kind of stream, each token is predicted once, and odd files are named."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from tokenizers import Tokenizer

from activelr_service.data import build_data, inspect_data, prepare_data
from activelr_service.data.text import IGNORED
from activelr_service.data.text_encoding import END_OF_TEXT
from activelr_service.errors import JobError
from tests.data.generate_text import (
    articles,
    write_plain,
    write_saved_dataset,
    write_wikitext,
    write_wikitext_parquet,
)
from tests.data.test_data import data_config


def text_config(root, **changes):
    return data_config(**{"type": "text", "root": str(root), "block_size": 16, "vocab_size": 300, **changes})


def stream(config, split="train"):
    """(tokens of a split, tokenizer) of a prepared config."""
    meta = json.loads((Path(config.tokens) / "meta.json").read_text())
    tokens = np.fromfile(Path(config.tokens) / f"{split}.bin", meta["dtype"])
    assert len(tokens) == meta["tokens"][split]
    return tokens, Tokenizer.from_file(str(Path(config.tokens) / "tokenizer.json"))


@pytest.mark.parametrize("write", [write_wikitext, write_wikitext_parquet, write_saved_dataset, write_plain])
def test_every_format_is_counted_when_prepared_and_read_back_as_it_was(tmp_path, write):
    config = text_config(write(tmp_path / "text"))
    assert inspect_data(config).num_train is None
    prepared = prepare_data(config, tmp_path / "cache")
    info = inspect_data(prepared)
    train, val = build_data(prepared)
    assert (len(train), len(val)) == (info.num_train, info.num_val)
    assert info.num_train > info.num_val > 0
    assert info.vocab_size == 300
    tokens, tokenizer = stream(prepared)
    assert "café — naïve" in tokenizer.decode(tokens.tolist())


def test_the_text_is_kept_to_the_character_and_a_file_is_one_document(tmp_path):
    root = write_wikitext(tmp_path / "wiki")
    tokens, tokenizer = stream(prepare_data(text_config(root), tmp_path / "cache"))
    text = tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
    assert text == (root / "wiki.train.tokens").read_text() + END_OF_TEXT


def test_rows_of_a_table_are_documents_unless_they_are_lines(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    rows = ["one document", None, "", "a line\n", "", "its last line", "another"]
    parquet.write_table(pa.table({"text": rows}), folder / "train.parquet")
    parquet.write_table(pa.table({"text": ["x y z"]}), folder / "val.parquet")
    tokens, tokenizer = stream(prepare_data(text_config(folder), tmp_path / "cache"))
    documents = tokenizer.decode(tokens.tolist(), skip_special_tokens=False).split(END_OF_TEXT)
    assert documents == ["one document", "a line\nits last line", "another", "", ""][: len(documents)]


def test_each_token_but_the_first_is_the_label_of_one_position(tmp_path):
    prepared = prepare_data(text_config(write_wikitext(tmp_path / "wiki")), tmp_path / "cache")
    tokens, _ = stream(prepared)
    train, _ = build_data(prepared)
    inputs, labels = (torch.cat([row[part] for row in train]) for part in (0, 1))
    kept = labels != IGNORED
    assert labels[kept].tolist() == tokens[1:].tolist()
    assert inputs[kept].tolist() == tokens[:-1].tolist()
    assert 0 <= (~kept).sum() < 16


def test_the_tokenizer_sees_the_training_text_only(tmp_path):
    root = write_wikitext(tmp_path / "wiki")
    (root / "wiki.valid.tokens").write_text("zyzzyva " * 500)
    _, tokenizer = stream(prepare_data(text_config(root), tmp_path / "cache"))
    assert not [token for token in tokenizer.get_vocab() if "zyz" in token]


def test_of_many_documents_the_last_tenth_is_describe_val(tmp_path):
    lines = [json.dumps({"text": f"document number {number} " + "of some words " * 100}) for number in range(20)]
    (tmp_path / "stories.jsonl").write_text("\n".join(lines))
    prepared = prepare_data(text_config(tmp_path / "stories.jsonl"), tmp_path / "cache")
    notes = inspect_data(prepared).notes
    assert any(note.startswith("train: 18 documents") for note in notes), notes
    assert any(note.startswith("validation: 2 documents") for note in notes), notes
    tokens, tokenizer = stream(prepared, "validation")
    assert tokenizer.decode(tokens.tolist(), skip_special_tokens=False).startswith("document number 18 of")


def test_the_work_is_done_once_and_again_when_a_file_changes(tmp_path):
    root = write_wikitext(tmp_path / "wiki")
    first = prepare_data(text_config(root), tmp_path / "cache")
    assert prepare_data(text_config(root, block_size=32), tmp_path / "cache").tokens == first.tokens
    assert prepare_data(first, tmp_path / "nowhere") == first
    (root / "wiki.train.tokens").write_text("\n".join(articles(30, 7)))
    assert prepare_data(text_config(root), tmp_path / "cache").tokens != first.tokens
    gone = first.model_copy(update={"tokens": str(tmp_path / "gone")})
    assert Path(prepare_data(gone, tmp_path / "cache").tokens).is_dir()


def test_crlf_and_a_byte_order_mark_are_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n" * 1 + b"three four five\r\n" * 200)
    tokens, tokenizer = stream(prepare_data(text_config(tmp_path / "a.txt"), tmp_path / "cache"))
    assert tokenizer.decode(tokens.tolist()).startswith("one\ntwo\nthree")


def test_a_local_tokenizer_is_used_as_it_is(tmp_path):
    root = write_wikitext(tmp_path / "wiki")
    own = prepare_data(text_config(root), tmp_path / "cache")
    Tokenizer.from_file(str(Path(own.tokens) / "tokenizer.json")).model.save(str(tmp_path / "cache"))
    files = [tmp_path / "cache" / name for name in ("vocab.json", "merges.txt")]
    assert all(file.is_file() for file in files)
    for source in (own.tokens, f"{own.tokens}/tokenizer.json", tmp_path / "cache"):
        again = prepare_data(text_config(root, tokenizer=str(source)), tmp_path / "cache")
        assert stream(again)[0].tolist() == stream(own)[0].tolist()


def test_the_test_split_is_measured_when_asked_for(tmp_path):
    prepared = prepare_data(text_config(write_wikitext(tmp_path / "wiki")), tmp_path / "cache")
    test = prepared.model_copy(update={"eval_split": "test"})
    assert build_data(test)[1][0][0].tolist() == stream(prepared, "test")[0][:16].tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train.txt": b"fine " * 500 + b"\xff\xfe"}, "train.txt is not UTF-8: byte 2500 is not text"),
        ({"train.txt": b"caf\xc3"}, "train.txt is not UTF-8: byte"),
        ({"train.txt": b"fine " * 500, "val.txt": b""}, "the split 'validation' of"),
        ({"train.txt": b""}, "too little text to split a share off"),
        ({"val.txt": b"fine"}, "has no text to train on; found: val.txt"),
        ({"readme.md": b"fine"}, "has no text to train on; found: no file that ends with .txt"),
        ({"train.parquet": b"PAR1 not really"}, "train.parquet cannot be read"),
    ],
)
def test_text_that_cannot_be_used_is_refused_by_name(tmp_path, content, message):
    root = tmp_path / "text"
    root.mkdir()
    for name, data in content.items():
        (root / name).write_bytes(data)
    with pytest.raises(JobError) as caught:
        prepare_data(text_config(root), tmp_path / "cache")
    assert message in str(caught.value)
    assert not list((tmp_path / "cache").glob("text-*/meta.json"))


def test_a_column_that_is_not_there_is_named(tmp_path):
    with pytest.raises(JobError, match=r"data\.text_column: .* has no column 'body'; it has text"):
        prepare_data(text_config(write_wikitext_parquet(tmp_path / "w"), text_column="body"), tmp_path / "cache")
