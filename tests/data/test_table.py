"""Tables: numbers and categories become inputs the same way for every file, and odd columns are named."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet

from activelr_service.data import build_data, inspect_data, prepare_data
from activelr_service.errors import JobError
from tests.data.test_data import data_config

ROWS = 40


def table(**columns):
    rng = np.random.default_rng(0)
    numbers = rng.normal(50, 10, ROWS)
    return pa.table(
        {
            "age": numbers,
            "city": [["Paris", "Oslo", None, "Žilina"][i % 4] for i in range(ROWS)],
            "is_new": [i % 3 == 0 for i in range(ROWS)],
            "kind": [["b", "a"][i % 2] for i in range(ROWS)],
            "price": numbers * 1000,
            **columns,
        }
    )


def write(path, content):
    (csv.write_csv if path.suffix == ".csv" else parquet.write_table)(content, path)
    return str(path)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_column_of_text_is_a_target_of_classes_and_both_formats_give_the_same_rows(tmp_path, name):
    config = data_config(type="table", path=write(tmp_path / name, table()), target="kind")
    info = inspect_data(config)
    train, val = build_data(config)
    assert (info.tasks, info.classes, info.input_shape) == (("classification",), ("a", "b"), (1 + 3 + 2 + 1,))
    assert (len(train), len(val)) == (info.num_train, info.num_val) == (32, 8)
    inputs, targets = train.tensors
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64
    torch.testing.assert_close(inputs[:, 0].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs[:, 0].std(correction=0), torch.tensor(1.0), atol=1e-5, rtol=0)
    assert set(inputs[:, 1:4].sum(dim=1).tolist()) == {0.0, 1.0}, "a missing category is all zeros"


def test_a_column_of_numbers_is_a_target_with_mean_0_and_deviation_1(tmp_path):
    config = data_config(type="table", path=write(tmp_path / "t.csv", table()), target="price")
    assert inspect_data(config).tasks == ("regression",)
    targets = build_data(config)[0].tensors[1]
    torch.testing.assert_close(targets.std(correction=0), torch.tensor(1.0))


def test_integers_of_few_values_are_classes_and_of_many_are_numbers(tmp_path):
    path = tmp_path / "t.csv"
    many = pa.table({"x": np.arange(500.0), "few": np.arange(500) % 3, "many": np.arange(500)})
    write(path, many)
    assert inspect_data(data_config(type="table", path=str(path), target="few")).classes == ("0", "1", "2")
    assert inspect_data(data_config(type="table", path=str(path), target="many")).tasks == ("regression",)


def test_another_file_is_shown_to_the_model_as_the_training_rows_were(tmp_path):
    config = data_config(type="table", path=write(tmp_path / "t.csv", table()), target="kind")
    prepared = prepare_data(config, tmp_path)
    other = table(age=np.full(ROWS, 1e6), city=["Rome"] * ROWS)
    moved = prepared.model_copy(update={"path": write(tmp_path / "other.csv", other)})
    inputs = build_data(moved)[0].tensors[0]
    assert (inputs[:, 0] > 1e4).all(), "scaled by the training rows' deviation, not its own"
    assert (inputs[:, 1:4] == 0).all(), "an unknown category is all zeros"
    assert inspect_data(moved).classes == ("a", "b")


def test_a_missing_number_counts_as_the_mean(tmp_path):
    ages = [None if i % 5 == 0 else float(i) for i in range(ROWS)]
    config = data_config(type="table", path=write(tmp_path / "t.parquet", table(age=pa.array(ages))), target="kind")
    inputs = torch.cat([split.tensors[0] for split in build_data(config)])
    assert (inputs[:, 0] == 0).sum() == 8
    assert inputs.isfinite().all()


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({}, {"target": "kindd"}, "has no column 'kindd'; it has age, city"),
        ({}, {"target": "kind", "ignore": ["no"]}, "has no column 'no'"),
        ({"kind": pa.array([None] + ["a", "b", "c"] * 13)}, {"target": "kind"}, "is missing in 1 rows, the first"),
        ({"kind": ["a"] * ROWS}, {"target": "kind"}, "is 'a' in every row"),
        ({"when": pa.array([0] * ROWS, pa.timestamp("s"))}, {"target": "kind"}, "put it into data.ignore"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, columns, settings, message):
    path = write(tmp_path / "t.parquet", table(**columns))
    config = data_config(type="table", path=path, **settings)
    with pytest.raises(JobError) as caught:
        inspect_data(config)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", "has 1 values in line 3, and 2 in its header"),
        ("a,a,b\n1,2,3\n4,5,6\n", "more than one column 'a'"),
        ("a,b\n1,2\n", "has 1 rows; at least 2"),
        ("b\n1\n2\n", "no column besides the target"),
    ],
)
def test_a_csv_that_is_no_table_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(JobError) as caught:
        inspect_data(data_config(type="table", path=str(tmp_path / "bad.csv"), target="b"))
    assert message in str(caught.value)
    assert "bad.csv" in str(caught.value)
