"""A model as one file: ONNX and torch.export answer as the model does, and say what they take."""

import json

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from activelr_service.errors import CommandError
from activelr_service.export import formats
from activelr_service.export.formats import ENDINGS, HALF_WEIGHTS, export_file
from activelr_service.inference.predictor import Predictor
from activelr_service.tracking.mlflow_model import read_example
from tests.conftest import activelr
from tests.inference.conftest import export

KINDS = ["onnx", "torch"]


def run_file(path, kind, rows):
    """The answers of a file, read as any program reads it."""
    rows = np.asarray(rows, np.float32)
    if kind == "onnx":
        return onnxruntime.InferenceSession(path).run(None, {"input": rows})[0]
    return torch.export.load(path).module()(torch.from_numpy(rows)).numpy()


def numbers(answers):
    return answers.drop(columns="prediction" if "probability_large" in answers else []).to_numpy(np.float64)


def by_hand(features, row):
    """A raw row as the file takes it, made of the description beside the file alone."""
    values = []
    for feature in features:
        cell = row[feature["column"]]
        is_missing = pd.isna(cell)
        if "category" in feature:
            values.append(float(cell == feature["category"]))
        else:
            values.append(0.0 if is_missing else (cell - feature["mean"]) / feature["std"])
    return values


@pytest.fixture(scope="module", params=["onnx", "onnx half", "torch", "torch half"])
def exported(request, predictor, tmp_path_factory):
    """A model, the kind of its file, and what exporting it returned."""
    kind, _, half = request.param.partition(" ")
    return (
        predictor,
        kind,
        export_file(predictor, kind, tmp_path_factory.mktemp("exported") / f"file{ENDINGS[kind]}", bool(half)),
    )


def test_a_file_answers_raw_rows_as_the_model_does_whatever_their_number(exported):
    predictor, kind, done = exported
    about = json.loads(done.description.read_text())
    rows = predictor.example()
    taken = [by_hand(about["input"]["features"], row) for row in rows.to_dict("records")]
    expected = numbers(predictor.predict(rows))
    scale = 1 if predictor.task == "classification" else predictor.data.target_column.std
    for count in (1, 2, 3, len(rows)):
        found = run_file(done.path, kind, taken[:count])
        np.testing.assert_allclose(found, expected[:count], rtol=done.tolerance, atol=done.tolerance * scale)
    assert set(done.path.parent.iterdir()) == {done.path, done.description}


def test_a_file_holds_its_own_description(exported):
    predictor, kind, done = exported
    about = json.loads(done.description.read_text())
    if kind == "onnx":
        inside = onnxruntime.InferenceSession(done.path).get_modelmeta().custom_metadata_map
        assert json.loads(inside["input"]) == about["input"]
    else:
        files = {"model.json": ""}
        torch.export.load(done.path, extra_files=files)
        assert json.loads(files["model.json"])["input"] == about["input"]
    assert about["checked"] == {"rows": 8, "largest_difference": done.difference, "tolerance": done.tolerance}
    assert about.get("classes") == (predictor.classes if predictor.task == "classification" else None)


def test_a_file_whose_answers_differ_is_not_written_and_the_one_before_stays(classifier, tmp_path, monkeypatch):
    predictor, path = Predictor.load(classifier[0]), tmp_path / "file.pt2"
    export_file(predictor, "torch", path)
    before = path.read_bytes()
    monkeypatch.setitem(formats.TOLERANCES, True, 1e-12)
    with pytest.raises(CommandError, match=r"differ from the model's by .* nothing is exported; try it without --half"):
        export_file(predictor, "torch", path, is_half=True)
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file.pt2", "file.pt2.json"]


def test_where_half_precision_is_not_enough_only_the_weights_are_half(classifier, tmp_path, monkeypatch):
    predictor = Predictor.load(classifier[0])
    difference = {}
    for precision in ("float16", HALF_WEIGHTS):
        difference[precision] = formats._write(predictor, "torch", tmp_path / "x.pt2", precision, 1e-3).difference
    assert 0 < difference[HALF_WEIGHTS] < difference["float16"]
    monkeypatch.setitem(formats.TOLERANCES, True, (difference[HALF_WEIGHTS] + difference["float16"]) / 2)
    done = export_file(predictor, "torch", tmp_path / "file.pt2", is_half=True)
    assert (done.precision, done.difference) == (HALF_WEIGHTS, difference[HALF_WEIGHTS])
    assert json.loads(done.description.read_text())["precision"] == HALF_WEIGHTS


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_torch_cannot_export_is_one_line_and_leaves_nothing(classifier, kind, tmp_path):
    class Wayward(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, rows):
            return self.inner(rows) if float(rows.sum()) > -1e9 else self.inner(rows) + 1

    predictor = Predictor.load(classifier[0])
    predictor.module = Wayward(predictor.module)
    with pytest.raises(CommandError, match=f"torch cannot export this model as {kind}: ") as caught:
        export_file(predictor, kind, tmp_path / f"file{ENDINGS[kind]}")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_export_leaves_the_model_as_it_was(classifier, tmp_path):
    predictor = Predictor.load(classifier[0])
    before = predictor.predict(predictor.example())
    export_file(predictor, "torch", tmp_path / "file.pt2", is_half=True)
    assert predictor.predict(predictor.example()).equals(before)
    assert all(parameter.dtype == torch.float32 for parameter in predictor.module.parameters())


def test_arrays_are_exported_and_say_what_they_are_divided_by(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", x=rng.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8), y=np.arange(60) % 3)
    predictor = Predictor.load(export(tmp_path, {"type": "npz", "path": str(tmp_path / "rows.npz")})[0])
    done = export_file(predictor, "onnx", tmp_path / "file.onnx")
    about = json.loads(done.description.read_text())["input"]
    assert (about["shape"], about["divided_by"]) == (["rows", 1, 4, 4], 255)
    rows = read_example(predictor.folder)
    taken = [np.array(cell, np.float32) / about["divided_by"] for cell in rows["input"]]
    expected = predictor.predict(rows).drop(columns="prediction").to_numpy(np.float64)
    np.testing.assert_allclose(run_file(done.path, "onnx", taken), expected, atol=1e-5)


def test_a_model_without_rows_to_check_it_with_is_not_exported(classifier, tmp_path):
    predictor = Predictor.load(classifier[0])
    predictor.folder = tmp_path
    with pytest.raises(CommandError, match="keeps no example rows to check an export with"):
        export_file(predictor, "onnx", tmp_path / "file.onnx")


@pytest.mark.slow
def test_the_command_writes_beside_the_model_and_says_what_was_checked(classifier):
    folder = classifier[0]
    result = activelr("export", folder, "--format", "torch", "--half")
    assert result.returncode == 0, result.stderr
    assert f"exported to {folder.parent / 'model-half.pt2'}; model-half.pt2.json says what it takes" in result.stdout
    assert "checked on 8 rows of the validation data" in result.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [("no/file.pt2", "there is no folder"), ("file.onnx", r"ends in \.pt2, got file\.onnx")],
)
def test_a_file_that_cannot_be_written_is_refused_first(classifier, tmp_path, name, message):
    with pytest.raises(CommandError, match=message):
        export_file(Predictor.load(classifier[0]), "torch", tmp_path / name)
    assert list(tmp_path.iterdir()) == []
