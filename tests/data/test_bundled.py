"""The digits are those of scikit-learn. Of the text of the standard library, validation follows the training text."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from activelr_service.data import inspect_data
from activelr_service.data.bundled import CHARS_VAL, _raw_digits, _read
from activelr_service.errors import JobError
from tests.data.test_data import assert_rows_match, data_config


def test_the_digits_are_those_that_scikit_learn_reads():
    known = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0)).numpy()
    images, labels = _raw_digits()
    assert (images.dtype, labels.dtype) == (known.images.dtype, known.target.dtype)
    assert np.array_equal(images, known.images[order])
    assert np.array_equal(labels, known.target[order])


def test_the_text_is_that_of_the_modules_in_order():
    config = data_config(type="stdlib_chars", block_size=32)
    _, train, val = assert_rows_match(config)
    text = b"".join(bytes(part.tensors[0].flatten().tolist()) for part in (train, val))
    assert hashlib.sha256(text).digest() == hashlib.sha256(_read((2048 + CHARS_VAL) * 32)).digest()
    assert "validation: the last 256 blocks of 32 characters" in inspect_data(config).notes


def test_no_row_is_repeated_and_more_rows_than_there_are_is_refused_with_the_largest_number():
    with pytest.raises(JobError, match=r"data\.num_train: .*use at most \d+") as caught:
        inspect_data(data_config(type="stdlib_chars", block_size=1024, num_train=8192))
    largest = int(str(caught.value).split("use at most ")[1].split(",")[0])
    config = data_config(type="stdlib_chars", block_size=1024, num_train=largest)
    _, train, val = assert_rows_match(config)
    known = {bytes(row.tolist()) for (row,) in train}
    assert not [row for (row,) in val if bytes(row.tolist()) in known]
    with pytest.raises(JobError):
        inspect_data(config.model_copy(update={"num_train": largest + 1}))
