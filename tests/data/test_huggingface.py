"""Image datasets saved by ``datasets``: read from disk as they are, with odd rows named."""

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Picture

from activelr_service.data import build_data, check_files, inspect_data, prepare_data
from activelr_service.errors import JobError
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


def test_a_saved_dataset_with_and_without_a_validation_split_is_read(tmp_path):
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


def saved(path, **splits):
    DatasetDict(splits).save_to_disk(str(path))
    return config(path)


def said(config):
    info = inspect_data(config)
    return "\n".join((*info.notes, *info.warnings))


def with_names(names, labels):
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"image": [picture()] * len(labels), "label": labels}, features)


def with_texts(labels):
    features = Features({"image": Image(), "label": Value("string")})
    return Dataset.from_dict({"image": [picture()] * len(labels), "label": labels}, features)


def test_labels_of_another_order_are_matched_by_name(tmp_path):
    data = saved(tmp_path / "d", train=rows(4), validation=with_names(["dog", "cat"], [0, 0, 1]))
    _, val = build_data(data)
    assert [val[index][1] for index in range(3)] == [1, 1, 0]
    with pytest.raises(JobError, match=r"data\.label_column: .*not among those trained on: cow"):
        inspect_data(saved(tmp_path / "odd", train=rows(4), validation=with_names(["dog", "cow"], [0, 1])))
    prepared = prepare_data(config(tmp_path / "d"), tmp_path)
    assert prepared.classes == ["cat", "dog"]
    other = saved(tmp_path / "other", train=with_names(["ant", "dog"], [1, 1]), test=with_names(["dog", "ant"], [0]))
    measured = build_data(other.model_copy(update={"classes": prepared.classes}))
    assert [part[0][1] for part in measured] == [1, 1]


def test_a_split_without_labels_is_not_used_and_that_is_said(tmp_path):
    for name, test in (("minus", with_names(["cat", "dog"], [-1] * 4)), ("none", rows(4).remove_columns("label"))):
        data = saved(tmp_path / name, train=rows(20), test=test, extra=rows(4))
        info, _, _ = assert_rows_match(data)
        assert (info.num_train, info.num_val) == (18, 2)
        assert "the split test has no labels and is not used" in info.warnings
        assert "left out: the splits test, extra" in said(data)


def test_split_names_are_told_in_any_case(tmp_path):
    data = saved(tmp_path / "d", Train=rows(6), DEV=rows(4), Test=rows(2))
    info, _, _ = assert_rows_match(data)
    assert (info.num_train, info.num_val) == (6, 4)
    assert "validation: the split DEV" in info.notes
    assert "test: the split Test; measured once, at the end" in info.notes
    assert info.num_test == 2
    assert any("byte for byte" in warning for warning in info.warnings)


def test_texts_are_labels_too(tmp_path):
    features = Features({"image": Image(), "label": Value("string")})
    texts = Dataset.from_dict({"image": [picture()] * 4, "label": ["dog", "ant", "dog", "ant"]}, features)
    info, train, _ = assert_rows_match(saved(tmp_path / "d", train=texts, test=texts))
    assert info.classes == ("ant", "dog")
    assert [train[index][1] for index in range(4)] == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            lambda: {"train": rows(4), "validation": rows(4).remove_columns("label")},
            "validation of .* no column 'label'",
        ),
        (
            lambda: {"train": rows(4), "validation": rows(4).remove_columns("image")},
            "validation of .* no column 'image'",
        ),
        (
            lambda: {"train": rows(4), "test": rows(4).cast_column("label", Value("int64"))},
            r"test of .* no column 'label' of type ClassLabel or of texts; .*label \(int64\); dataset\.cast_column",
        ),
        (lambda: {"train": rows(4), "validation": rows(0)}, "the split validation of .* has no rows; fill it"),
        (lambda: {"train": rows(0), "test": rows(4)}, "the split train of .* has no rows"),
        (lambda: {"train": rows(1)}, "has 1 rows and no class with two"),
        (
            lambda: {"train": with_names(["cat", "dog"], [0, 1, None, None])},
            "row 2 of the split train .* None.* 2 rows",
        ),
        (
            lambda: {"train": with_texts(["cat", "dog", " ", "cat"])},
            "row 2 of the split train .* label ' ', which is no",
        ),
        (lambda: {"train": with_names(["cat", "dog"], [0, -1, 1, 1])}, "row 1 of the split train .* label -1"),
        (lambda: {"train": rows(4), "val": rows(4), "dev": rows(4)}, "both mean the validation split"),
        (lambda: {"test": rows(4)}, "has no split train; it has test"),
        (lambda: {"train": with_names(["cat"], [0, 0])}, "has 1 classes; at least 2 are needed"),
    ],
)
def test_odd_splits_are_refused_before_anything_starts(tmp_path, splits, message):
    with pytest.raises(JobError, match=message):
        inspect_data(saved(tmp_path / "d", **splits()))


def test_corrupt_rows_are_found_before_a_training(tmp_path):
    images = [picture(), {"bytes": b"no image", "path": None}, None, picture()]
    data = saved(tmp_path / "d", train=rows(4, image=images), test=rows(2))
    with pytest.raises(JobError, match=r"data\.path: 2 of 6 images .*row 1 of the split train .*on_corrupt: skip"):
        check_files(data, None)
    check_files(config(tmp_path / "d", on_corrupt="skip"), None)
