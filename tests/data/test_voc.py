"""PASCAL VOC: the published folders load, their oddities too, and what cannot be used is named."""

import logging

import pytest
import torch
from PIL import Image

from activelr_service.data import build_data, check_files, inspect_data
from activelr_service.data.images import load_image
from activelr_service.data.voc import CLASSES
from activelr_service.data.voc_whole import build_whole
from activelr_service.errors import JobError
from activelr_service.service.propose import propose
from tests.data.generate_voc import annotate, draw, write_voc
from tests.data.test_data import data_config

CAT, DOG = CLASSES.index("cat") + 1, CLASSES.index("dog") + 1


def voc(root, **changes):
    return data_config(type="voc", root=str(root), **{"years": ["2007"], **changes})


def write_one(root, objects, difficult=(), size=(64, 48)):
    """A devkit whose first training image has these objects; returns the folder and that image's name."""
    folder = write_voc(root, sets=(("train", 2), ("val", 2)), size=size)
    annotate(folder / "Annotations" / "2007_train_000000.xml", size, objects, difficult)
    return folder, "2007_train_000000"


def first_row(root, part=0, **changes):
    return build_data(voc(root, **changes))[part][0]


@pytest.mark.parametrize("place", ["", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_the_root_may_be_the_devkit_its_parent_or_one_year(tmp_path, place):
    write_voc(tmp_path)
    info = inspect_data(voc(tmp_path / place))
    assert (info.tasks, info.num_train, info.num_val, info.num_classes) == (("detection",), 8, 4, 20)
    assert info.describe() == "8 training and 4 validation samples, 20 classes"
    train, val = build_data(voc(tmp_path / place))
    assert (len(train), len(val)) == (8, 4)
    image, target = val[3]
    assert image.shape == (3, 48, 64)
    assert image.dtype == torch.float32
    assert 0 <= image.min() < image.max() <= 1
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in target.items()} == {
        "boxes": (torch.float32, (2, 4)),
        "labels": (torch.int64, (2,)),
        "difficult": (torch.bool, (2,)),
        "image_id": (torch.int64, ()),
    }
    assert type(image) is type(target["boxes"]) is torch.Tensor


def test_years_are_joined_and_the_validation_test_set_is_that_of_2007(tmp_path):
    write_voc(tmp_path, "2007", (("trainval", 3), ("test", 2)))
    write_voc(tmp_path, "2012", (("trainval", 4),))
    info = inspect_data(voc(tmp_path, years=[2007, "2012"], train_set="trainval", val_set="test"))
    assert (info.num_train, info.num_val) == (7, 2)
    with pytest.raises(JobError, match=r"data\.val_set: the boxes of test are published for 2007 only"):
        inspect_data(voc(tmp_path, years=["2012"], train_set="trainval", val_set="test"))
    with pytest.raises(JobError, match=r"data\.val_set: trainval contains val"):
        inspect_data(voc(tmp_path, train_set="trainval"))


def test_boxes_are_counted_from_0_and_follow_their_image_when_it_is_flipped(tmp_path):
    folder, name = write_one(tmp_path, [("cat", (1, 1, 16, 48))])
    draw(folder / "JPEGImages" / f"{name}.jpg", (64, 48), [("cat", (1, 1, 16, 48))])
    torch.manual_seed(0)
    dataset = build_data(voc(tmp_path))[0]
    seen = set()
    for image, target in (dataset[0] for _ in range(20)):
        (left, top, right, bottom), red = target["boxes"][0].int().tolist(), image[0] > 0.7
        assert red[top:bottom, left + 2 : right - 2].all()
        seen.add((left, top, right, bottom))
    assert seen == {(0, 0, 16, 48), (48, 0, 64, 48)}


def test_boxes_are_clipped_and_those_of_no_area_are_dropped(tmp_path):
    inside, outside, inverted = (10.5, 10.5, 20.5, 20.5), (100, 10, 120, 20), (20, 10, 11, 20)
    beyond, thin = (-5, 40, 80, 60), (30, 5, 30, 9)  # one pixel wide
    objects = [("cat", inside), ("dog", outside), ("dog", inverted), ("dog", beyond), ("cat", thin)]
    folder, name = write_one(tmp_path, objects)
    (folder / "ImageSets/Main/val.txt").write_text(name)
    target = first_row(tmp_path, part=1)[1]
    assert target["boxes"].tolist() == [[9.5, 9.5, 20.5, 20.5], [0, 39, 64, 48], [29, 4, 30, 9]]
    assert target["labels"].tolist() == [CAT, DOG, CAT]


def test_difficult_objects_are_kept_for_measuring_only(tmp_path):
    folder, name = write_one(tmp_path, [("cat", (1, 1, 9, 9)), ("dog", (20, 20, 30, 30))], difficult=[True, True])
    (folder / "ImageSets/Main/val.txt").write_text(f"{name}\n2007_val_000000\n")
    train, val = build_data(voc(tmp_path))
    assert train[0][1]["boxes"].shape == (0, 4), "an image without objects is a negative one"
    assert val[0][1]["difficult"].tolist() == [True, True]


def test_an_object_without_the_difficult_mark_is_not_difficult(tmp_path):
    folder, name = write_one(tmp_path, [("cat", (1, 1, 9, 9))])
    path = folder / "Annotations" / f"{name}.xml"
    path.write_text(path.read_text().replace("<difficult>0</difficult>", ""))
    assert first_row(tmp_path)[1]["labels"].tolist() == [CAT]


def test_image_sets_may_have_empty_lines_spaces_and_any_letters(tmp_path):
    folder, name = write_one(tmp_path, [("cat", (1, 1, 9, 9))])
    for part, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        (folder / part / f"{name}{suffix}").rename(folder / part / f"größe 猫{suffix}")
    (folder / "ImageSets/Main/train.txt").write_text("\ufeff\r\n  größe 猫  \r\n\r\n", encoding="utf-8")
    assert inspect_data(voc(tmp_path)).num_train == 1
    assert first_row(tmp_path)[1]["labels"].tolist() == [CAT]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (lambda f: (f / "JPEGImages/2007_val_000001.jpg").unlink(), r"JPEGImages/2007_val_000001\.jpg is missing"),
        (lambda f: (f / "Annotations/2007_val_000001.xml").unlink(), r"Annotations/2007_val_000001\.xml is missing"),
        (lambda f: (f / "ImageSets/Main/val.txt").write_text(" \n"), r"the image set .*/Main/val\.txt is empty"),
        (lambda f: (f / "ImageSets/Main/val.txt").write_bytes(b"\xff\xfe\xff"), r"val\.txt cannot be read: .*utf-8"),
        (lambda f: (f / "ImageSets/Main/val.txt").unlink(), r"val\.txt cannot be read"),
        (lambda f: (f / "ImageSets/Main/val.txt").write_text("../x"), r"\.\./x\.jpg is missing"),
        (lambda f: (f / "Annotations").rename(f / "Labels"), "no such folder: .*/Annotations"),
        (lambda f: f.rename(f.parent / "VOC2012"), r"VOCdevkit/VOC2007 .*see data\.years"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_loaded(tmp_path, broken, expected):
    broken(write_voc(tmp_path))
    with pytest.raises(JobError, match=f"data\\.root: .*{expected}") as caught:
        inspect_data(voc(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_folder_of_another_year_is_refused(tmp_path):
    with pytest.raises(JobError, match=r"see data\.years"):
        inspect_data(voc(write_voc(tmp_path, "2007"), years=["2012"]))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("<name>cat</name>", "<name> </name>"), "an object without name"),
        (("<xmin>1</xmin>", "<xmin>left</xmin>"), "could not convert"),
        (("<bndbox>", "<box>"), "mismatched tag"),
        (("<ymax>9</ymax>", ""), "an object without bndbox/ymax"),
        (("<annotation>", '<!DOCTYPE a [<!ENTITY e "cat">]><annotation>'), "must not have a document type"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_named(tmp_path, change, expected):
    folder, name = write_one(tmp_path, [("cat", (1, 1, 9, 9))])
    path = folder / "Annotations" / f"{name}.xml"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(JobError, match=f"{name}\\.xml: .*{expected}"):
        build_data(voc(tmp_path))


def test_classes_other_than_those_of_voc_are_taken_from_the_annotations_of_all_sets(tmp_path):
    folder, _ = write_one(tmp_path, [("tile", (1, 1, 9, 9)), ("cat", (2, 2, 9, 9))])
    annotate(folder / "Annotations" / "2007_train_000001.xml", (64, 48), [("brick", (1, 1, 9, 9))])
    for name in ("000000", "000001"):
        annotate(folder / "Annotations" / f"2007_val_{name}.xml", (64, 48), [("tile", (1, 1, 9, 9))])
    info = inspect_data(voc(tmp_path))
    assert info.classes == ("brick", "cat", "tile")
    assert "the classes are those of the annotations, not the 20 of VOC: brick, cat, tile" in info.notes
    train, val = build_data(voc(tmp_path))
    assert train[0][1]["labels"].tolist() == [3, 2]
    assert val[0][1]["labels"].tolist() == [3]


def test_a_folder_of_any_name_in_the_format_of_a_year_is_read_and_proposed(tmp_path):
    folder = write_voc(tmp_path).rename(tmp_path / "bricks")
    info = inspect_data(voc(folder, years=["2012"]))
    assert (info.num_train, info.num_val) == (8, 4)
    assert propose(folder).data == {"type": "voc", "root": str(folder)}


def test_other_data_with_a_class_that_was_not_trained_on_are_refused_by_its_name(tmp_path):
    trained = inspect_data(voc(write_voc(tmp_path / "a").parent))
    folder, _ = write_one(tmp_path / "b", [("unicorn", (1, 1, 9, 9)), ("cat", (2, 2, 9, 9))])
    with pytest.raises(JobError, match=r"train\.txt has classes that are not among those trained on: unicorn \(1 "):
        build_whole(voc(folder.parent), trained, tmp_path)


def test_a_set_without_an_object_to_learn_or_find_is_refused(tmp_path):
    write_voc(tmp_path, objects=0)
    with pytest.raises(JobError, match="no image of train of 2007 has an object that is not difficult"):
        build_data(voc(tmp_path))


def test_gray_palette_and_cmyk_images_load_as_rgb(tmp_path):
    for mode, suffix in (("L", "jpg"), ("CMYK", "jpg"), ("P", "png"), ("RGBA", "png")):
        path = tmp_path / f"{mode}.{suffix}"
        Image.new("RGB", (8, 6), (200, 40, 40)).convert(mode).save(path)
        image = load_image(path, turn=False)
        assert (image.mode, image.size) == ("RGB", (8, 6))
        if mode != "L":
            red, green, blue = image.getpixel((4, 3))
            assert red > 150, mode
            assert max(green, blue) < 90, mode


def test_a_truncated_image_ends_the_training_or_is_skipped_with_a_warning(tmp_path, caplog):
    folder, name = write_one(tmp_path, [("cat", (1, 1, 9, 9))])
    path = folder / "JPEGImages" / f"{name}.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=f"{name}\\.jpg cannot be decoded as an image: image file is truncated"):
        first_row(tmp_path)
    with caplog.at_level(logging.WARNING, logger="activelr_service.data"):
        assert first_row(tmp_path, on_corrupt="skip") is None
    assert caplog.messages[0].startswith(
        f"skipped corrupt image: {path} cannot be decoded as an image: image file is truncated"
    )


def test_a_file_that_went_missing_is_no_corrupt_image(tmp_path):
    folder, name = write_one(tmp_path, [("cat", (1, 1, 9, 9))])
    train, _ = build_data(voc(tmp_path, on_corrupt="skip"))
    (folder / "JPEGImages" / f"{name}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=name):
        train[0]


def test_objects_are_counted_by_class_on_each_side_and_a_class_on_one_side_is_warned_of(tmp_path):
    folder, _ = write_one(tmp_path, [("sheep", (1, 1, 9, 9)), ("cat", (1, 1, 9, 9))], difficult=[False, True])
    annotate(folder / "Annotations" / "2007_train_000001.xml", (64, 48), [])
    annotate(folder / "Annotations" / "2007_val_000000.xml", (64, 48), [("cat", (1, 1, 9, 9))] * 3)
    annotate(folder / "Annotations" / "2007_val_000001.xml", (64, 48), [("dog", (1, 1, 9, 9))])
    info = inspect_data(voc(tmp_path))
    assert any("cat 1/3" in note and "dog 0/1" in note for note in info.notes)
    assert "2 images to train on: 1 without objects, 1 objects marked difficult" in info.notes
    assert "classes with one of the objects only (2 of 20): 'dog', 'sheep'" in info.warnings


def test_boxes_are_in_pixels_as_they_are_stored_so_images_are_not_turned(tmp_path):
    folder, name = write_one(tmp_path, [("cat", (1, 1, 9, 9))])
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (64, 48)).save(folder / "JPEGImages" / f"{name}.jpg", exif=exif)
    assert first_row(tmp_path)[0].shape == (3, 48, 64)


def test_corrupt_images_are_found_before_a_training(tmp_path):
    folder = write_voc(tmp_path)
    (folder / "JPEGImages" / "2007_val_000002.jpg").write_bytes(b"")
    with pytest.raises(
        JobError, match=r"data\.root: 1 of 12 images .*val_000002\.jpg .* it is empty.*on_corrupt: skip"
    ):
        check_files(voc(tmp_path), None)
    check_files(voc(tmp_path, on_corrupt="skip"), None)
