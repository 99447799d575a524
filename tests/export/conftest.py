"""Models of tables with numbers, categories and gaps, exported as the end of a run exports them."""

import numpy as np
import pandas as pd
import pytest

from activelr_service.inference.predictor import Predictor
from tests.inference.conftest import export


def write_table(folder, target):
    """A table of 90 rows whose columns are integers, numbers with gaps, and categories with names that are hard to write."""
    rng = np.random.default_rng(0)
    age, size = rng.integers(18, 80, 90), rng.normal(7, 3, 90)
    frame = pd.DataFrame({"age": age, "size | cm": size, "place": rng.choice(["a_b", "*c*", "d"], 90)})
    kind = np.select([size < 6, size < 8], ["small_one", "*mid*"], "large")
    frame["y"] = kind if target == "classification" else 1000 + 50 * size + age
    frame.loc[::7, "size | cm"] = np.nan
    frame.loc[::11, "place"] = None
    frame.to_csv(folder / "rows.csv", index=False)
    return frame


def export_table(folder, target):
    """The folder of a model of such a table, and the table."""
    frame = write_table(folder, target)
    temperature = 1.7 if target == "classification" else 1.0
    data = {"type": "table", "path": str(folder / "rows.csv"), "target": "y"}
    return export(folder, data, temperature=temperature)[0], frame


@pytest.fixture(scope="package", params=["classification", "regression"])
def predictor(request, tmp_path_factory):
    return Predictor.load(export_table(tmp_path_factory.mktemp(request.param), request.param)[0])


@pytest.fixture(scope="package")
def classifier(tmp_path_factory):
    """The folder of a classifier of a table, and the table."""
    return export_table(tmp_path_factory.mktemp("classifier"), "classification")
