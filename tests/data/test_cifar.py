"""CIFAR's published pickles: read without trusting them, and odd copies are named."""

import os
import pickle

import numpy as np
import pytest
import torch

from activelr_service.data import build_data, inspect_data
from activelr_service.data.cifar import MEAN, STD
from activelr_service.errors import JobError
from tests.data.generate_cifar import write_cifar
from tests.data.test_data import assert_rows_match, data_config


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(("name", "num_train", "num_classes"), [("cifar10", 100, 10), ("cifar100", 20, 100)])
def test_the_published_batches_are_read(tmp_path, name, num_train, num_classes, protocol):
    folder = write_cifar(tmp_path, name, protocol=protocol)
    for root in (tmp_path, folder):
        info, train, val = assert_rows_match(data_config(type=name, root=str(root)))
        assert (info.num_train, info.num_val, info.num_classes) == (num_train, 20, num_classes)
        assert info.classes[1] == "class 1"
        assert [train[index][1] for index in range(3)] == [0, 1, 2]
        assert val[0][0].dtype == torch.float32


def test_a_generated_copy_is_told_from_the_published_one_and_loads(tmp_path):
    write_cifar(tmp_path)
    (note,) = inspect_data(data_config(type="cifar10", root=str(tmp_path))).warnings
    assert "not the published files, by MD5: data_batch_1" in note


def test_validation_images_are_the_files_own_normalized_and_training_images_are_augmented(tmp_path):
    folder = write_cifar(tmp_path)
    raw = pickle.loads((folder / "test_batch").read_bytes())[b"data"].reshape(-1, 3, 32, 32)  # noqa: S301 - written above
    train, val = build_data(data_config(type="cifar10", root=str(tmp_path)))
    restored = val[3][0] * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    np.testing.assert_allclose(restored.numpy() * 255, raw[3], atol=1e-3)
    assert not torch.equal(train[0][0], train[0][0])
    plain, _ = build_data(data_config(type="cifar10", root=str(tmp_path), augment=False))
    assert torch.equal(plain[0][0], plain[0][0])


class Harmful:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Harmful(), "posix.system, which is not an array"),
        ({b"data": np.zeros((2, 3), np.uint8), b"labels": [0, 1]}, "of shape (rows, 3072)"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 11]}, "labels outside 0 to 9"),
        ([], "not a readable CIFAR batch"),
    ],
)
def test_a_file_that_is_no_batch_is_refused_by_name(tmp_path, content, message):
    folder = write_cifar(tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps(content))
    with pytest.raises(JobError) as caught:
        inspect_data(data_config(type="cifar10", root=str(tmp_path)))
    assert message in str(caught.value)


def test_a_truncated_or_missing_file_is_named(tmp_path):
    folder = write_cifar(tmp_path)
    batch = folder / "data_batch_2"
    batch.write_bytes(batch.read_bytes()[:500])
    with pytest.raises(JobError, match="data_batch_2 is not a readable CIFAR batch"):
        inspect_data(data_config(type="cifar10", root=str(tmp_path)))
    batch.unlink()
    with pytest.raises(JobError, match=r"no such file: .*data_batch_2; root is what holds cifar-10-batches-py"):
        inspect_data(data_config(type="cifar10", root=str(tmp_path)))


def test_what_was_read_is_said_and_odd_class_names_are_refused(tmp_path):
    folder = write_cifar(tmp_path)
    info = inspect_data(data_config(type="cifar10", root=str(tmp_path)))
    assert any("class 0 10/2, class 1 10/2" in note for note in info.notes)
    assert any(note.startswith("validation: test_batch, the published test images") for note in info.notes)
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"one"]}))
    with pytest.raises(JobError, match=r"batches\.meta names 1 classes, not 10"):
        inspect_data(data_config(type="cifar10", root=str(tmp_path)))
