"""Arrays: targets are what the task says, both parts are on one scale, and what is odd is said or refused."""

import json

import numpy as np
import pytest
import torch

from activelr_service.config.model import MLPModelConfig
from activelr_service.data import build_data, for_task, inspect_data
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.export.model import load_model
from activelr_service.models import build_model
from activelr_service.pyfunc import PyFuncModel
from tests.conftest import export_model
from tests.data.test_data import data_config

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)).astype(np.float32)
PIXELS = RNG.integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(30) % 3


def save(tmp_path, task=None, **arrays):
    np.savez(tmp_path / "d.npz", **arrays)
    return for_task(data_config(type="npz", path=str(tmp_path / "d.npz")), task)


def test_float_targets_of_whole_numbers_are_classes_if_the_task_says_so(tmp_path):
    config = save(tmp_path, "classification", x=X, y=LABELS.astype(np.float64), x_val=X, y_val=LABELS)
    info = inspect_data(config)
    assert (info.tasks, info.num_classes) == (("classification",), 3)
    assert [part.tensors[1].dtype for part in build_data(config)] == [torch.int64, torch.int64]
    with pytest.raises(JobError, match=r"y holds 0\.5 in row 2, which is no class"):
        inspect_data(save(tmp_path, "classification", x=X, y=LABELS / 2))


def test_integer_targets_are_numbers_if_the_task_says_so(tmp_path):
    config = save(tmp_path, "regression", x=X, y=LABELS - 5)
    info = inspect_data(config)
    assert (info.tasks, info.num_outputs, info.num_classes) == (("regression",), 1, None)
    assert build_data(config)[0].tensors[1].dtype == torch.float32
    assert "y is read as numbers, for the task; it is int64" in info.notes


def test_how_the_targets_are_read_and_split_is_said(tmp_path):
    info = inspect_data(save(tmp_path, x=X, y=LABELS, extra=X))
    assert info.notes[1:] == (
        "arrays that are not read: extra",
        "validation: 6 of 30 rows, drawn with seed 0, from each class its share",
        "y is read as classes, since it is int64; for numbers, set task: regression",
        "classes, with their training and validation samples: 0 8/2, 1 8/2, 2 8/2",
    )
    assert "x (30, 4) float32, y (30,) int64" in info.notes[0]
    train, val = build_data(save(tmp_path, x=X, y=LABELS))
    assert train.tensors[1].bincount().tolist() == [8, 8, 8]
    assert val.tensors[1].bincount().tolist() == [2, 2, 2]


def test_columns_and_truths_are_classes_too(tmp_path):
    config = save(tmp_path, x=X, y=LABELS[:, None])
    assert "y has shape (30, 1), read as (30,)" in inspect_data(config).notes
    assert build_data(config)[0].tensors[1].shape == (24,)
    assert inspect_data(save(tmp_path, x=X, y=LABELS > 1)).num_classes == 2


def test_classes_that_are_skipped_or_on_one_side_only_are_warned_of(tmp_path):
    info = inspect_data(save(tmp_path, x=X, y=LABELS * 2, x_val=X[:9] + 1, y_val=np.full(9, 5)))
    assert "classes only among the validation samples, so that nothing teaches them (1 of 6): '5'" in info.warnings
    assert "classes without any samples (2 of 6): '1', '3'" in info.warnings


@pytest.mark.parametrize(
    ("x", "x_val", "divisors"),
    [
        (PIXELS, PIXELS / 255, (255, 1)),
        (PIXELS, PIXELS.astype(np.float32), (255, 255)),
        (PIXELS / np.float32(255), PIXELS, (1, 255)),
        (PIXELS.astype(np.int32), PIXELS, (1, 1)),
        ((PIXELS > 9) * 1.0, (PIXELS > 9).astype(np.uint8), (1, 1)),
    ],
)
def test_both_parts_end_on_one_scale_whatever_their_types_and_that_is_said(tmp_path, x, x_val, divisors):
    config = save(tmp_path, x=x, y=LABELS, x_val=x_val[::-1], y_val=LABELS[::-1])
    train, val = build_data(config)
    torch.testing.assert_close(train.tensors[0], val.tensors[0].flip(0))
    torch.testing.assert_close(train.tensors[0], torch.tensor(x.astype(np.float32) / divisors[0]))
    info = inspect_data(config)
    assert f"x is divided by {divisors[0]} and x_val is divided by {divisors[1]}, so that both" in info.warnings[0]
    assert info.input_scale == divisors[0]


def test_parts_on_different_scales_are_refused(tmp_path):
    for x in (RNG.normal(size=PIXELS.shape), PIXELS * 100.0):
        with pytest.raises(JobError, match=r"x is float64 from .* and x_val is uint8 from 0 to 255: store both on one"):
            inspect_data(save(tmp_path, x=x, y=LABELS, x_val=PIXELS, y_val=LABELS))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.where(np.arange(120).reshape(30, 4) == 41, np.nan, 1.0)}, "x holds NaN, .* first in row 11"),
        ({"x": np.full((30, 4), 1e39)}, "too large for float32, the first in row 1"),
        ({"x": X, "x_val": np.full((30, 4), np.inf), "y_val": LABELS}, "x_val holds NaN, infinity"),
        ({"x": X.astype(complex)}, "x is of type complex128"),
        (
            {"x": X, "y": np.array(["cat", "dog", "emu"])[LABELS]},
            r"y is of type <U3.*np\.unique\(y, return_inverse=True\)",
        ),
        ({"x": X, "y": np.eye(3, dtype=int)[LABELS]}, r"y has shape \(30, 3\).*y\.argmax\(axis=1\)"),
        ({"x": X, "y": LABELS * 0}, "y is 0 in every row"),
        ({"x": X, "y": LABELS * 0 + 0.5}, "y is 0.5 in every row"),
        ({"x": X, "y": LABELS * 10**6}, "3 different labels, the largest of them 2,000,000; number the classes from 0"),
        ({"x": X, "x_val": X}, "has x_val and no y_val"),
        ({"x": X, "y_val": LABELS}, "has y_val and no x_val"),
        ({"x": X, "x_val": X, "y_val": LABELS / 2}, r"y_val holds 0\.5 in row 2"),
        (
            {"x": X, "x_val": X, "y_val": np.stack([LABELS, LABELS], 1)},
            r"y has rows of shape \(\), y_val of shape \(2,\)",
        ),
        ({"X": X}, "has no array 'x'; found: y, X"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_at_once(tmp_path, arrays, message):
    with pytest.raises(JobError, match=message) as caught:
        inspect_data(save(tmp_path, **{"y": LABELS, **arrays}))
    assert str(caught.value).startswith(f"data.path: {tmp_path / 'd.npz'}: ")


@pytest.mark.parametrize(
    ("x", "hint"),
    [
        (PIXELS[:, 0], r"rows of shape (8, 8); image models take (channels, height, width): np.repeat(x[:, None], 3"),
        (PIXELS.transpose(0, 2, 3, 1), "channels come last; image models take (channels, height, width): x.transpose"),
        (PIXELS * 1.0, "x is float64 from 0 to 255 and is not scaled"),
        (PIXELS // 200, "its largest value is 1"),
    ],
)
def test_images_in_another_layout_or_scale_are_warned_of(tmp_path, x, hint):
    info = inspect_data(save(tmp_path, x=x, y=LABELS))
    assert len(info.warnings) == 1
    assert hint in info.warnings[0]
    assert info.input_shape == x.shape[1:]
    assert inspect_data(save(tmp_path, x=PIXELS, y=LABELS)).warnings == ()


def test_rows_on_both_sides_are_counted(tmp_path):
    info = inspect_data(save(tmp_path, x=X, y=LABELS, x_val=np.concatenate([X[:1] + 1, X[:7]]), y_val=LABELS[:8]))
    assert "7 of 8 validation rows of x are training rows, too (first: row 2)" in info.warnings[0]


def test_a_model_of_stored_pixels_predicts_from_pixels_and_from_what_they_were_scaled_to(tmp_path):
    info = inspect_data(save(tmp_path, x=PIXELS, y=LABELS))
    info = DataInfo.from_json(json.loads(json.dumps(info._asdict())))
    config = MLPModelConfig(hidden=[4])
    export_model(tmp_path / "exported", build_model(config, info, "classification"), config, info, "classification")
    model = PyFuncModel(load_model(tmp_path / "exported"))
    scaled = model.predict((PIXELS / 255).astype(np.float32))
    np.testing.assert_allclose(model.predict(PIXELS), scaled, atol=1e-5)
    np.testing.assert_allclose(model.predict(PIXELS.astype(np.int64)), scaled, atol=1e-5)


def test_few_whole_floats_are_numbers_with_a_warning_unless_the_task_says_it(tmp_path):
    arrays = {"x": X, "y": LABELS.astype(np.float32)}
    info = inspect_data(save(tmp_path, **arrays))
    assert info.tasks == ("regression",)
    assert "y has only 3 different values, all of them whole, and is read as numbers" in info.warnings
    assert "for classes, set task: classification" in info.notes[2]
    assert inspect_data(save(tmp_path, "regression", **arrays)).warnings == ()


def test_a_damaged_array_is_refused_with_the_file(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=X, y=LABELS)
    content = bytearray((tmp_path / "d.npz").read_bytes())
    content[250:300] = bytes(50)
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(JobError, match=r"d\.npz is not a readable \.npz file"):
        inspect_data(data_config(type="npz", path=str(tmp_path / "d.npz")))


def test_half_precision_inputs_are_read_without_a_warning(tmp_path, recwarn):
    assert inspect_data(save(tmp_path, x=X.astype(np.float16), y=LABELS)).warnings == ()
    assert not recwarn.list


def test_validation_inputs_of_the_same_type_on_another_scale_are_warned_of(tmp_path):
    unit = np.abs(X) / np.abs(X).max()
    info = inspect_data(save(tmp_path, x=unit, y=LABELS, x_val=unit * 255, y_val=LABELS))
    assert "x is from 0" in info.warnings[0]
    assert "different scales" in info.warnings[0]
    assert "scales" not in str(inspect_data(save(tmp_path, x=X, y=LABELS, x_val=X * 90, y_val=LABELS)).warnings)
