"""Datasets: what inspect says is what build makes, and bad data are refused with their place."""

import os
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from activelr_service.config import parse_job
from activelr_service.config.data import DataConfig
from activelr_service.data import DATA_TYPES, build_data, inspect_data
from activelr_service.errors import JobError
from activelr_service.service.check import check_job


def data_config(**data):
    job = {"kind": "train", "name": "x", "model": {"type": "mlp"}, "epochs": 1, "data": data}
    return parse_job(job).data


def assert_rows_match(config):
    info = inspect_data(config)
    train, val = build_data(config)
    assert (len(train), len(val)) == (info.num_train, info.num_val)
    assert tuple(train[0][0].shape) == tuple(val[0][0].shape) == info.input_shape
    return info, train, val


def test_digits_are_the_real_ones_split_without_overlap():
    info, train, val = assert_rows_match(data_config(type="digits", image_size=8))
    assert info.num_classes == 10
    assert (len(train), len(val)) == (1437, 360)
    rows = torch.cat([train.tensors[0], val.tensors[0]]).flatten(1)
    assert len(rows.unique(dim=0)) == 1797
    assert (rows.min(), rows.max()) == (0, 1)
    counts = zip(*(part.tensors[1].bincount().tolist() for part in (train, val)), strict=True)
    assert info.notes[1].endswith(", ".join(f"{digit} {a}/{b}" for digit, (a, b) in enumerate(counts)))


def test_npz_infers_the_task_from_the_targets(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 4)).astype(np.float32)
    cases = [
        ({"x": x, "y": np.arange(20) % 3}, ("classification", "regression"), {"num_classes": 3}),
        ({"x": x, "y": x[:, :2]}, ("regression",), {"num_outputs": 2}),
        ({"x": np.arange(100).reshape(20, 5) % 7}, ("language_modeling",), {"vocab_size": 7}),
        (
            {"x": x, "y": np.arange(20) % 3, "x_val": x[:4], "y_val": np.arange(4) % 3},
            ("classification", "regression"),
            {},
        ),
    ]
    for arrays, tasks, expected in cases:
        np.savez(tmp_path / "data.npz", **arrays)
        info, _, val = assert_rows_match(data_config(type="npz", path=str(tmp_path / "data.npz")))
        assert info.tasks == tasks
        assert len(val) == 4
        for name, value in expected.items():
            assert getattr(info, name) == value


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"y": np.arange(3)}, "has no array 'x'"),
        ({"x": np.ones((4, 2)), "y": np.arange(3)}, "same number of rows"),
        ({"x": np.ones((4, 2)), "y": np.array([0, 1, -1, 0])}, "negative"),
        ({"x": np.ones((4, 2)), "y": np.array([0.0, np.nan, 1.0, 1.0])}, "NaN"),
        ({"x": np.ones((4, 2))}, "integer token ids"),
        ({"x": np.array([{"a": 1}, {"b": 2}], dtype=object).reshape(2, 1), "y": np.arange(2)}, "Python objects"),
        ({"x": np.ones((4, 2)), "y": np.arange(4), "x_val": np.ones((4, 3)), "y_val": np.arange(4)}, "rows of shape"),
    ],
)
def test_bad_arrays_are_refused_with_the_file(tmp_path, arrays, expected):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(JobError, match=expected) as caught:
        inspect_data(data_config(type="npz", path=str(path)))
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_npz_is_refused_and_nothing_in_it_is_executed(tmp_path):
    path = tmp_path / "data.npz"
    for content in (b"", b"PK\x03\x04 broken", os.urandom(200)):
        path.write_bytes(content)
        with pytest.raises(JobError, match="not a readable"):
            inspect_data(data_config(type="npz", path=str(path)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(JobError, match="not a readable"):
        inspect_data(data_config(type="npz", path=str(path)))
    assert not Path("pwned").exists()


def test_users_data_come_by_entry_point(tmp_path, monkeypatch):
    install_entry_points(tmp_path, monkeypatch)
    info, _, _ = assert_rows_match(data_config(type="python", name="squares", args={"rows": 12}))
    assert (info.num_train, info.num_classes) == (12, 3)
    with pytest.raises(JobError, match=r'data\.name: .*did you mean "squares"'):
        inspect_data(data_config(type="python", name="square"))
    with pytest.raises(JobError, match=r"data\.args: squares: .*cols"):
        inspect_data(data_config(type="python", name="squares", args={"cols": 1}))


def test_a_class_count_that_disagrees_with_the_data_is_refused():
    job = {
        "kind": "train",
        "name": "x",
        "epochs": 1,
        "data": {"type": "digits"},
        "model": {"type": "mlp", "num_classes": 7},
    }
    with pytest.raises(JobError, match=r"model\.num_classes: the data have 10 classes, got 7"):
        check_job(parse_job(job))


def install_entry_points(folder, monkeypatch):
    """A package as pip would leave it: a module and its metadata."""
    (folder / "user_package.py").write_text(
        "import torch\n"
        "from torch.utils.data import TensorDataset\n"
        "def squares(rows):\n"
        "    def part(n):\n"
        "        data = TensorDataset(torch.rand(n, 4), torch.arange(n) % 3)\n"
        "        data.num_classes = 3\n"
        "        return data\n"
        "    return part(rows), part(4)\n"
        "def net(width):\n"
        "    return torch.nn.Linear(4, width)\n"
    )
    metadata = folder / "user_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: user-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[activelr.data]\nsquares = user_package:squares\n[activelr.models]\nnet = user_package:net\n"
    )
    monkeypatch.syspath_prepend(str(folder))


def test_every_type_of_data_that_a_job_can_name_is_implemented():
    union, _ = get_args(DataConfig)
    assert {config.model_fields["type"].default for config in get_args(union)} == set(DATA_TYPES)
