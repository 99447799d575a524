"""Cells of tables: numbers with gaps stay numbers, texts stay texts, wrong cells are named, and files agree by value."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from activelr_service.config.data import TableDataConfig
from activelr_service.data import build_data, inspect_data, prepare_data
from activelr_service.errors import JobError
from tests.data.test_data import data_config

ROWS = 60


def write_csv(path, **columns):
    """Texts as they are, numbers as Python shows them; ``a`` and ``y`` are there unless given."""
    rng = np.random.default_rng(3)
    default = {"a": rng.normal(size=ROWS).round(4).tolist(), "y": [i % 2 for i in range(ROWS)]}
    columns = {**default, **columns}
    rows = zip(*columns.values(), strict=True)
    path.write_text(",".join(columns) + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return str(path)


def with_one(value, row, others=None):
    values = [f"{i * 0.37:.3f}" for i in range(ROWS)] if others is None else list(others)
    values[row] = value
    return values


def inspect(path, task=None, **settings):
    return inspect_data(data_config(type="table", path=path, **{"target": "y", **settings}), task)


def prepare(tmp_path, path, task=None, **settings):
    return prepare_data(data_config(type="table", path=path, **{"target": "y", **settings}), tmp_path, task)


@pytest.mark.parametrize(
    "word", ["?", "-", "N/A", "n/a", "null", "None", "nan", "NaN", "missing", " ", "inf", "-Infinity"]
)
def test_a_word_for_no_value_among_numbers_is_missing_and_said(tmp_path, word):
    path = write_csv(tmp_path / "t.csv", b=with_one(word, 7))
    info = inspect(path)
    assert info.input_shape == (2,)
    shown = repr(word) if word.strip() else "empty"
    assert any(f"missing in {path}" in note and f"b: 1 {shown} (first in row 8)" in note for note in info.notes)
    assert all(np.isfinite(build_data(prepare(tmp_path, path))[0].tensors[0].numpy()).ravel())


@pytest.mark.parametrize("others", [None, [str(i) for i in range(ROWS)], [f"{i}.{i}" for i in range(ROWS)]])
def test_another_text_among_numbers_is_an_error_with_its_row_and_three_remedies(tmp_path, others):
    path = write_csv(tmp_path / "t.csv", b=with_one("abc", 41, others))
    with pytest.raises(JobError, match=r"'b' holds numbers, but row 42 has 'abc' \(1 such of 60 rows\)") as caught:
        inspect(path)
    assert "data.missing: [abc]" in str(caught.value)
    assert "data.types: {b: category}" in str(caught.value)
    assert inspect(path, missing=["abc"]).input_shape == (2,)
    assert inspect(path, types={"b": "category"}).input_shape[0] > 40
    assert inspect(path, types={"b": "ignore"}).input_shape == inspect(path, ignore=["b"]).input_shape == (1,)


@pytest.mark.parametrize(("values", "is_warned"), [
    (["12a", "13", "14", "12b"], False),
    (["S", "M", "10"], False),
    (["NA", "None", "null", "-", "x"], False),
    (["10", "11", "12", "13", "S"], True),
])  # fmt: skip
def test_categories_with_digits_are_categories_and_in_doubt_that_is_said(tmp_path, values, is_warned):
    info = inspect(write_csv(tmp_path / "t.csv", c=[values[i % len(values)] for i in range(ROWS)]))
    assert info.input_shape == (1 + len(values),)
    assert any("is read as categories" in warning for warning in info.warnings) == is_warned


def test_classes_called_na_and_none_are_classes_and_an_empty_cell_is_no_category(tmp_path):
    classes = ["NA", "None", "null", "b"]
    path = write_csv(tmp_path / "t.csv", y=[classes[i % 4] for i in range(ROWS)], c=["None", "", "q"] * (ROWS // 3))
    config = prepare(tmp_path, path)
    assert config.classes == sorted(classes)
    assert config.columns[1].categories == ["None", "q"]
    inputs = torch.cat([part.tensors[0] for part in build_data(config)])
    assert inputs[:, 1:].sum() == ROWS * 2 / 3
    assert prepare(tmp_path, path, missing=["None"], ignore=["c"], target="a").target_column is not None


def test_values_that_the_job_calls_missing_are_missing_in_numbers_and_texts(tmp_path):
    path = write_csv(tmp_path / "t.csv", b=with_one("-999.0", 2), c=["unknown", "p", "q"] * (ROWS // 3))
    info = inspect(path, missing=[-999, "unknown"])
    assert "b: 1 '-999' (first in row 3); c: 20 'unknown' (first in row 1)" in str(info.notes)
    assert info.input_shape == (4,)


@pytest.mark.parametrize("task", [None, "classification", "regression"])
@pytest.mark.parametrize("values", [[0, 1, 2], [0.25, 0.5, 1.75]])
def test_a_target_that_is_missing_is_an_error_whatever_stands_there(tmp_path, task, values):
    path = write_csv(tmp_path / "t.csv", y=with_one("?", 5, [values[i % 3] for i in range(ROWS)]))
    with pytest.raises(
        JobError, match=r"'y' is missing in 1 rows, the first of them row 6 \('\?'\); take these rows out"
    ):
        inspect(path, task)


def test_the_task_says_how_the_target_is_read(tmp_path):
    for values in ([0, 1, 2], ["0.0", "1.0", "2.0"], ["0", "1.", "2.000"]):
        path = write_csv(tmp_path / "t.csv", y=[values[i % 3] for i in range(ROWS)])
        info = inspect(path, "classification")
        assert (info.tasks, info.classes) == (("classification",), ("0", "1", "2"))
        assert build_data(prepare(tmp_path, path, "classification"))[0].tensors[1].dtype == torch.int64
        info = inspect(path, "regression")
        assert (info.tasks, info.num_outputs) == (("regression",), 1)
        assert build_data(prepare(tmp_path, path, "regression"))[0].tensors[1].dtype == torch.float32
    with pytest.raises(JobError, match=r"data\.types: the target 'y' is a number, and the task is classification"):
        inspect(path, "classification", types={"y": "number"})
    path = write_csv(tmp_path / "t.csv", y=["p", "q"] * (ROWS // 2))
    with pytest.raises(JobError, match="'y' is to hold numbers, but row 1 has 'p'"):
        inspect(path, "regression")


def test_how_the_target_was_read_is_said_with_the_way_to_the_other(tmp_path):
    few, many = write_csv(tmp_path / "f.csv"), tmp_path / "m.csv"
    many.write_text("a,y\n" + "".join(f"{i % 7},{i * i}\n" for i in range(300)))
    assert any("2 classes, since it has few different integers; to predict" in note for note in inspect(few).notes)
    assert any("more than 100 different integers; for classes, set task" in n for n in inspect(str(many)).notes)
    assert len(inspect(str(many), "classification").classes) == 300


def test_integers_floats_texts_and_truths_of_two_files_agree_by_value(tmp_path):
    train = {"n": [1, 2, 3], "t": ["1", "2", "x"], "b": ["True", "false", "TRUE"], "y": ["1", "2", "5.5"]}
    path = write_csv(tmp_path / "t.csv", **{name: [v[i % 3] for i in range(ROWS)] for name, v in train.items()})
    val = {"n": [1.0, 2.0, None], "t": [1.0, 2.0, None], "b": [True, False, True], "y": [1.0, 2.0, 5.5], "a": [0.5] * 3}
    parquet.write_table(pa.table(val), tmp_path / "v.parquet")
    settings = {"val_path": str(tmp_path / "v.parquet"), "types": {"n": "category"}}
    config = prepare(tmp_path, path, "classification", **settings)
    assert config.classes == ["1", "2", "5.5"]
    inputs, targets = build_data(config)[1].tensors
    assert targets.tolist() == [0, 1, 2]
    assert inputs[:, 1:].tolist() == [
        [1, 0, 0, 1, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0, 1],
    ]  # fmt: skip


def test_large_integers_are_different_classes_and_leading_zeros_stay(tmp_path):
    ids = [9007199254740992, 9007199254740993]
    path = write_csv(tmp_path / "t.csv", y=[ids[i % 2] for i in range(ROWS)], z=["01234", "1234"] * (ROWS // 2))
    config = prepare(tmp_path, path, types={"z": "category"})
    assert config.classes == list(map(str, ids))
    assert config.columns[1].categories == ["01234", "1234"]


def test_the_prepared_config_survives_json_and_reads_another_file_alike(tmp_path):
    path = write_csv(tmp_path / "t.csv", c=[["12a", "13"][i % 2] for i in range(ROWS)], b=with_one("?", 3))
    config = prepare(tmp_path, path)
    again = TableDataConfig.model_validate_json(config.model_dump_json())
    assert again == config
    other = tmp_path / "other.csv"
    other.write_text("y;c;b;a;more\n1;13;-;2,5;k\n1;13;1;1,5;k\n1;14;2;0,25;k\n")
    moved = again.model_copy(update={"path": str(other)})
    info = inspect_data(moved)
    assert (info.classes, info.num_train, info.num_val) == (("0", "1"), 2, 1)
    assert "the model was not trained on them): 'more'" in str(info.notes)
    assert all(part.tensors[1].tolist() == [1] * len(part) for part in build_data(moved))
    write_csv(other, c=["13"] * ROWS, b=[1] * ROWS, y=[0, 7] * (ROWS // 2))
    with pytest.raises(JobError, match=r"classes that the model was not trained on, the first in row 2: '7'"):
        inspect_data(moved)
    write_csv(other, c=["13"] * ROWS, b=with_one("high", 9))
    with pytest.raises(JobError, match=r"other\.csv: the column 'b' is to hold numbers, but row 10 has 'high'"):
        inspect_data(moved)


def test_dates_are_refused_and_can_be_categories(tmp_path):
    for values in ([f"2024-01-{i % 9 + 1:02d}" for i in range(ROWS)], [f"{i % 9 + 1}/3/2024" for i in range(ROWS)]):
        path = write_csv(tmp_path / "t.csv", d=values)
        with pytest.raises(JobError, match=r"'d' holds dates.*data\.ignore, or set data\.types: \{d: category\}"):
            inspect(path)
        assert inspect(path, types={"d": "category"}).input_shape == (10,)


def test_columns_stored_as_categories_or_as_texts_of_integers_are_classes_as_in_a_csv(tmp_path):
    columns = {"a": [i * 0.3 for i in range(ROWS)], "y": [str(i % 3) for i in range(ROWS)]}
    for y in (
        columns["y"],
        pa.array(columns["y"]).dictionary_encode(),
        pa.array([i % 3 for i in range(ROWS)]).dictionary_encode(),
    ):
        parquet.write_table(
            pa.table({**columns, "y": y, "c": pa.array(["1", "2"] * 30).dictionary_encode()}), tmp_path / "t.parquet"
        )
        info = inspect(str(tmp_path / "t.parquet"))
        assert (info.classes, info.input_shape) == (("0", "1", "2"), (3,))


def test_numbers_that_look_like_codes_are_warned_of(tmp_path):
    path = write_csv(tmp_path / "t.csv", zip=[f"{i * 397 % 9000:05d}" for i in range(ROWS)])
    assert "the column 'zip'" in inspect(path).warnings[0]
    assert "for codes, set data.types: {zip: category}" in inspect(path).warnings[0]
    assert "for codes" not in str(inspect(path, types={"zip": "category"}).warnings)


def test_a_column_of_several_words_for_no_value_is_one_of_categories(tmp_path):
    path = write_csv(tmp_path / "t.csv", c=["None", "missing", "NA"] * (ROWS // 3))
    assert prepare(tmp_path, path).columns[1].categories == ["NA", "None", "missing"]


@pytest.mark.parametrize("value", ["$1,{}", "{} %", "{}.5€", "{} kg", "({}.5)", "1,23,{}"])
def test_numbers_with_a_unit_or_in_an_unknown_way_are_categories_with_a_warning(tmp_path, value):
    path = write_csv(tmp_path / "t.csv", c=[f'"{value.format(100 + i % 7)}"' for i in range(ROWS)])
    assert f"its values ({value.format(100)}) are not written as plain numbers" in inspect(path).warnings[0]


@pytest.mark.parametrize("day", ["2024-01-{:02d}", "{}.1.2024", "1/{}/24", "{} Jan 2024", "March {} 2024", "{}-Feb-24"])
def test_dates_are_refused_with_and_without_a_word_for_no_value_among_them(tmp_path, day):
    days = [day.format(i % 28 + 1) for i in range(ROWS)]
    for cells in (days, ["?", *days[1:]]):
        with pytest.raises(JobError, match="'c' holds dates, such as "):
            inspect(write_csv(tmp_path / "t.csv", c=cells))


@pytest.mark.parametrize("word", ["?", "N/A", "-"])
def test_a_class_that_looks_like_a_missing_value_is_warned_of(tmp_path, word):
    path = write_csv(tmp_path / "t.csv", y=[[word, "yes", "no"][i % 3] for i in range(ROWS)])
    assert any(f"has the class {word!r}, which looks like a missing value" in text for text in inspect(path).warnings)
    assert "missing value" not in str(inspect(path, types={"y": "category"}).warnings)


def test_a_unit_is_seen_beside_a_word_for_no_value(tmp_path):
    path = write_csv(tmp_path / "t.csv", c=["-", *(f"{i % 9} kg" for i in range(1, ROWS))])
    assert "its values (1 kg) are not written as plain numbers" in inspect(path).warnings[0]
