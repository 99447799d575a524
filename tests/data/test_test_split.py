"""The test split: found or drawn, apart from the others, and nothing of it is learned before the end."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image

from activelr_service.data import build_data, build_split, build_test, inspect_data, prepare_data
from activelr_service.data.splits import draw_splits, train_val_split
from activelr_service.errors import JobError
from tests.data.generate_cifar import write_cifar
from tests.data.generate_images import write_images
from tests.data.generate_text import write_plain, write_wikitext
from tests.data.generate_voc import write_voc
from tests.data.test_data import data_config
from tests.data.test_table import table, write


def said(config):
    info = inspect_data(config)
    return "\n".join((*info.notes, *info.warnings))


@pytest.mark.parametrize("labels", [None, np.arange(500) % 3])
def test_the_drawn_splits_are_apart_and_of_each_class_its_share(labels):
    drawn = draw_splits(500, 0.2, 0.1, labels)
    assert sorted(np.concatenate(drawn)) == list(range(500))
    assert [len(part) for part in drawn] == [360, 90, 50]
    if labels is not None:
        assert all(np.ptp(np.bincount(labels[part])) <= 1 for part in drawn)


def test_without_a_test_the_draw_is_that_of_before_and_the_test_does_not_depend_on_the_validation():
    labels = np.arange(300) % 7
    for one in (labels, None):
        train, val, test = draw_splits(300, 0.2, None, one)
        assert len(test) == 0
        assert all((a == b).all() for a, b in zip((train, val), train_val_split(300, 0.2, one), strict=True))
        assert (draw_splits(300, 0.1, 0.3, one).test == draw_splits(300, None, 0.3, one).test).all()
    with pytest.raises(JobError, match=r"data\.test_fraction: 2 samples are too few"):
        draw_splits(2, 0.5, 0.5)


def test_a_row_that_is_appended_leaves_nearly_all_others_in_their_split():
    labels = np.arange(500) % 3
    before, after = draw_splits(499, 0.2, 0.2, labels[:499]), draw_splits(500, 0.2, 0.2, labels)
    for one, other in zip(before, after, strict=True):
        assert len(set(one) ^ set(other)) <= 6


def test_the_test_rows_of_a_table_are_not_learned_from(tmp_path):
    config = data_config(type="table", path=write(tmp_path / "t.csv", table()), target="kind", test_fraction=0.2)
    info, prepared = inspect_data(config), prepare_data(config, tmp_path)
    assert (info.num_train, info.num_val, info.num_test) == (26, 6, 8)
    labels = np.array([["b", "a"].index(name) for name in table()["kind"].to_pylist()])
    rows = draw_splits(40, 0.2, 0.2, labels)
    ages, cities = table()["age"].to_numpy().copy(), table()["city"].to_pylist()
    for row in rows.test:
        ages[row], cities[row] = 1e5, "Rome"
    other = config.model_copy(update={"path": write(tmp_path / "other.csv", table(age=ages, city=cities))})
    assert prepare_data(other, tmp_path).columns == prepared.columns
    test = build_test(prepare_data(other, tmp_path))
    assert (test.tensors[0][:, 0] > 1e3).all()
    assert "Rome" not in said(other)
    assert "test: 8 of 40 rows, drawn with seed 1, from each class its share; measured once, at the end" in info.notes
    assert "classes, with their training, validation and test samples: a 13/3/4, b 13/3/4" in info.notes


def test_a_test_file_of_a_table_is_kept_apart_and_its_own_classes_are_not_measured(tmp_path):
    path, kinds = write(tmp_path / "t.csv", table()), ["a"] * 20 + ["z"] * 20
    exam = write(tmp_path / "exam.csv", table(kind=kinds, age=[50.0] * 40))
    config = data_config(type="table", path=path, target="kind")
    tested = config.model_copy(update={"test_path": exam})
    assert inspect_data(tested).num_test == 20
    assert inspect_data(tested).classes == ("a", "b")
    assert "20 test rows are not measured: no training row has their class, z" in said(tested)
    assert prepare_data(tested, tmp_path).columns == prepare_data(config, tmp_path).columns
    for one, other in zip(build_data(tested), build_data(config), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.tensors, other.tensors, strict=True))
    assert "20 of 40 test rows are training rows" not in said(tested)
    same = config.model_copy(update={"test_path": path})
    assert "32 of 40 test rows are training rows, too, value for value" in said(same)
    with pytest.raises(JobError, match="there is a test_path already"):
        inspect_data(tested.model_copy(update={"test_fraction": 0.1}))
    write(tmp_path / "less.csv", pa.table({"age": [1.0], "kind": ["a"]}))
    with pytest.raises(JobError, match=r"data\.test_path: .*less\.csv: the file lacks the columns city"):
        inspect_data(config.model_copy(update={"test_path": str(tmp_path / "less.csv")}))


def test_arrays_for_a_test_are_brought_to_the_scale_of_x(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 3, 4, 4), dtype=np.uint8)
    y = np.arange(30) % 3
    np.savez(
        tmp_path / "d.npz", x=pixels, y=y, x_test=pixels[:6] / np.float32(255), y_test=np.array([0, 1, 2, 0, 1, 5])
    )
    config = data_config(type="npz", path=str(tmp_path / "d.npz"))
    info, test = inspect_data(config), build_test(config)
    assert (info.num_train, info.num_val, info.num_test, info.num_classes) == (24, 6, 5, 3)
    torch.testing.assert_close(test.tensors[0], torch.tensor(pixels[:5] / np.float32(255)))
    assert "1 test rows of" in said(config)
    assert "they have a class that no other row has, such as 5" in said(config)
    with pytest.raises(JobError, match="has x_test already"):
        inspect_data(config.model_copy(update={"test_fraction": 0.1}))
    np.savez(tmp_path / "e.npz", x=pixels, y=y)
    drawn = data_config(type="npz", path=str(tmp_path / "e.npz"), test_fraction=0.2)
    parts = [*build_data(drawn), build_test(drawn)]
    assert [part.tensors[1].bincount().tolist() for part in parts] == [[6, 6, 7], [2, 2, 1], [2, 2, 2]]
    assert len(torch.cat([part.tensors[0].flatten(1) for part in parts]).unique(dim=0)) == 30


def test_token_ids_are_kept_for_a_test_too(tmp_path):
    np.savez(
        tmp_path / "d.npz", x=np.arange(100).reshape(20, 5) % 7, x_test=np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 9]])
    )
    config = data_config(type="npz", path=str(tmp_path / "d.npz"))
    assert (inspect_data(config).vocab_size, inspect_data(config).num_test) == (7, 1)
    assert build_test(config).tensors[0].tolist() == [[1, 2, 3, 4, 5]]
    assert "they have a token that no other row has, such as 9" in said(config)


def images(root, **changes):
    return data_config(type="imagefolder", root=str(root), image_size=16, **changes)


def paths(dataset):
    return set(dataset.files.paths)


def test_a_test_folder_is_kept_for_the_end_and_what_is_unknown_or_broken_in_it_is_left_out(tmp_path):
    for seed, name in enumerate(("train", "val", "test")):
        write_images(tmp_path / name, seed=seed)
    before = [paths(part) for part in build_data(images(tmp_path))]
    write_images(tmp_path / "test", classes=("cow",), count=2)
    (tmp_path / "test" / "cat" / "broken.png").write_bytes(b"no image")
    (tmp_path / "test" / "dog" / "same.png").write_bytes((tmp_path / "train" / "dog" / "0.png").read_bytes())
    info, test = inspect_data(images(tmp_path)), build_test(images(tmp_path))
    assert [paths(part) for part in build_data(images(tmp_path))] == before
    assert (info.classes, info.num_test) == (("cat", "dog"), 14)
    assert sum(test[index][0] is None for index in range(14)) == 1
    text = said(images(tmp_path))
    assert "2 test images are not measured: their classes are not trained on: cow" in text
    assert "test images that are the same, byte for byte, as one to train on: 1" in text


def test_a_test_folder_without_a_validation_folder_validates_unless_it_is_held_out(tmp_path):
    write_images(tmp_path / "train", count=10)
    write_images(tmp_path / "test", seed=1)
    validating, held = images(tmp_path), images(tmp_path, hold_out_test=True)
    assert (inspect_data(validating).num_val, build_test(validating)) == (12, None)
    assert "data.hold_out_test: true keeps it for a test at the end" in said(validating)
    info = inspect_data(held)
    assert (info.num_train, info.num_val, info.num_test) == (18, 2, 12)
    assert all("/test/" in path for path in paths(build_test(held)))
    with pytest.raises(JobError, match=r"data\.test_fraction: there is a test folder already"):
        inspect_data(images(tmp_path, hold_out_test=True, test_fraction=0.2))


def test_images_are_drawn_for_a_test_and_measured_without_crops(tmp_path):
    write_images(tmp_path, count=20)
    config = images(tmp_path, test_fraction=0.2)
    parts = [paths(part) for part in (*build_data(config), build_test(config))]
    assert [len(part) for part in parts] == [29, 3, 8]
    assert len(set.union(*parts)) == 40
    assert "test: 20% of the images of each class" in said(config)
    train = build_split(config, "train")
    assert torch.equal(train[0][0], train[0][0]), "the crops of a training would be random"


def test_saved_datasets_keep_or_draw_a_test_and_rows_that_cannot_be_scored_are_left_out(tmp_path):
    def rows(labels, names=("cat", "dog")):
        features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(names))})
        pictures = [Image.fromarray(np.full((8, 8, 3), 9 * i + len(labels), np.uint8)) for i in range(len(labels))]
        return Dataset.from_dict({"image": pictures, "label": labels}, features)

    def config(name, **changes):
        return data_config(type="huggingface", path=str(tmp_path / name), image_size=16, **changes)

    test = rows([0, 1, 2, -1], ["dog", "cat", "cow"])
    DatasetDict({"train": rows([0, 1] * 10), "validation": rows([0, 1]), "test": test}).save_to_disk(tmp_path / "three")
    assert [label for _, label in build_test(config("three"))] == [1, 0]
    assert (
        "2 rows of the split test are not measured: they have no label, or a class that is not trained on: cow (1)"
        in (said(config("three")))
    )
    DatasetDict({"train": rows([0, 1] * 10), "test": rows([0, 1])}).save_to_disk(tmp_path / "two")
    assert build_test(config("two")) is None
    held = inspect_data(config("two", hold_out_test=True))
    assert (held.num_train, held.num_val, held.num_test) == (18, 2, 2)
    rows([0, 1] * 10).save_to_disk(tmp_path / "one")
    drawn = inspect_data(config("one", test_fraction=0.2))
    assert (drawn.num_train, drawn.num_val, drawn.num_test) == (14, 2, 4)
    odd = test.remove_columns("image").add_column("image", ["x"] * 4)
    DatasetDict({"train": rows([0, 1] * 10), "validation": rows([0, 1]), "test": odd}).save_to_disk(tmp_path / "odd")
    assert "the split test is not used: data.image_column" in said(config("odd"))


def test_digits_are_drawn_for_a_test_from_those_to_train_on():
    config = data_config(type="digits", image_size=8, test_fraction=0.2)
    info, parts = inspect_data(config), [*build_data(config), build_test(config)]
    assert [len(part) for part in parts] == [info.num_train, info.num_val, info.num_test] == [1150, 360, 287]
    assert len(torch.cat([part.tensors[0].flatten(1) for part in parts]).unique(dim=0)) == 1797
    plain = data_config(type="digits", image_size=8)
    assert all(torch.equal(a, b) for a, b in zip(build_data(plain)[1].tensors, parts[1].tensors, strict=True))
    assert build_test(plain) is None


def test_the_published_test_images_of_cifar_validate_unless_a_share_of_the_others_does(tmp_path):
    write_cifar(tmp_path)
    config = data_config(type="cifar10", root=str(tmp_path))
    assert build_test(config) is None
    held = config.model_copy(update={"val_fraction": 0.1})
    info = inspect_data(held)
    assert (info.num_train, info.num_val, info.num_test) == (90, 10, 20)
    assert torch.equal(build_test(held).images, build_data(config)[1].images)
    assert "test: test_batch; measured once, at the end" in info.notes


def test_the_test_set_of_voc_is_measured_where_it_is_there_and_complete(tmp_path):
    folder = write_voc(tmp_path, sets=(("train", 8), ("val", 4), ("test", 3)))
    config = data_config(type="voc", root=str(tmp_path), years=["2007"])
    assert (inspect_data(config).num_test, len(build_test(config))) == (3, 3)
    assert build_test(config.model_copy(update={"val_set": "test"})) is None
    drawn = config.model_copy(update={"test_fraction": 0.25})
    assert [len(part) for part in (*build_data(drawn), build_test(drawn))] == [6, 4, 2]
    next((folder / "Annotations").glob("2007_test_*")).unlink()
    assert build_test(config) is None
    assert "the image set test of 2007 is not measured: data.root: " in said(config)


def test_text_has_the_test_split_of_its_files_or_its_last_share(tmp_path):
    def text(root, **changes):
        config = data_config(type="text", root=str(root), block_size=16, vocab_size=300, **changes)
        return prepare_data(config, tmp_path / "cache")

    wiki = text(write_wikitext(tmp_path / "wiki"))
    assert len(build_test(wiki)) == inspect_data(wiki).num_test > 0
    assert build_test(wiki.model_copy(update={"eval_split": "test"})) is None
    with pytest.raises(JobError, match="has a test split already"):
        text(tmp_path / "wiki", test_fraction=0.1)
    whole, drawn = text(write_plain(tmp_path / "plain")), text(tmp_path / "plain", test_fraction=0.2)
    assert build_test(whole) is None
    tokens = [build_split(drawn, split).tokens for split in ("train", "validation", "test")]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{drawn.tokens}/tokenizer.json")
    read = "".join(tokenizer.decode(part.tolist()) for part in tokens)
    assert read == (tmp_path / "plain" / "book.txt").read_text()
    assert "test: the last 20% of the text" in said(drawn)
    assert "validation: the last 10% of the text before the test, in pieces" in said(drawn)


def test_own_data_may_return_a_test_dataset(monkeypatch):
    from torch.utils.data import TensorDataset

    from activelr_service.data import entry_point

    made = [TensorDataset(torch.zeros(size, 2), torch.zeros(size)) for size in (6, 4, 2)]
    config = data_config(type="python", name="mine")
    for count, num_test in ((2, 0), (3, 2)):
        factory = lambda count=count: tuple(made[:count])  # noqa: E731
        monkeypatch.setattr(entry_point, "load_entry_point", lambda *_, factory=factory: factory)
        info = inspect_data(config)
        assert (info.num_train, info.num_val, info.num_test) == (6, 4, num_test)
        assert build_data(config) == (made[0], made[1])
        assert build_test(config) is (made[2] if count == 3 else None)
