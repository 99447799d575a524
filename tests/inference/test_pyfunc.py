"""mlflow.pyfunc: a model that MLflow loads takes raw rows in the forms that people have them in."""

from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest

from activelr_service.errors import InputError
from activelr_service.inference.predictor import Predictor
from activelr_service.pyfunc import _load_pyfunc
from tests.data.generate_images import write_images
from tests.inference.conftest import export
from tests.inference.test_predictor import TINY_GPT, flowers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    flowers().to_csv(folder / "flowers.csv", index=False)
    data = {"type": "table", "path": str(folder / "flowers.csv"), "target": "kind", "ignore": ["price", "color"]}
    return export(folder, data)[0]


def test_mlflow_loads_the_folder_and_answers_rows_of_a_frame(folder, tmp_path):
    loader = {"loader_module": "activelr_service.pyfunc", "data_path": str(folder), "pip_requirements": []}
    mlflow.pyfunc.save_model(tmp_path / "m", **loader)
    answers = mlflow.pyfunc.load_model(str(tmp_path / "m")).predict(flowers(5))
    pd.testing.assert_frame_equal(answers, Predictor.load(folder).predict(flowers(5)))


FORMS = {
    "dict of columns": lambda rows: rows.to_dict("list"),
    "list of dicts": lambda rows: rows.to_dict("records"),
    "array in the order of the columns": lambda rows: rows.to_numpy(),
    "list of lists": lambda rows: rows.to_numpy().tolist(),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_rows_of_a_table_may_have_other_forms(folder, form):
    rows = flowers(4)[["length", "width", "grade"]]
    pd.testing.assert_frame_equal(
        _load_pyfunc(str(folder)).predict(FORMS[form](rows)), Predictor.load(folder).predict(rows)
    )


def test_an_array_with_too_few_columns_is_refused_by_their_names(folder):
    model = _load_pyfunc(str(folder))
    with pytest.raises(InputError, match="rows of 3 values are needed, in the order of the columns 'length', 'width'"):
        model.predict(np.zeros((4, 2)))
    assert model.module.task == "classification"


def test_what_is_missing_is_none_so_that_json_can_carry_it(folder):
    answers = _load_pyfunc(str(folder)).predict(flowers(2).assign(width=["1", "x"]))
    assert answers["prediction"].tolist()[1] is None
    assert answers["probability_ant"].tolist()[1] is None
    assert answers["error"].tolist() == [None, "column 'width': 'x' is no number"]


def test_images_are_paths_or_bytes_also_without_a_frame(tmp_path):
    write_images(tmp_path / "data")
    out = export(tmp_path, {"type": "imagefolder", "root": str(tmp_path / "data"), "image_size": 16})[0]
    model, paths = _load_pyfunc(str(out)), sorted(map(str, (tmp_path / "data").rglob("*.png")))[:3]
    answers = model.predict(pd.DataFrame({"image": paths}))
    for inputs in (paths, [Path(path).read_bytes() for path in paths], pd.Series(paths)):
        pd.testing.assert_frame_equal(model.predict(inputs), answers)
    pd.testing.assert_frame_equal(model.predict(paths[0], {"batch_size": 1}), answers.iloc[:1], rtol=1e-5)


def test_texts_take_parameters(tmp_path):
    model = {**TINY_GPT, "config": {**TINY_GPT["config"], "n_positions": 32}}
    out = export(tmp_path, {"type": "stdlib_chars", "block_size": 32, "num_train": 8}, model)[0]
    answers = _load_pyfunc(str(out)).predict(["import os", "def f"], {"max_new_tokens": 3})
    assert answers["generated"].map(len).tolist() == [3, 3]
