"""What is said of a table, what is refused before a training, and that no value makes a number that cannot be used."""

import numpy as np
import pytest

from activelr_service.data import build_data
from activelr_service.errors import JobError
from tests.data.test_table_cells import ROWS, inspect, prepare, with_one, write_csv


def inputs_of(config):
    return [part.tensors[0].numpy() for part in build_data(config)]


def test_files_columns_split_and_classes_are_said(tmp_path):
    path = write_csv(tmp_path / "t.csv", c=["p", "q", "r"] * (ROWS // 3), d=[f"n{i}" for i in range(ROWS)])
    notes = inspect(path, ignore=["d"]).notes
    assert notes == (
        f"{path}: 60 rows, 4 columns",
        "validation: 12 of 60 rows, drawn with seed 0, from each class its share",
        "columns of numbers (1): a",
        "columns of categories (1), with how many: c (3)",
        "columns left out (as the job says): 'd'",
        "the target 'y' is read as 2 classes, since it has few different integers;"
        " to predict the number, set task: regression",
        "classes, with their training and validation samples: 0 24/6, 1 24/6",
    )
    assert "is read as a number, of mean" in inspect(path, ignore=["d"], target="a").notes[-1]


def test_every_class_of_two_rows_is_on_both_sides_and_of_one_row_in_training(tmp_path):
    names = ["common"] * 51 + ["p", "q", "r"] * 2 + ["s", "t", "u"]
    path = write_csv(tmp_path / "t.csv", y=names)
    info = inspect(path)
    assert "common 42/9, p 1/1, q 1/1, r 1/1, s 1/0, t 1/0, u 1/0" in info.notes[-1]
    assert "classes with one of the samples only (3 of 7): 's', 't', 'u'" in info.warnings
    train, val = build_data(prepare(tmp_path, path))
    assert train.tensors[1].bincount().tolist() == [42, 1, 1, 1, 1, 1, 1]
    assert val.tensors[1].bincount().tolist() == [9, 1, 1, 1]


def test_a_class_of_one_file_only_is_warned_of_by_name(tmp_path):
    path = write_csv(tmp_path / "t.csv", y=["cat", "dog", "emu"] * (ROWS // 3))
    val = write_csv(tmp_path / "v.csv", y=["cat", "dog", "bird"] * (ROWS // 3), a=[0.5 * i for i in range(ROWS)])
    info = inspect(path, val_path=val)
    assert info.classes == ("bird", "cat", "dog", "emu")
    assert "classes only among the validation samples, so that nothing teaches them (1 of 4): 'bird'" in info.warnings
    assert "classes only among the training samples, so that nothing measures them (1 of 4): 'emu'" in info.warnings


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"b": with_one("unknown", 1)}, r"the column 'b' is to hold numbers, but row 2 has 'unknown' \(1 such"),
        ({"b": ["many"] * ROWS}, r"the column 'b' is to hold numbers, but row 1 has 'many' \(60 such"),
        ({"b": ["true"] * ROWS}, "the column 'b' is to hold numbers, but row 1 has 'true'"),
        ({"b": [1] * ROWS, "y": with_one("", 3)}, "the target 'y' is missing in 1 rows, the first of them row 4"),
        ({}, "lacks the columns b"),
    ],
)
def test_a_file_to_validate_on_that_differs_is_refused_at_its_place(tmp_path, columns, message):
    path = write_csv(tmp_path / "t.csv", b=range(ROWS))
    val = write_csv(tmp_path / "v.csv", **columns)
    with pytest.raises(JobError, match=message) as caught:
        inspect(path, val_path=val)
    assert str(caught.value).startswith(f"data.val_path: {val}: ")


def test_columns_more_and_unknown_categories_of_the_file_to_validate_on_are_said(tmp_path):
    path = write_csv(tmp_path / "t.csv", c=["p", "q"] * (ROWS // 2))
    some, none = (
        write_csv(tmp_path / f"{n}.csv", c=v * (ROWS // 2), d=range(ROWS)) for n, v in (("s", "px"), ("n", "zx"))
    )
    info = inspect(path, val_path=some)
    assert f"columns of {some} that are not used: 'd'" in info.notes
    assert "counted as none: in 30 of 60 rows, such as 'x' in row 2" in str(info.notes)
    assert "counted as none: in 60 of 60 rows, such as 'z' in row 1" in str(inspect(path, val_path=none).warnings)


@pytest.mark.parametrize("value", [0.1, 1e-30, -7, 12345678.9, 1e300])
def test_a_constant_column_is_not_scaled_and_that_is_said(tmp_path, value):
    path = write_csv(tmp_path / "t.csv", b=[value] * ROWS)
    val = write_csv(tmp_path / "v.csv", b=[value + 0.1] * ROWS)
    info = inspect(path, val_path=val)
    assert f"the column 'b' is {value:g} in every training row" in str(info.warnings)
    train, val_part = inputs_of(prepare(tmp_path, path, val_path=val))
    assert (train[:, 1] == 0).all()
    assert np.abs(val_part[:, 1]).max() <= 0.11


@pytest.mark.parametrize(
    "values",
    [
        [9007199254740993 + 2 * i for i in range(ROWS)],
        with_one("1e300", 0, with_one("-1e300", 1)),
        [(-1) ** i * 1.7e308 for i in range(ROWS)],
        [i * 1e-310 for i in range(ROWS)],
        [1e-200 * (i % 5) for i in range(ROWS)],
    ],
)
def test_extreme_numbers_are_scaled_in_float64_without_overflow(tmp_path, values):
    path = write_csv(tmp_path / "t.csv", b=values)
    train, val_part = inputs_of(prepare(tmp_path, path))
    assert np.isfinite(train).all()
    assert np.isfinite(val_part).all()
    np.testing.assert_allclose(train[:, 1].std(dtype=np.float64), 1, rtol=1e-3)
    is_warned = any("'b'" in warning for warning in inspect(path).warnings)
    assert is_warned == (abs(float(values[1])) > 1e15)


def test_identifiers_that_float64_cannot_tell_apart_are_warned_of(tmp_path):
    path = write_csv(tmp_path / "t.csv", b=[18446744073709551615 - i for i in range(ROWS)])
    assert "'b' has integers beyond 2**53" in str(inspect(path).warnings)
    assert (inputs_of(prepare(tmp_path, path))[0][:, 1] == 0).all()


def test_far_validation_values_are_cut_off_or_refused_never_infinite(tmp_path):
    path = write_csv(tmp_path / "t.csv", target=[i * 0.7 for i in range(ROWS)])
    val = write_csv(tmp_path / "v.csv", a=with_one("1e300", 4), target=[i * 0.7 for i in range(ROWS)])
    info = inspect(path, val_path=val, target="target")
    assert "cut off there: 1, the first 1e+300 in row 5" in str(info.warnings)
    assert inputs_of(prepare(tmp_path, path, val_path=val, target="target"))[1].max() == 1e6
    val = write_csv(tmp_path / "v.csv", target=with_one("1e300", 4))
    with pytest.raises(JobError, match=r"data\.val_path: .* the target 'target' is 1e\+300 in row 5, too far"):
        inspect(path, val_path=val, target="target")


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_row_numbers_that_pandas_writes_are_left_out_unless_asked_for(tmp_path, name):
    numbers = [(i * 7) % ROWS for i in range(ROWS)]
    path = write_csv(tmp_path / "t.csv", **{name: numbers})
    info = inspect(path)
    assert info.input_shape == (1,)
    assert f"columns left out (row numbers, or empty and without a name): {name!r}" in info.notes
    assert inspect(path, types={name: "number"}).input_shape == (2,)
    assert inspect(write_csv(tmp_path / "t.csv", **{name: [i * 0.5 for i in numbers]})).input_shape == (2,)


def test_what_gives_the_target_away_is_warned_of(tmp_path):
    y = [i * i % 7 % 3 for i in range(ROWS)]
    path = write_csv(tmp_path / "t.csv", y=y, same=y, names=[f"k{value}" for value in y], other=y[::-1])
    away = [warning for warning in inspect(path).warnings if "gives the target away" in warning]
    assert ["'same'" in away[0], "'names'" in away[1], len(away)] == [True, True, 2]
    price = [0.5 * i * i for i in range(ROWS)]
    path = write_csv(tmp_path / "t.csv", y=price, cents=[100 * p + 3 for p in price], root=[p**0.5 for p in price])
    away = [warning for warning in inspect(path).warnings if "gives the target away" in warning]
    assert ["'cents'" in away[0], len(away)] == [True, 1]


def test_row_counters_and_headers_of_data_are_warned_of(tmp_path):
    assert "'id' counts the rows" in str(inspect(write_csv(tmp_path / "t.csv", id=range(5, ROWS + 5))).warnings)
    (tmp_path / "t.csv").write_text("".join(f"{i * 7 % 9},{i % 2}.5,{i % 2 - 1}\n" for i in range(ROWS)))
    warnings = inspect(str(tmp_path / "t.csv"), target="-1").warnings
    assert f"the first line of {tmp_path / 't.csv'} looks like data, and names the columns: 0, 0.5, -1" in warnings


def test_rows_on_both_sides_are_counted(tmp_path):
    path = write_csv(tmp_path / "t.csv", c=["p", "q", ""] * (ROWS // 3))
    assert not any("value for value" in warning for warning in inspect(path).warnings)
    assert "60 of 60 validation rows are training rows, too" in str(inspect(path, val_path=path).warnings)
    other = write_csv(tmp_path / "v.csv", c=["p", "q", ""] * (ROWS // 3), a=[i * 2.5 for i in range(ROWS)])
    assert "training rows, too" not in str(inspect(path, val_path=other).warnings)


@pytest.mark.parametrize(
    ("columns", "task", "message"),
    [
        ({"y": [1] * ROWS}, None, r"data\.target: the target 'y' of .* is '1' in every row"),
        ({"y": [1.5] * ROWS}, None, "is 1.5 in every row"),
        ({"y": [3] * ROWS}, "regression", "is 3 in every row"),
        ({"b": [""] * ROWS}, None, "the column 'b' of .* has no value; put it into data.ignore"),
        ({"b": [f"t{i}" for i in range(400)], "a": [1] * 400, "y": [0, 1] * 200}, None, "has 320 different texts"),
    ],
)
def test_what_cannot_be_learned_is_refused(tmp_path, columns, task, message):
    with pytest.raises(JobError, match=message):
        inspect(write_csv(tmp_path / "t.csv", **columns), task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"types": {"q": "number"}}, r"data\.types: .* has no column 'q'"),
        ({"ignore": ["y"]}, r"data\.target: the target 'y' is among the columns to ignore"),
        ({"types": {"y": "ignore"}}, r"data\.target: the target 'y' is among the columns to ignore"),
    ],
)
def test_settings_that_contradict_the_table_are_refused(tmp_path, settings, message):
    with pytest.raises(JobError, match=message):
        inspect(write_csv(tmp_path / "t.csv"), **settings)


def test_a_row_more_hardly_changes_which_rows_are_describe_val(tmp_path):
    trained = []
    for count in (200, 201):
        columns = {"a": [f"row{i}" for i in range(count)], "y": [i * 7 % 3 for i in range(count)]}
        config = prepare(tmp_path, write_csv(tmp_path / "t.csv", **columns))
        trained.append(set(config.columns[0].categories))
    assert (len(trained[0]), len(trained[1])) == (160, 161)
    assert len(trained[0] - trained[1]) <= 2


def test_a_target_of_few_whole_floats_is_a_number_with_a_warning_unless_the_task_says_it(tmp_path):
    path = write_csv(tmp_path / "t.csv", y=[f"{i % 3}.0" for i in range(ROWS)])
    warning = (
        "only 3 different values, all of them whole, and is read as a number; for classes, set task: classification"
    )
    assert warning in str(inspect(path).warnings)
    assert inspect(path, "regression").warnings == inspect(path, "classification").warnings == ()
