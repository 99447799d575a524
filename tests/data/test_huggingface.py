"""Image datasets saved by ``datasets``: read from disk as they are, with odd rows named."""

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Picture

from activelr_service.config import JobError
from activelr_service.data import inspect_data
from tests.data.test_data import assert_rows_match, data_config

FEATURES = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])})


def picture(mode="RGB"):
    content = io.BytesIO()
    Picture.fromarray(np.full((20, 30, 3), 90, np.uint8)).convert(mode).save(content, "JPEG")
    return {"bytes": content.getvalue(), "path": None}


def rows(count, **changes):
    images = [picture("CMYK" if index == 1 else "RGB") for index in range(count)]
    return Dataset.from_dict({"image": images, "label": [index % 2 for index in range(count)], **changes}, FEATURES)


def config(path, **changes):
    return data_config(type="huggingface", path=str(path), image_size=16, **changes)


def test_a_saved_dataset_with_and_without_a_held_out_split_is_read(tmp_path):
    DatasetDict({"train": rows(6), "test": rows(4)}).save_to_disk(str(tmp_path / "two"))
    rows(10).save_to_disk(str(tmp_path / "one"))
    for folder, sizes in (("two", (6, 4)), ("one", (9, 1))):
        info, train, _ = assert_rows_match(config(tmp_path / folder))
        assert (info.num_train, info.num_val) == sizes
        assert info.classes == ("cat", "dog")
        assert {train[index][1] for index in range(len(train))} == {0, 1}


def test_a_corrupt_row_is_named_or_skipped(tmp_path):
    broken = {"bytes": picture()["bytes"][:100], "path": "broken.jpg"}
    DatasetDict({"train": rows(2, image=[picture(), broken]), "test": rows(2)}).save_to_disk(str(tmp_path / "d"))
    _, train, _ = assert_rows_match(config(tmp_path / "d"))
    with pytest.raises(ValueError, match=r"row 1 of .*d \(broken\.jpg\) cannot be decoded"):
        train[1]
    _, train, _ = assert_rows_match(config(tmp_path / "d", on_corrupt="skip"))
    assert train[1] == (None, 1)


def test_what_is_no_image_dataset_is_refused_by_name(tmp_path):
    Dataset.from_dict({"text": ["a", "b"]}, Features({"text": Value("string")})).save_to_disk(str(tmp_path / "text"))
    (tmp_path / "empty").mkdir()
    for folder, message in (
        ("text", r"data\.image_column: .* has no column 'image' of type Image; it has text \(string\)"),
        ("empty", r"data\.path: .*empty is not a dataset saved by datasets"),
        ("none", r"data\.path: no such folder"),
    ):
        with pytest.raises(JobError, match=message):
            inspect_data(config(tmp_path / folder))
