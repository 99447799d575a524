"""Tables from a file: what is recognized, and what a bad one is told."""

import pickle

import pandas as pd
import pytest

from activelr_service.errors import CommandError
from activelr_service.reports import load_table
from tests.reports.tables import study

GOOD = (
    "optimizer,lr,global_batch_size,seed,epochs,best_train_acc,best_val_acc,val_loss\nadamw,0.1,32,1,90,0.9,0.8,0.5\n"
)


def written(folder, text, name="table.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_table_from_elsewhere_is_recognized_by_its_names(tmp_path):
    table = load_table(written(tmp_path, GOOD, "digits.csv"))
    (row,) = table.to_dict("records")
    assert (row["workload"], row["initial_lr"], row["batch_size"], row["epoch"]) == ("digits", 0.1, 32, 90)
    assert (row["metric"], row["score"], row["higher_is_better"], row["status"]) == (
        "best_val_acc",
        0.8,
        True,
        "finished",
    )
    assert row["best_train_acc"] == 0.9  # what is not known is kept


@pytest.mark.parametrize(
    ("names", "metric"),
    [
        ("train_loss,val_loss,val_accuracy", "val_accuracy"),
        ("final_test_accuracy,best_test_accuracy", "best_test_accuracy"),
        ("train_loss,val_loss", "val_loss"),
        ("best_val_ppl,best_test_ppl", "best_val_ppl"),
        ("map_50,loss", "map_50"),
    ],
)
def test_the_metric_is_the_column_that_looks_most_like_one(tmp_path, names, metric):
    values = ",".join("1" for _ in names.split(","))
    table = load_table(written(tmp_path, f"optimizer,{names}\nsgd,{values}\n"))
    assert table["metric"].item() == metric


def test_the_metric_asked_for_is_the_score(tmp_path):
    table = load_table(written(tmp_path, GOOD), metric="val_loss")
    assert (table["score"].item(), table["higher_is_better"].item()) == (0.5, False)
    table = load_table(written(tmp_path, "optimizer,reward\nsgd,3\n"), metric="reward", higher_is_better=True)
    assert table["score"].item() == 3


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_table_in_normal_form_is_taken_as_it_is(tmp_path, name):
    table = study().assign(note="kept")
    path = tmp_path / name
    table.to_csv(path, index=False) if name.endswith("csv") else table.to_parquet(path)
    found = load_table(path)
    assert "note" in found
    pd.testing.assert_frame_equal(found[table.columns], table, check_dtype=False)


def test_a_trial_that_ends_without_a_score_has_diverged(tmp_path):
    text = "optimizer,seed,epoch,acc\nsgd,0,1,0.5\nsgd,0,2,nan\nsgd,1,1,\nsgd,1,2,0.4\n"
    table = load_table(written(tmp_path, text))
    assert table.groupby("seed")["status"].first().tolist() == ["diverged", "finished"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("optimizer,acc\n", "has no rows"),
        ("name,acc\nsgd,1\n", "has no column optimizer; it has name, acc"),
        ("optimizer,speed\nsgd,1\n", "no column that looks like a score; name the metric, one of optimizer, speed"),
        ("optimizer,lr,acc\nsgd,1,0.5\nsgd,fast,0.5\n", "row 2, column initial_lr: 'fast' is not a number"),
        ("optimizer,acc\nsgd,high\n", "row 1, column score: 'high' is not a number"),
        ("optimizer,lr,acc\nsgd,-1,0.5\n", "row 1, column initial_lr: -1 is not a positive number"),
        ("optimizer,seed,acc\nsgd,0.5,0.5\n", "row 1, column seed: 0.5 is not a whole number"),
        ("optimizer,acc\n,0.5\n", "row 1, column optimizer: '' is empty"),
        ("optimizer,status,acc\nsgd,done,0.5\n", "row 1, column status: 'done' is not one of finished"),
        ("optimizer,lr,acc\nsgd,1,0.5\nsgd,2,0.5\nsgd,1,0.6\n", "rows 1 and 3: epoch 1 of trial table/sgd/lr=1"),
        ("optimizer,trial,epoch,lr,acc\nsgd,t,1,1,0.5\nsgd,t,2,2,0.5\n", "trial t has more than one initial_lr"),
        ("optimizer,acc\nsgd,0.5,3,4\nsgd,1\n", "table.csv"),
    ],
)
def test_a_bad_table_costs_one_line(tmp_path, text, message):
    with pytest.raises(CommandError) as error:
        load_table(written(tmp_path, text))
    assert message in str(error.value)
    assert str(tmp_path / "table.csv") in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_metric_that_is_not_there_or_has_no_direction_is_refused(tmp_path):
    with pytest.raises(CommandError, match="has no column 'f1' to take as the score"):
        load_table(written(tmp_path, GOOD), metric="f1")
    with pytest.raises(CommandError, match="is a higher seed better or worse"):
        load_table(written(tmp_path, GOOD), metric="seed")


def test_a_pickle_and_a_missing_or_broken_file_are_refused(tmp_path):
    (tmp_path / "table.pkl").write_bytes(pickle.dumps(study()))
    with pytest.raises(CommandError, match=r"neither a \.csv nor a \.parquet"):
        load_table(tmp_path / "table.pkl")
    with pytest.raises(CommandError, match="no such file"):
        load_table(tmp_path / "table.csv")
    (tmp_path / "table.parquet").write_bytes(pickle.dumps(study()))
    with pytest.raises(CommandError, match="cannot be read"):
        load_table(tmp_path / "table.parquet")
