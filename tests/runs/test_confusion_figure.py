"""The confusion matrix as a table that can be read back, and as a picture for any number of classes and any names."""

import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from activelr_service.runs.confusion_figure import _label, write_confusion

NAMES = {
    "two": ["no", "yes"],
    "odd": ["a $b$ c", "猫", "", "a name that is much longer than an axis of a picture has room for", 'x, "y"\nz'],
    "ten": [str(number) for number in range(10)],
    "many": [f"species number {number}" for number in range(110)],
}


@pytest.mark.parametrize("kind", ["two", "odd", "ten", pytest.param("many", marks=pytest.mark.slow)])
def test_the_table_has_the_counts_and_the_names_and_the_picture_is_drawn_without_a_warning(tmp_path, kind):
    names = NAMES[kind]
    counts = np.random.default_rng(0).integers(0, 50, (len(names), len(names))).astype(np.int32)
    counts[0] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture, path = write_confusion(tmp_path / "figures", counts, names, f"{kind}/001 " + 60 * "x")
    table = pd.read_csv(path, index_col=0, keep_default_na=False, dtype={"true class": str})
    assert table.index.tolist() == names
    assert np.array_equal(table.to_numpy(), counts)
    height, width = imread(picture).shape[:2]
    assert 400 < width < 2500
    assert 400 < height < 2500


def test_a_long_name_keeps_its_ends_and_one_that_cannot_be_drawn_is_a_number():
    assert _label("a name that is much longer than this", 3) == "a name that is…than this"
    assert _label("猫", 3) == "#3"
    assert _label("Käse", 3) == "Käse"
