"""Folders of images: splits and classes are told as people lay them out, all that is left out is said, and what cannot be
right is refused."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from activelr_service.data import build_data, check_files, inspect_data, prepare_data
from activelr_service.errors import JobError
from tests.conftest import small_job
from tests.data.generate_images import write_images, write_pixels
from tests.data.test_data import assert_rows_match, data_config
from tests.training.test_loop import resolved
from tests.training.test_loop import train as train_job


def folder(root, **changes):
    return data_config(type="imagefolder", root=str(root), image_size=16, **changes)


def sides(config):
    """The training and the validation files, relative to the root."""
    return [{os.path.relpath(path, config.root) for path in part.files.paths} for part in build_data(config)]


def said(config):
    info = inspect_data(config)
    return "\n".join((*info.notes, *info.warnings))


@pytest.mark.parametrize("is_split", [True, False])
def test_imagefolder_reads_both_layouts(tmp_path, is_split):
    for root in (tmp_path / "train", tmp_path / "val") if is_split else (tmp_path,):
        write_images(root)
    info, train, val = assert_rows_match(folder(tmp_path, val_fraction=0.25))
    assert info.classes == ("cat", "dog")
    assert {train[i][1] for i in range(len(train))} == {0, 1}
    if not is_split:
        assert (len(train), len(val)) == (9, 3)


@pytest.mark.parametrize(
    ("folders", "used", "test"),
    [
        (["train", "test"], ("train", "test"), None),
        (["Train", "VAL"], ("Train", "VAL"), None),
        (["training", "validation", "test"], ("training", "validation"), "test"),
        (["training_set", "test_set"], ("training_set", "test_set"), None),
        (["train", "dev"], ("train", "dev"), None),
        (["TRAIN", "Valid", "Testing", ".cache", "docs"], ("TRAIN", "Valid"), "Testing"),
    ],
)
def test_split_folders_are_told_in_any_case_and_what_is_kept_for_a_test_is_said(tmp_path, folders, used, test):
    for name in folders:
        write_images(tmp_path / name)
    info = inspect_data(folder(tmp_path))
    assert (info.classes, info.num_train, info.num_val) == (("cat", "dog"), 12, 12)
    train, val = sides(folder(tmp_path))
    assert {path.split("/")[0] for path in train} == {used[0]}
    assert {path.split("/")[0] for path in val} == {used[1]}
    assert any(note.startswith(f"validation: the folder {tmp_path / used[1]}") for note in info.notes)
    assert (f"test: the folder {tmp_path / test}; measured once, at the end" in info.notes) if test else True
    assert info.num_test == (12 if test else 0)
    assert "docs" not in folders or any("left out: docs" in warning for warning in info.warnings)


def test_a_train_folder_alone_is_split_and_an_unlabeled_test_folder_is_left_out(tmp_path):
    write_images(tmp_path / "train", count=10)
    assert inspect_data(folder(tmp_path)).classes == ("cat", "dog")
    write_pixels(tmp_path / "test", {"1.png": Image.new("RGB", (9, 9))})
    info = inspect_data(folder(tmp_path))
    assert (info.num_train, info.num_val) == (18, 2)
    assert any("which has no class folders" in warning for warning in info.warnings)


def test_a_class_called_train_among_others_is_a_class(tmp_path):
    write_images(tmp_path, classes=("bus", "car", "train", "test"))
    info = inspect_data(folder(tmp_path))
    assert info.classes == ("bus", "car", "test", "train")
    assert any("taken as a class" in warning for warning in info.warnings)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["test/cat", "val/dog"], "has test, val and no folder train"),
        (["val/cat", "valid/cat", "train/cat", "train/dog"], "both mean the validation split"),
        (["train/cat", "train/dog", "bus", "car"], "called as splits .*among others.*rename"),
        (["a/train/cat", "a/train/dog", "a/test/cat"], "1 class folders; at least 2 are needed; did you mean .*/a"),
        (["train", "test"], "train has no class folders"),
        (["cat"], "1 class folders"),
        (["train/cat", "train/dog", "val/Cat", "val/dog"], "Cat is spelled cat there"),
        (["train/cat", "train/dog", "val/cow", "val/dog"], "not among those trained on: cow"),
    ],
)
def test_folders_that_cannot_be_right_are_refused_with_the_remedy(tmp_path, paths, message):
    for path in paths:
        write_pixels(tmp_path / path, {f"{index}.png": Image.new("RGB", (9, 9)) for index in range(2)})
    for check in (inspect_data, lambda config: inspect_data(prepare_data(config, tmp_path))):
        with pytest.raises(JobError, match=rf"data\.root: .*{message}"):
            check(folder(tmp_path))


def test_folders_that_may_be_splits_under_other_names_are_warned_of(tmp_path):
    write_images(tmp_path / "train2017")
    write_images(tmp_path / "val2017")
    assert "train2017, val2017" in said(folder(tmp_path))
    assert "hold the same folders: cat, dog; if those are the classes" in said(folder(tmp_path))
    write_pixels(tmp_path / "val2017", {"1.png": Image.new("RGB", (9, 9))})
    assert "the same folders" not in said(folder(tmp_path))


def test_imagefolder_says_what_is_wrong_with_the_folder(tmp_path):
    with pytest.raises(JobError, match=r"data\.root: no such folder"):
        inspect_data(folder(tmp_path / "none"))
    with pytest.raises(JobError, match="0 class folders"):
        inspect_data(folder(tmp_path))
    write_images(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.heic").write_bytes(b"x")
    with pytest.raises(JobError, match=r"without an image .*: empty; left out: 1 \.heic"):
        inspect_data(folder(tmp_path))


def test_hidden_files_and_folders_are_no_data(tmp_path):
    write_images(tmp_path)
    before = sides(folder(tmp_path))
    for name in (".ipynb_checkpoints", "__MACOSX", "cat/.ipynb_checkpoints", "dog/@eaDir"):
        write_pixels(tmp_path / name, {"0-checkpoint.png": Image.new("RGB", (9, 9))})
    for name in ("cat/._0.png", "dog/.DS_Store", "dog/Thumbs.db", "cat/desktop.ini", ".hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    assert sides(folder(tmp_path)) == before
    assert "left out" not in said(folder(tmp_path))


def test_every_format_that_is_decoded_is_read_in_any_case_and_the_rest_is_counted(tmp_path):
    write_images(tmp_path)
    image = Image.new("RGB", (9, 9))
    suffixes = ("gif", "jfif", "jpe", "WEBP", "TIF", "JPG", "avif", "jp2", "ico", "tga", "pcx")
    for suffix in suffixes:
        image.save(tmp_path / "cat" / f"x.{suffix}")
    for name in ("cat/a.txt", "cat/b.txt", "dog/c.csv", "dog/d.HEIC", "loose.md", "cat/clip.mpg"):
        (tmp_path / name).write_bytes(b"x")
    image.save(tmp_path / "loose.png")
    info = inspect_data(folder(tmp_path))
    assert info.num_train + info.num_val == 12 + len(suffixes)
    check_files(folder(tmp_path), None)
    text = said(folder(tmp_path))
    assert f"2 .txt ({tmp_path}/cat/a.txt)" in text
    assert "1 .csv" in text
    assert "1 images in no class folder" in text
    assert any("cannot be decoded are left out: 1 .heic" in warning for warning in info.warnings)


def test_links_are_followed_and_loops_end(tmp_path):
    write_images(tmp_path / "elsewhere")
    root = tmp_path / "root"
    root.mkdir()
    for name in ("cat", "dog"):
        (root / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "cat" / "loop").symlink_to(root)
    (tmp_path / "elsewhere" / "dog" / "self").symlink_to(tmp_path / "elsewhere" / "dog")
    (tmp_path / "elsewhere" / "dog" / "itself").symlink_to("itself")
    info = inspect_data(folder(root))
    assert info.num_train + info.num_val == 6 + 12 + 0  # cat holds, by its loop, both classes once


def test_a_class_on_one_side_and_a_class_of_one_image_are_warned_of(tmp_path):
    write_images(tmp_path / "train", classes=("cat", "cow", "dog"))
    write_images(tmp_path / "val")
    write_pixels(tmp_path / "train" / "yak", {"1.png": Image.new("RGB", (9, 9))})
    info = inspect_data(folder(tmp_path))
    assert "classes only among the training images, so that nothing measures them (1 of 4): 'cow'" in info.warnings
    assert "classes with one of the images only (1 of 4): 'yak'" in info.warnings
    assert any("cat 6/6, cow 6/0, dog 6/6, yak 1/0" in note for note in info.notes)


def test_the_same_image_on_both_sides_is_warned_of(tmp_path):
    write_images(tmp_path / "train")
    (tmp_path / "val").mkdir()
    write_images(tmp_path / "val", classes=("cat", "dog"), seed=1)
    assert "byte for byte" not in said(folder(tmp_path))
    shutil.copy(tmp_path / "train" / "cat" / "3.png", tmp_path / "val" / "dog" / "copy.png")
    assert f"to train on: 1, such as {tmp_path}/val/dog/copy.png and {tmp_path}/train/cat/3.png" in said(
        folder(tmp_path)
    )


def test_classes_are_kept_with_the_job_and_matched_by_name(tmp_path):
    write_images(tmp_path / "first", classes=("ant", "cat", "dog"))
    write_images(tmp_path / "other", classes=("cat", "dog"))
    write_images(tmp_path / "odd", classes=("cat", "cow"))
    prepared = prepare_data(folder(tmp_path / "first"), tmp_path)
    assert prepared.classes == ["ant", "cat", "dog"]
    other = prepared.model_copy(update={"root": str(tmp_path / "other")})
    train, _ = build_data(other)
    assert {train[i][1] for i in range(len(train))} == {1, 2}
    assert inspect_data(other).classes == ("ant", "cat", "dog")
    with pytest.raises(JobError, match=r"not among those trained on: cow"):
        inspect_data(prepared.model_copy(update={"root": str(tmp_path / "odd")}))


def write_odd_images(root):
    """A gray, a CMYK, a palette and a transparent image, and one cut off in the middle, among whole ones."""
    write_images(root)
    rng = np.random.default_rng(1)
    whole = Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    for mode, suffix in (("L", "jpg"), ("CMYK", "JPEG"), ("P", "png"), ("RGBA", "png")):
        whole.convert(mode).save(root / "cat" / f"odd-{mode}.{suffix}")
    whole.save(root / "dog" / "cut.jpg")
    content = (root / "dog" / "cut.jpg").read_bytes()
    (root / "dog" / "cut.jpg").write_bytes(content[: len(content) // 2])


def test_corrupt_files_are_found_before_a_training_and_counted(tmp_path, caplog):
    write_odd_images(tmp_path)
    (tmp_path / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(JobError) as caught:
        check_files(folder(tmp_path), None)
    text = str(caught.value)
    assert text.startswith("data.root: 2 of 17 images that were looked at cannot be decoded; the first: ")
    assert "data.on_corrupt: skip" in text
    caplog.clear()
    check_files(folder(tmp_path, on_corrupt="skip"), None)
    assert "cannot be decoded and are left out" in caplog.text
    assert "on_corrupt" not in caplog.text
    for path in tmp_path.rglob("*.*"):
        path.write_bytes(b"no image")
    with pytest.raises(JobError, match=r"4 of 4 images .*no image is left"):
        check_files(folder(tmp_path, on_corrupt="skip"), 4)


@pytest.mark.parametrize("limit", [4, 1000])
def test_images_are_looked_at_to_the_last_one_and_empty_ones_always(tmp_path, limit):
    write_images(tmp_path)
    images = sorted(tmp_path.rglob("*.png"))
    images[-1].write_bytes(b"" if limit < len(images) else b"no image")
    with pytest.raises(JobError, match=rf"1 of \d+ images .*the first: {images[-1]} cannot be decoded as an image"):
        check_files(folder(tmp_path), limit)


def test_a_broken_image_is_named_with_the_remedy_and_the_others_load(tmp_path):
    write_odd_images(tmp_path)
    broken = []
    for split in build_data(folder(tmp_path)):
        for index in range(len(split)):
            try:
                assert split[index][0].shape == (3, 16, 16)
            except ValueError as error:
                broken.append(str(error))
    assert len(broken) == 1
    assert "dog/cut.jpg cannot be decoded as an image" in broken[0]
    assert "data.on_corrupt: skip" in broken[0]


def test_skipped_images_are_counted_named_and_never_measured(tmp_path, caplog):
    write_odd_images(tmp_path / "train")
    write_odd_images(tmp_path / "val")
    data = {"type": "imagefolder", "root": str(tmp_path), "image_size": 16, "on_corrupt": "skip"}
    job = resolved(small_job(tmp_path, epochs=1, data=data, global_batch_size=17))
    _, (record,) = train_job(job, tmp_path)
    assert (record.metrics["train/skipped"], record.metrics["val/skipped"]) == (1, 1)
    assert (record.metrics["train/count"], record.metrics["val/count"]) == (16, 16)
    assert "skipped corrupt image" in caplog.text
    assert "dog/cut.jpg" in caplog.text
    failing = job.model_copy(update={"data": job.data.model_copy(update={"on_corrupt": "fail"})})
    with pytest.raises(ValueError, match=r"cut\.jpg cannot be decoded"):
        train_job(failing, tmp_path / "failing")


def test_splits_below_the_classes_are_warned_of(tmp_path):
    for name in ("cat", "dog"):
        for split in ("train", "test"):
            write_pixels(tmp_path / name / split, {f"{index}.png": Image.new("RGB", (9, 9)) for index in range(3)})
    info = inspect_data(folder(tmp_path))
    assert info.num_train + info.num_val == 12
    assert any("hold folders test, train: all their images are taken together" in text for text in info.warnings)
