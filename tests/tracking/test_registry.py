"""A registered model, in a real MLflow store: what MLflow shows of it, what it takes, and which version is the champion."""

import base64
import subprocess
import sys

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient, MlflowException

from activelr_service.inference.predictor import Predictor
from activelr_service.tracking.mlflow_model import _lightest, read_example
from activelr_service.tracking.registry import LONGEST_DESCRIPTION, ModelFacts
from activelr_service.tracking.store import open_tracker
from tests.export.conftest import export_table
from tests.inference.conftest import export

FACTS = ModelFacts(
    run="flowers/001",
    task="classification",
    epoch=3,
    timestamp_ms=1_700_000_000_000,
    score_name="val/accuracy",
    score=0.9,
    higher_is_better=True,
    metrics={"validation": {"val/accuracy": 0.9, "val/loss": 0.25}, "test": {"test/accuracy": 0.8}},
    datasets={"validation": "flowers.csv, validation", "test": "flowers.csv, test"},
    fingerprint="0123456789abcdef",
    card="# flowers\n",
)

pytestmark = pytest.mark.slow


class Store:
    """An MLflow store of its own, in which models are registered under the name ``m``."""

    def __init__(self, root, folder, frame):
        self.root, self.folder, self.frame = root, folder, frame
        self.uri = f"sqlite:///{root / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=self.uri)
        self.lines = []

    def tracker(self):
        return open_tracker(self.uri, "exp", "run", self.root, log=self.lines.append)

    def register(self, name="m", tracker=None, **changes):
        tracker = tracker or self.tracker()
        return tracker.log_model(self.folder, name, "ab" * 32, FACTS._replace(**changes))

    def champion(self, name):
        return int(self.client.get_registered_model(name).aliases["champion"])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    return Store(root, *export_table(root, "classification"))


@pytest.fixture(scope="module")
def served(store):
    """The model as MLflow loads it, and as this package does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store.uri)
        return mlflow.pyfunc.load_model(store.register("loaded")), Predictor.load(store.folder)


def same(answers, expected):
    plain = [frame.astype(object).where(frame.notna(), None) for frame in (answers, expected)]
    pd.testing.assert_frame_equal(*plain, rtol=1e-6, atol=1e-9)
    return True


def test_mlflow_shows_the_signature_an_example_and_what_describes_the_model(store, served):
    metadata = served[0].metadata
    assert metadata.signature.inputs.input_names() == ["age", "size | cm", "place"]
    assert metadata.signature.inputs.required_input_names() == ["age", "size | cm", "place"]
    assert metadata.signature.outputs.input_names()[:2] == ["prediction", "probability_*mid*"]
    assert metadata.metadata["columns"] == {"age": "number", "size | cm": "number", "place": "category"}
    version = store.client.get_model_version("loaded", "1")
    assert version.description == "# flowers\n"
    assert version.tags["activelr.score"] == "0.9"
    assert version.tags["activelr.run"] == "flowers/001"
    assert same(served[0].predict(served[0].input_example), served[1].predict(served[1].example()))


def test_the_metrics_and_their_datasets_are_linked_to_the_model(store, served):
    version = store.client.get_model_version("loaded", "1")
    experiment = store.client.get_run(version.run_id).info.experiment_id
    models = store.client.search_logged_models([experiment], filter_string=f"source_run_id = '{version.run_id}'")
    found = {one.key: (one.value, one.step, one.dataset_name, one.dataset_digest) for one in models[0].metrics}
    assert found == {
        "val/accuracy": (0.9, 3, "flowers.csv, validation", FACTS.fingerprint),
        "val/loss": (0.25, 3, "flowers.csv, validation", FACTS.fingerprint),
        "test/accuracy": (0.8, 3, "flowers.csv, test", FACTS.fingerprint),
    }


@pytest.mark.parametrize(
    "change",
    [
        {"age": [20, 30, 40, 50]},
        {"age": [20.5, None, 40, 50]},
        {"age": ["20", "30", "40", "50"]},
        {"place": [1, 2, 3, 4]},
        {"place": [np.nan] * 4, "size | cm": [None] * 4},
        {"age": [20, "old", 40, 50]},
        {"extra": [1, 2, 3, 4]},
    ],
    ids=str,
)
def test_raw_rows_of_any_type_reach_the_model_as_they_are(store, served, change):
    rows = store.frame.drop(columns="y").head(4).assign(**change)
    answers = served[0].predict(rows)
    assert same(answers, served[1].predict(rows.drop(columns="extra", errors="ignore")))
    assert len(answers) == 4


def test_missing_columns_are_named(store, served):
    with pytest.raises(MlflowException, match=r"missing inputs \['age', 'place'\]"):
        served[0].predict(store.frame[["size | cm"]])


TINY_GPT = {"type": "causal_lm", "name": "gpt2", "config": {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 16}}


def digits(root):
    return {"data": {"type": "digits", "image_size": 8}}


def characters(root):
    return {"data": {"type": "stdlib_chars", "block_size": 16, "num_train": 16}, "model": TINY_GPT}


def arrays(root):
    np.savez(root / "rows.npz", x=np.arange(96, dtype=np.uint8).reshape(24, 2, 2), y=np.arange(24) / 7)
    return {"data": {"type": "npz", "path": str(root / "rows.npz")}}


@pytest.mark.parametrize(
    ("job", "column", "change"),
    [
        (digits, "image", lambda cell: cell),
        (digits, "image", lambda cell: base64.b64encode(cell).decode()),
        (characters, "text", lambda cell: cell),
        (arrays, "input", lambda cell: np.asarray(cell.tolist())),
    ],
    ids=["bytes of images", "images as base64", "texts", "arrays"],
)
def test_images_texts_and_arrays_are_answered_as_by_the_model(store, tmp_path, job, column, change):
    job = job(tmp_path)
    folder = export(tmp_path, **job)[0]
    name = job["data"]["type"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store.uri)
        model = mlflow.pyfunc.load_model(Store(store.root, folder, None).register(name))
    predictor = Predictor.load(folder)
    assert model.metadata.signature.inputs.input_names() == [column]
    rows = predictor.example()
    assert same(model.predict(pd.DataFrame({column: map(change, rows[column])})), predictor.predict(rows))
    assert same(model.predict(model.input_example), predictor.predict(rows))
    if column == "text":
        short = model.predict(rows, params={"max_new_tokens": 1})
        assert same(short, predictor.predict(rows, max_new_tokens=1))


def test_large_photographs_are_not_all_shown_as_an_example(tmp_path):
    sizes = [700_000, 3_000_000, 200_000, 400_000]
    pd.DataFrame({"image": [bytes([number]) * size for number, size in enumerate(sizes)]}).to_parquet(
        tmp_path / "example.parquet"
    )
    shown = [len(image) for image in _lightest(read_example(tmp_path))["image"]]
    assert shown == [200_000, 400_000]
    huge = pd.DataFrame({"image": [b"x" * 2_000_000, b"y" * 1_500_000]}, dtype=object)
    assert [len(image) for image in _lightest(huge)["image"]] == [1_500_000]


def test_what_is_registered_again_is_there_once(store):
    tracker = store.tracker()
    assert [store.register("again", tracker) for _ in range(3)] == ["models:/again/1"] * 3
    (version,) = store.client.search_model_versions("name = 'again'")
    run = store.client.get_run(version.run_id)
    assert len(store.client.search_logged_models([run.info.experiment_id], f"source_run_id = '{tracker.run_id}'")) == 1
    assert len(store.client.get_metric_history(version.run_id, "val/loss")) == 1


def test_a_long_card_is_cut_at_a_line_and_says_so(store):
    card = "# flowers\n" + "- a line of forty characters, or about it\n" * 400
    store.register("long", card=card)
    description = store.client.get_model_version("long", "1").description
    assert len(description) <= LONGEST_DESCRIPTION
    assert description.endswith("about it\n\n(cut here: the file README.md of the model is whole)")


def test_the_champion_is_the_best_version_and_an_equal_one_does_not_take_its_place(store):
    champions = []
    for score in (0.8, 0.7, 0.9, 0.9, float("nan"), None, 0.85):
        store.register("best", score=score)
        champions.append(store.champion("best"))
    assert champions == [1, 1, 3, 3, 3, 3, 3]


def test_where_lower_is_better_the_champion_is_the_lowest(store):
    for score in (0.8, 0.7, 0.9):
        store.register("lowest", score=score, score_name="val/loss", higher_is_better=False)
    assert store.champion("lowest") == 2


def test_a_version_measured_by_another_metric_is_not_compared_and_that_is_said(store):
    store.register("other", score=0.9)
    store.lines.clear()
    store.register("other", score=99.0, score_name="val/macro_f1")
    assert store.champion("other") == 1
    assert store.lines == [
        "the alias 'champion' of the model other stays on version 1: it has no val/macro_f1 to compare"
    ]


def test_versions_measured_on_different_data_are_compared_and_that_is_said(store):
    store.register("data", score=0.8)
    store.lines.clear()
    store.register("data", score=0.9, fingerprint="f" * 16)
    assert store.champion("data") == 2
    assert store.lines == ["the versions of the model data were measured on different data; 'champion' is version 2"]


def test_a_model_of_an_earlier_version_is_registered_without_a_signature(store, tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.eye(6, dtype=np.float32), y=np.arange(6) % 2)
    folder = export(tmp_path, {"type": "npz", "path": str(tmp_path / "rows.npz")})[0]
    recipe = (folder / "recipe.json").read_text()
    (folder / "recipe.json").write_text(recipe.replace('"inputs"', '"unknown"'))
    (folder / "example.parquet").unlink()
    uri = Store(store.root, folder, None).register("old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store.uri)
        model = mlflow.pyfunc.load_model(uri)
    assert model.metadata.signature is None
    assert np.asarray(model.predict(np.eye(6, dtype=np.float32))).shape == (6, 2)


def test_a_fresh_process_with_mlflow_alone_answers_raw_rows(store, served, tmp_path):
    store.frame.drop(columns="y").to_csv(tmp_path / "new.csv", index=False)
    code = f"""
import mlflow, pandas
mlflow.set_tracking_uri({store.uri!r})
model = mlflow.pyfunc.load_model("models:/loaded@champion")
model.predict(pandas.read_csv({str(tmp_path / "new.csv")!r})).to_csv({str(tmp_path / "answers.csv")!r}, index=False)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    expected = served[1].predict(pd.read_csv(tmp_path / "new.csv"))
    assert same(pd.read_csv(tmp_path / "answers.csv"), expected)
