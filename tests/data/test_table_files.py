"""Files of tables: every format gives the same rows, and a file that cannot be read is refused with its remedy."""

import bz2
import gzip
import json

import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet

from activelr_service.data import build_data, inspect_data, prepare_data
from activelr_service.errors import JobError
from tests.data.test_data import data_config

ROWS = 40
PLAIN = {
    "size": [1000 + 7.25 * i for i in range(ROWS)],
    "city": [["Köln", "Genève", "Oslo"][i % 3] for i in range(ROWS)],
    "kind": [["no", "yes"][i * i % 5 % 2] for i in range(ROWS)],
}


def text(separator=",", decimal=".", group=""):
    """PLAIN as a .csv, with quotes where a value holds the separator."""
    lines = [separator.join(PLAIN)]
    for size, city, kind in zip(*PLAIN.values(), strict=True):
        shown = f"{size:{',' if group else ''}.2f}".replace(",", "G").replace(".", decimal).replace("G", group)
        lines.append(separator.join((f'"{shown}"' if separator in shown else shown, city, kind)))
    return "\n".join(lines) + "\n"


def read(path, **settings):
    config = data_config(type="table", path=str(path), **{"target": "kind", **settings})
    info = inspect_data(config)
    train, val = build_data(config)
    return info, torch.cat([train.tensors[0], val.tensors[0]]), torch.cat([train.tensors[1], val.tensors[1]])


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain.parquet"
    parquet.write_table(pa.table(PLAIN), path)
    return read(path)


def assert_same(path, plain, **settings):
    info, inputs, targets = read(path, **settings)
    assert (info.classes, info.num_train, info.input_shape) == (plain[0].classes, plain[0].num_train, (4,))
    torch.testing.assert_close(inputs, plain[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(targets, plain[2])
    return info


@pytest.mark.parametrize(
    ("name", "form", "said"),
    [
        ("t.csv", {}, ""),
        ("t.CSV", {}, ""),
        ("t.tsv", {"separator": "\t"}, ""),
        ("t.csv", {"separator": ";"}, "separator ';'"),
        ("t.txt", {"separator": "|"}, "separator '|'"),
        ("t.csv", {"separator": "\t"}, "separator tab"),
        ("t.csv", {"separator": ";", "decimal": ","}, "separator ';'; decimal comma"),
        ("t.csv", {"separator": ";", "decimal": ",", "group": "."}, "separator ';'; decimal comma"),
        ("t.csv", {"decimal": ","}, "decimal comma"),
        ("t.csv", {"group": ","}, ""),
        ("t.csv", {"group": "'"}, ""),
        ("t.csv", {"separator": ";", "decimal": ",", "group": " "}, "separator ';'; decimal comma"),
    ],
)
def test_separators_and_decimal_signs_are_found_out_and_said(tmp_path, plain, name, form, said):
    (tmp_path / name).write_text(text(**form), encoding="utf-8")
    info = assert_same(tmp_path / name, plain)
    assert info.notes[0] == f"{tmp_path / name}: 40 rows, 3 columns" + (f"; {said}" if said else "")
    if form.get("group"):
        assert any("digits are in groups: size" in note for note in info.notes)


def test_compressed_files_and_lines_of_json_are_read(tmp_path, plain):
    lines = "\n".join(json.dumps(dict(zip(PLAIN, row, strict=True))) for row in zip(*PLAIN.values(), strict=True))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text().encode()))
    (tmp_path / "t.TSV.GZ").write_bytes(gzip.compress(text("\t").encode()))
    (tmp_path / "t.csv.bz2").write_bytes(bz2.compress(text().encode()))
    (tmp_path / "t.jsonl").write_text(lines)
    (tmp_path / "t.ndjson").write_text(lines)
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for path in sorted(tmp_path.glob("t.*")):
        assert_same(path, plain)


def test_a_folder_of_parquet_files_is_one_table_and_what_is_not_read_is_said(tmp_path, plain):
    folder, whole = tmp_path / "t.parquet", pa.table(PLAIN)
    folder.mkdir()
    for number in range(4):
        parquet.write_table(whole.slice(number * 10, 10), folder / f"part-{number}.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "readme.md").touch()
    info = assert_same(folder, plain)
    assert "4 parquet files; 1 other files not read: readme.md" in info.notes[0]
    parquet.write_table(pa.table({"size": [1.0]}), folder / "part-9.parquet")
    with pytest.raises(JobError, match=r"part-9\.parquet has other columns than .*: city, kind"):
        read(folder)


def test_columns_in_the_names_of_folders_are_columns(tmp_path):
    parquet.write_to_dataset(pa.table(PLAIN), tmp_path, partition_cols=["city"])
    info = read(tmp_path)[0]
    assert info.input_shape == (4,)
    assert "columns from folder names: city" in info.notes[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path, plain, encoding):
    (tmp_path / "t.csv").write_bytes(text().encode(encoding))
    assert_same(tmp_path / "t.csv", plain)


def test_another_encoding_than_utf8_is_never_guessed(tmp_path, plain):
    (tmp_path / "t.csv").write_bytes(text().encode("cp1252"))
    with pytest.raises(JobError, match=r"line 2 has the byte 0xf6.*reads 'Köln' in cp1252.*data.encoding: cp1252"):
        read(tmp_path / "t.csv")
    assert "encoding latin-1" in assert_same(tmp_path / "t.csv", plain, encoding="latin-1").notes[0]
    with pytest.raises(JobError, match=r"data\.encoding: Python knows no encoding 'klingon'"):
        read(tmp_path / "t.csv", encoding="klingon")
    (tmp_path / "t.csv").write_bytes(text().encode("utf-16-le"))
    with pytest.raises(JobError, match=r"holds zero bytes.*utf-16-le"):
        read(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(text().encode())
    assert "looks like UTF-8" in str(read(tmp_path / "t.csv", encoding="cp1252")[0].warnings)


def test_signs_that_are_given_are_used(tmp_path, plain):
    (tmp_path / "t.csv").write_text(text(":"), encoding="utf-8")
    with pytest.raises(JobError, match=r"has no column 'kind'; it has size:city:kind; .*set data.separator"):
        read(tmp_path / "t.csv")
    assert_same(tmp_path / "t.csv", plain, separator=":")
    (tmp_path / "n.csv").write_text("a;y\n" + "".join(f"{i},{i * i % 1000:03d};{i % 2}\n" for i in range(1, 30)))
    info, comma, _ = read(tmp_path / "n.csv", target="y", decimal=",")
    assert info.warnings == ()
    guessed = read(tmp_path / "n.csv", target="y")
    assert torch.equal(guessed[1], comma)
    assert "'1,001' in the column 'a'" in guessed[0].warnings[0]
    assert "set data.decimal: '.'" in guessed[0].warnings[0]
    grouped = data_config(type="table", path=str(tmp_path / "n.csv"), target="y", decimal=".")
    assert prepare_data(grouped, tmp_path).columns[0].mean > 1000


def test_a_comma_after_a_single_zero_is_a_decimal_one(tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(f'"0,{i + 100}",{i % 2}\n' for i in range(30)))
    info, inputs, _ = read(tmp_path / "t.csv", target="y")
    assert "decimal comma" in info.notes[0]
    (tmp_path / "p.csv").write_text("a,y\n" + "".join(f"0.{i + 100},{i % 2}\n" for i in range(30)))
    assert torch.equal(inputs, read(tmp_path / "p.csv", target="y")[1])


def test_points_that_may_group_thousands_are_warned_of_where_semicolons_separate(tmp_path):
    (tmp_path / "t.csv").write_text("a;y\n" + "".join(f"1.{i + 100};{i % 2}\n" for i in range(30)))
    assert "'1.100' in the column 'a'" in str(read(tmp_path / "t.csv", target="y")[0].warnings)
    assert read(tmp_path / "t.csv", target="y", decimal=".")[0].warnings == ()
    (tmp_path / "t.csv").write_text("a;y\n" + "".join(f"0.{i + 100};{i % 2}\n" for i in range(30)))
    assert read(tmp_path / "t.csv", target="y")[0].warnings == ()


def test_columns_without_name_and_value_at_the_end_of_lines_are_left_out(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y,,\n" + "".join(f"{i * i % 11},{i % 7},{i % 2},,\n" for i in range(30)))
    info, inputs, _ = read(tmp_path / "t.csv", target="y")
    assert inputs.shape[1] == 2
    assert any("left out" in note and "'', 'Unnamed: 4'" in note for note in info.notes)


def test_a_line_above_the_names_of_the_columns_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "t.csv").write_text("# made today\na,y\n1,2\n3,4\n")
    with pytest.raises(JobError, match="if line 1 does not name the columns, take it out"):
        read(tmp_path / "t.csv", target="y")


def test_a_quote_that_is_not_closed_is_named_by_its_line(tmp_path):
    lines = [f'{i},"x,1' if i == 4 else f"{i},x,1" for i in range(30)]
    (tmp_path / "t.csv").write_text("a,b,y\n" + "\n".join(lines) + "\n")
    with pytest.raises(JobError, match=r"from line 6 to 31, .*close the quote that is open in line 6"):
        read(tmp_path / "t.csv", target="y")


def test_an_encoding_of_two_bytes_is_refused_for_text_of_one(tmp_path):
    (tmp_path / "t.csv").write_text("a,y\n1,2\n3,4\n")
    with pytest.raises(JobError, match=r"data\.encoding: .* holds no zero byte, so it is not text in utf16"):
        read(tmp_path / "t.csv", target="y", encoding="utf16")


def test_a_separator_of_several_signs_is_refused_in_words():
    with pytest.raises(JobError, match=r"separator: must be one sign, such as ';', or tab, got 'comma'"):
        data_config(type="table", path="t.csv", target="y", separator="comma")


def test_both_decimal_signs_in_one_file_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a;b;y\n" + "".join(f"{i},5;{i}.5;{i % 2}\n" for i in range(9)))
    with pytest.raises(JobError, match=r"decimal commas in the column 'a' \(0,5\) and decimal points in 'b' \(0\.5\)"):
        read(tmp_path / "t.csv", target="y")


def test_quotes_and_line_breaks_in_values_are_respected(tmp_path):
    (tmp_path / "t.csv").write_text('"a; b",c,y\n' + "".join(f'{i},"x;\n{i % 2},",{i % 3}\n' for i in range(30)))
    info = read(tmp_path / "t.csv", target="y")[0]
    assert (info.num_train, info.num_val, info.input_shape) == (24, 6, (3,))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"a,kind\n", "0 rows; at least 2 are needed"),
        ("t.csv", b"a,kind\n1,2\n\n3\n", "1 values in line 4, and 2 in its header"),
        ("t.csv", b"PK\x03\x04 and more", "zip archive or a spreadsheet"),
        ("t.xlsx", b"PK\x03\x04 and more", "spreadsheet; export its sheet as a .csv"),
        ("t.csv.gz", b"no gzip", "cannot be read"),
        ("t.parquet", b"no parquet", "cannot be read"),
        ("t.json", b"[]", "none of the files that are read: .csv"),
        ("t.jsonl", b'{"a": 1, "kind": 2}\n{"a": 1\n', "line 2 is no JSON"),
        ("t.jsonl", b"[1]\n[2]\n", "line 1 is not an object"),
        ("t.jsonl", b'{"a": {"b": 1}, "kind": 2}\n{"a": 2, "kind": 1}\n', "'a' holds an object in row 1"),
        ("t.jsonl", b'{"a": [1], "kind": 2}\n{"a": [2], "kind": 1}\n', "'a' is of type list.*data.ignore"),
        ("t.jsonl", b'{"a": 1, "kind": [2]}\n{"a": 2, "kind": [1]}\n', "'kind' is of type list.*data.target"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_its_remedy(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JobError, match=message) as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_parquet_files_is_refused_with_what_it_has(tmp_path):
    csv.write_csv(pa.table(PLAIN), tmp_path / "t.csv")
    with pytest.raises(JobError, match=r"a folder without a \.parquet file; it has t\.csv; name a file"):
        read(tmp_path)


def test_a_wide_table_is_read_and_described_in_a_few_names(tmp_path):
    columns = {f"c{number}": [float(i * number % 7) for i in range(ROWS)] for number in range(3000)}
    csv.write_csv(pa.table({**columns, "kind": PLAIN["kind"]}), tmp_path / "t.csv")
    info = read(tmp_path / "t.csv")[0]
    assert info.input_shape == (3000,)
    assert max(map(len, info.notes + info.warnings)) < 500
    assert len(info.warnings) < 30


def test_the_separator_of_a_tsv_is_a_tab_where_names_hold_commas_too(tmp_path):
    lines = [f"Doe, J{i % 3}\t{'yes' if i % 4 else 'no'}" for i in range(ROWS)]
    (tmp_path / "t.tsv").write_text("\n".join(["last, first\tkind", *lines]) + "\n")
    info = read(tmp_path / "t.tsv")[0]
    assert (info.classes, info.input_shape) == (("no", "yes"), (3,))


def test_decimal_commas_in_texts_of_parquet_and_json_are_numbers(tmp_path, plain):
    shown = {**PLAIN, "size": [f"{size:.2f}".replace(".", ",") for size in PLAIN["size"]]}
    parquet.write_table(pa.table(shown), tmp_path / "t.parquet")
    assert "decimal comma" in assert_same(tmp_path / "t.parquet", plain).notes[0]
    rows = [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert_same(tmp_path / "t.jsonl", plain)
