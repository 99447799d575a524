"""activelr predict: files of every kind in, a table of answers out; bad rows are named and the others are answered."""

import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from activelr_service.cli import main
from activelr_service.errors import InputError
from activelr_service.inference import sources
from activelr_service.inference.predictor import Predictor
from activelr_service.inference.run import Options, predict_file
from activelr_service.service.predict import predict
from tests.data.generate_images import write_images
from tests.inference.conftest import export
from tests.inference.test_predictor import TINY_GPT, flowers


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    flowers().to_csv(folder / "flowers.csv", index=False)
    data = {"type": "table", "path": str(folder / "flowers.csv"), "target": "kind", "ignore": ["price"]}
    return Predictor.load(export(folder, data)[0])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "data")
    return Predictor.load(export(folder, {"type": "imagefolder", "root": str(folder / "data"), "image_size": 16})[0])


def answers_of(predictor, source, output, **options):
    predict_file(predictor, str(source), output, Options(**options))
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": read_json_lines}
    return read[output.suffix](output)


def read_json_lines(path):
    return pd.DataFrame(map(json.loads, path.read_text().splitlines()))  # pandas rounds


def write(rows, path):
    if path.suffix == ".parquet":
        rows.to_parquet(path)
    elif ".jsonl" in path.name:
        rows.to_json(path, orient="records", lines=True)
    else:
        rows.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.parquet", "a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_every_format_of_a_table_gives_the_answers_to_the_frame(predictor, tmp_path, name, suffix):
    rows = flowers(30, seed=1)
    answers = answers_of(predictor, write(rows, tmp_path / name), tmp_path / f"out{suffix}", keep=("price",))
    expected = predictor.predict(rows)
    assert answers.columns.tolist() == ["row", "price", *expected.columns, "error"]
    assert answers["row"].tolist() == list(range(1, 31))
    np.testing.assert_allclose(answers["price"].astype(float), rows["price"])
    assert answers["prediction"].tolist() == expected["prediction"].tolist()
    names = [column for column in expected.columns if column.startswith("probability_")]
    np.testing.assert_array_equal(answers[names], expected[names])


def test_a_table_read_in_pieces_has_the_answers_of_one_read_whole(predictor, tmp_path, monkeypatch):
    rows = flowers(5000, seed=2)
    lines = rows.astype(object).where(rows.notna(), "").to_csv(index=False).splitlines()
    lines[4001] += ",1,2"
    lines[4500] = "x" + lines[4500]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n1,2\n")
    whole = answers_of(predictor, tmp_path / "a.csv", tmp_path / "whole.csv", batch_size=64)
    monkeypatch.setattr(sources, "_multiple", lambda batch_size, least: 2 * batch_size)
    monkeypatch.setattr("activelr_service.inference.table_files._BLOCK_BYTES", 3000)
    pieces = answers_of(predictor, tmp_path / "a.csv", tmp_path / "pieces.csv", batch_size=64)
    pd.testing.assert_frame_equal(whole, pieces)
    assert len(pieces) == 5001
    assert pieces.index[pieces["error"].notna()].tolist() == [4000, 4499, 5000]
    assert pieces["error"][5000] == "the row has 2 values, and the header has 6"


def test_decimal_commas_semicolons_and_another_encoding_are_read_as_in_the_training(predictor, tmp_path):
    rows = flowers(20, seed=3)
    text = rows.to_csv(index=False, sep=";", decimal=",")
    (tmp_path / "a.csv").write_bytes(text.encode("utf-16"))
    answers = answers_of(predictor, tmp_path / "a.csv", tmp_path / "o.csv")
    assert answers["prediction"].tolist() == predictor.predict(rows)["prediction"].tolist()


def test_a_number_that_can_be_read_two_ways_is_read_as_those_trained_on(tmp_path):
    flowers().assign(length=lambda rows: rows["length"] * 1000).to_csv(tmp_path / "t.csv", index=False, sep=";")
    data = {"type": "table", "path": str(tmp_path / "t.csv"), "target": "kind", "ignore": ["price"]}
    predictor = Predictor.load(export(tmp_path, data)[0])
    row = flowers(1)
    read = predictor.to_tensors(row.assign(length="1,234"))
    assert read.tolist() == predictor.to_tensors(row.assign(length=1234.0)).tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.csv is empty"),
        ("length,width\n1,2\n", r"lacks columns that the model was trained on: 'color', 'grade'"),
        ("length,length,width,color,grade\n1,1,2,red,1\n", "more than one column 'length'"),
        ("length,width,color,grade\nlong,2,red,1\n", "none of the 1 rows of .* can be answered"),
    ],
)
def test_a_file_without_an_answer_is_one_message_and_no_output(predictor, tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        predict_file(predictor, str(tmp_path / "a.csv"), tmp_path / "o.csv", Options())
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_json_that_is_not_in_lines_is_refused(predictor, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps([{"length": 1}, {"length": 2}], indent=1))
    with pytest.raises(InputError, match="has no JSON object in any line; row 1: the line is no JSON"):
        predict_file(predictor, str(tmp_path / "a.jsonl"), tmp_path / "o.csv", Options())


def test_a_header_without_rows_gives_the_columns_of_the_answers(predictor, tmp_path, capsys):
    flowers(3).iloc[:0].to_csv(tmp_path / "a.csv", index=False)
    answers = answers_of(predictor, tmp_path / "a.csv", tmp_path / "o.csv", keep=("price",))
    assert answers.columns.tolist()[:3] == ["row", "price", "prediction"]
    assert len(answers) == 0
    assert "has no rows" in capsys.readouterr().err


def test_bad_rows_of_json_lines_are_named(predictor, tmp_path, capsys):
    good = {"length": 1.5, "width": None, "color": "red", "grade": 1}
    lines = [good, {**good, "length": "long"}, [1], {**good, "width": [1]}, {"length": 2}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{broken\n\n")
    answers = answers_of(predictor, tmp_path / "a.jsonl", tmp_path / "o.jsonl")
    assert answers["error"].notna().tolist() == [False, True, True, True, False, True]
    assert answers["prediction"].notna().tolist() == [True, False, False, False, True, False]
    assert "row 2: column 'length': 'long' is no number" in capsys.readouterr().err


def test_a_file_in_utf8_is_read_so_also_by_a_model_of_another_encoding(tmp_path):
    rows = flowers(60).assign(color=["røt", "blå"] * 30)
    rows.to_csv(tmp_path / "t.csv", index=False, encoding="cp1252")
    data = {"type": "table", "path": str(tmp_path / "t.csv"), "target": "kind", "encoding": "cp1252"}
    predictor = Predictor.load(export(tmp_path, {**data, "ignore": ["price"]})[0])
    rows.to_csv(tmp_path / "u.csv", index=False)
    first, second = (answers_of(predictor, tmp_path / name, tmp_path / f"o{name}") for name in ("t.csv", "u.csv"))
    pd.testing.assert_frame_equal(first, second)


def test_a_kept_column_that_changes_its_type_is_refused(predictor, tmp_path):
    rows = flowers(32769, seed=1)
    rows["id"] = [*range(32768), "last"]
    rows.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    with pytest.raises(InputError, match="--keep: a column has other values in later rows"):
        predict_file(predictor, str(tmp_path / "a.jsonl"), tmp_path / "o.parquet", Options(keep=("id",)))


def test_bytes_that_are_no_utf8_make_their_row_bad(predictor, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"length,width,color,grade\n1,2,red,1\n1,2,caf\xe9,1\n")
    answers = answers_of(predictor, tmp_path / "a.csv", tmp_path / "o.csv")
    assert answers["error"].notna().tolist() == [False, True]
    assert "0xe9 is not UTF-8" in answers["error"][1]


def test_a_folder_of_parquet_files_is_one_table(predictor, tmp_path):
    (tmp_path / "parts").mkdir()
    flowers(10).to_parquet(tmp_path / "parts" / "0.parquet")
    parquet.write_table(pa.Table.from_pandas(flowers(5, seed=1)), tmp_path / "parts" / "1.parquet", row_group_size=2)
    answers = answers_of(predictor, tmp_path / "parts", tmp_path / "o.csv", batch_size=4)
    whole = pd.concat([flowers(10), flowers(5, seed=1)])
    assert answers["prediction"].tolist() == predictor.predict(whole)["prediction"].tolist()


@pytest.mark.parametrize("form", ["folder", "pattern", "txt", "csv", "file"])
def test_images_are_a_folder_a_pattern_a_list_or_a_file(images, tmp_path, form, capsys):
    write_images(tmp_path / "in", count=2)
    (tmp_path / "in" / "notes.doc").write_text("x")
    (tmp_path / "list.txt").write_text("in/cat/0.png\nin/none.png\n")
    (tmp_path / "list.csv").write_text("id,file\n1,in/cat/0.png\n2,in/dog/1.png\n")
    given = {"folder": "in", "pattern": "in/*/0.png", "txt": "list.txt", "csv": "list.csv", "file": "in/cat/1.png"}
    answers = answers_of(images, tmp_path / given[form], tmp_path / "o.csv")
    assert len(answers) == {"folder": 4, "file": 1}.get(form, 2)
    assert answers.columns[0] == "file"
    assert answers["error"].notna().sum() == (form == "txt")
    assert (
        "1 files are left out, since they are no images that can be decoded: 1 .doc" in capsys.readouterr().err
    ) == (form == "folder")


def test_the_name_of_a_bad_image_is_said_once(images, tmp_path, capsys):
    write_images(tmp_path / "in", count=2)
    (tmp_path / "in" / "cat" / "empty.png").touch()
    (tmp_path / "list.txt").write_text("in/cat/0.png\nin/none.png\nin/cat/empty.png\n")
    answers_of(images, tmp_path / "list.txt", tmp_path / "o.csv")
    shown = capsys.readouterr().err
    assert "activelr: no such file: in/none.png\n" in shown
    assert f"activelr: {tmp_path}/in/cat/empty.png cannot be decoded as an image: it is empty\n" in shown


def test_arrays_are_read_from_npz_and_npy(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 6)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
    np.save(tmp_path / "a.npy", x)
    predictor = Predictor.load(export(tmp_path, {"type": "npz", "path": str(tmp_path / "a.npz")})[0])
    first = answers_of(predictor, tmp_path / "a.npz", tmp_path / "o.csv", batch_size=7)
    second = answers_of(predictor, tmp_path / "a.npy", tmp_path / "p.csv", batch_size=7)
    pd.testing.assert_frame_equal(first, second)
    assert len(first) == 40
    for name, array in (("f.npz", np.asfortranarray(x)), ("z.npz", x)):
        np.savez_compressed(tmp_path / name, array)
        third = answers_of(predictor, tmp_path / name, tmp_path / f"{name}.csv", batch_size=7)
        pd.testing.assert_frame_equal(first, third)
    np.savez(tmp_path / "b.npz", x=x[:, :3])
    with pytest.raises(InputError, match="none of the 40 rows"):
        predict_file(predictor, str(tmp_path / "b.npz"), tmp_path / "q.csv", Options())


def test_a_file_that_ends_too_early_is_one_message(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 6))
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
    predictor = Predictor.load(export(tmp_path, {"type": "npz", "path": str(tmp_path / "a.npz")})[0])
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:900])
    (tmp_path / "c.npy").write_bytes(b"no array")
    for name in ("b.npz", "c.npy"):
        with pytest.raises(InputError, match="is not a readable file of arrays"):
            predict_file(predictor, str(tmp_path / name), tmp_path / "o.csv", Options())


def test_each_line_of_a_text_is_a_prompt(tmp_path):
    data = {"type": "stdlib_chars", "block_size": 32, "num_train": 8}
    model = {**TINY_GPT, "config": {**TINY_GPT["config"], "n_positions": 32}}
    predictor = Predictor.load(export(tmp_path, data, model)[0])
    (tmp_path / "a.txt").write_text("import os\n\ndef f(x):\n")
    answers = answers_of(predictor, tmp_path / "a.txt", tmp_path / "o.jsonl", max_new_tokens=4)
    assert answers["generated"].map(len).tolist() == [4, 4, 4]
    assert answers["loss"].notna().tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("o.xlsx", r"has no suffix of \.csv, \.parquet, \.jsonl"),
        ("none/o.csv", "no such folder"),
        ("there.csv", "exists; give another name, or --overwrite"),
        ("a.csv", "a.csv is the input"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_model_is_looked_for(tmp_path, output, message):
    for name in ("a.csv", "there.csv"):
        (tmp_path / name).write_text("x\n1\n")
    with pytest.raises(InputError, match=message):
        predict("no-model", str(tmp_path), str(tmp_path / "a.csv"), tmp_path / output, None, Options())


def test_the_command_answers_and_ends_with_one_line(predictor, tmp_path, capsys):
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write(flowers(4).assign(width=["1", "x", "2", "3"]).to_csv(index=False))
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(predictor.folder), str(tmp_path / "a.csv.gz"), "-o", str(tmp_path / "o.csv")])
    assert ended.value.code == 0
    shown = capsys.readouterr()
    assert shown.out == f"4 rows answered, 1 with an error: {tmp_path / 'o.csv'}\n"
    assert "row 2: column 'width': 'x' is no number" in shown.err
