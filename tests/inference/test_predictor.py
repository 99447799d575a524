"""Raw input gives the model the same bits as the data it was trained on; answers are named and in their own units."""

import base64
import io
import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from activelr_service.errors import InputError
from activelr_service.export.model import RECIPE
from activelr_service.inference.predictor import Predictor
from tests.data.generate_cifar import write_cifar
from tests.data.generate_images import write_images
from tests.data.generate_text import write_plain
from tests.data.generate_voc import write_voc
from tests.inference.conftest import export, inputs_of, targets_of

TINY_GPT = {"type": "causal_lm", "name": "gpt2", "config": {"n_layer": 1, "n_head": 2, "n_embd": 16}}


def flowers(count=120, seed=0):
    """A table of numbers and categories with gaps, and a target that they tell."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, count)
    return pd.DataFrame({
        "length": np.round(kind * 2 + rng.normal(size=count), 2),
        "width": np.where(rng.random(count) < 0.1, np.nan, np.round(rng.normal(size=count), 1)),
        "color": np.array(["red", "blue", None], dtype=object)[rng.integers(0, 3, count)],
        "grade": rng.integers(1, 4, count),
        "kind": np.array(["ant", "bee", "cow"])[kind],
        "price": np.round(100 + 50 * kind + rng.normal(size=count), 2),
    })  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    flowers().to_csv(folder / "flowers.csv", index=False)
    data = {"type": "table", "path": str(folder / "flowers.csv"), "target": "kind", "types": {"grade": "category"}}
    out, job, val = export(folder, {**data, "ignore": ["price"]}, temperature=2.0)
    return Predictor.load(out), job, val


def raw_val_rows(job, frame):
    """The raw validation rows of a table that is split at random."""
    from activelr_service.data.splits import train_val_split

    codes = None if job.data.classes is None else frame[job.data.target].map(job.data.classes.index).to_numpy()
    return frame.iloc[train_val_split(len(frame), job.data.val_fraction, codes)[1]]


def test_raw_rows_of_a_table_give_the_bits_that_validation_sees(table):
    predictor, job, val = table
    rows = raw_val_rows(job, flowers())
    assert torch.equal(predictor.to_tensors(rows), inputs_of(val))
    answers = predictor.predict(rows)
    with torch.no_grad():
        logits = predictor.module(inputs_of(val))
    shares = torch.softmax(logits.double() / 2.0, dim=1).numpy()
    assert answers.filter(like="probability_").columns.tolist() == [f"probability_{c}" for c in ("ant", "bee", "cow")]
    np.testing.assert_allclose(answers.filter(like="probability_").to_numpy(), shares, atol=1e-7)
    right = (logits.argmax(dim=1) == targets_of(val)).double().mean().item()
    assert right > 0.5
    assert (answers["prediction"] == rows["kind"]).mean() == pytest.approx(right)
    assert answers.index.equals(rows.index)


def test_a_regression_answers_in_the_unit_of_the_target(tmp_path):
    flowers().to_csv(tmp_path / "t.csv", index=False)
    data = {"type": "table", "path": str(tmp_path / "t.csv"), "target": "price", "ignore": ["kind"]}
    out, job, val = export(tmp_path, data, steps=200)
    predictor = Predictor.load(out)
    rows = raw_val_rows(job, flowers())
    answers = predictor.predict(rows)
    assert answers.columns.tolist() == ["prediction"]
    scaled = (answers["prediction"] - job.data.target_column.mean) / job.data.target_column.std
    with torch.no_grad():
        np.testing.assert_allclose(scaled, predictor.module(inputs_of(val))[:, 0], atol=1e-5)
    assert (answers["prediction"] - rows["price"]).abs().mean() < rows["price"].std()


def test_what_is_missing_odd_or_new_in_a_table_is_said_once(table, caplog):
    predictor = Predictor.load(table[0].folder)
    rows = flowers(6, seed=1).assign(width=["1.5", "long", None, "2", "3,000.5", "4"], id=range(6))
    rows["color"] = ["red", "green", "blue", "green", "mauve", "red"]
    with caplog.at_level(logging.WARNING):
        answers = predictor.predict(rows)
        predictor.predict(rows)
    assert answers["error"].notna().tolist() == [False, True, False, False, False, False]
    assert answers["error"][1] == "column 'width': 'long' is no number"
    assert answers.drop(columns="error").isna().all(axis=1).tolist() == [False, True, False, False, False, False]
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2, texts
    assert texts[0] == "columns that are not used: 'kind' (the target), 'price', 'id'"
    assert texts[1] == (
        "the column 'color' has categories that no training row has, counted as none of them: 'green', 'mauve' (in 3 rows)"
    )
    unknown = predictor.to_tensors(rows.iloc[[3]].assign(color=None))
    assert torch.equal(predictor.to_tensors(rows.iloc[[3]]), unknown)


def test_all_missing_columns_are_named(table):
    with pytest.raises(InputError, match=r"lacks .*: 'width', 'grade'; 'width' is spelled 'Width' there"):
        table[0].predict(flowers(3).rename(columns={"width": "Width"}).drop(columns="grade"))


@pytest.mark.parametrize("grade", [[1, 2, 3], [1.0, 2.0, 3.0], ["1", "2", "3"], [1, "2", 3.0]], ids=str)
def test_numbers_that_are_categories_match_however_they_are_written(table, grade):
    rows = flowers(3)
    expected = table[0].to_tensors(rows.assign(grade=["1", "2", "3"]))
    assert torch.equal(table[0].to_tensors(rows.assign(grade=pd.Series(grade, dtype=object))), expected)


def test_a_batch_of_bad_rows_before_good_ones(table):
    rows = flowers(6).assign(width=["x", "x", "1", "2", "x", "3"])
    answers = table[0].predict(rows, batch_size=2)
    assert answers["prediction"].notna().tolist() == [False, False, True, True, False, True]
    assert answers["probability_ant"].dtype == float
    with pytest.raises(InputError, match=r"a DataFrame with the columns .*'length', .* is needed, got list"):
        table[0].predict([1, 2])


def test_no_rows_give_an_empty_answer_with_the_columns(table):
    answers = table[0].predict(flowers(3).iloc[:0])
    assert answers.columns.tolist() == ["prediction", "probability_ant", "probability_bee", "probability_cow"]
    assert len(answers) == 0


def save_images(root):
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)) for _ in range(16)]
    features = Features({"image": ImageFeature(), "label": Value("string")})
    Dataset.from_dict({"image": pictures, "label": ["cat", "dog"] * 8}, features=features).save_to_disk(str(root))


IMAGES = {
    "imagefolder": lambda root: (
        write_images(root, count=8),
        {"root": str(root), "image_size": 16, "val_fraction": 0.5},
    )[1],
    "digits": lambda root: {"image_size": 8},
    "huggingface": lambda root: (save_images(root), {"path": str(root), "image_size": 16, "val_fraction": 0.5})[1],
    "cifar10": lambda root: (write_cifar(root, rows=12), {"root": str(root)})[1],
}


@pytest.mark.parametrize("kind", list(IMAGES))
def test_encoded_images_give_the_bits_that_validation_sees(kind, tmp_path):
    out, _, val = export(tmp_path, {"type": kind, **IMAGES[kind](tmp_path / "data")}, steps=1)
    predictor = Predictor.load(out)
    found = predictor.to_tensors(predictor.example())
    seen = inputs_of(val)
    assert len(found) == 4
    assert all((seen == image).flatten(1).all(dim=1).any() for image in found)


def test_an_image_may_be_a_path_bytes_base64_or_pixels(tmp_path):
    write_images(tmp_path / "data")
    out, _, _ = export(tmp_path, {"type": "imagefolder", "root": str(tmp_path / "data"), "image_size": 16}, steps=1)
    predictor, path = Predictor.load(out), tmp_path / "data" / "cat" / "0.png"
    content = path.read_bytes()
    encoded = base64.b64encode(content).decode()
    pixels = np.asarray(Image.open(path))
    cells = [str(path), content, encoded, f"data:image/png;base64,{encoded}", pixels, pixels.tolist()]
    cells += [encoded.encode(), {"bytes": content, "path": None}, {"bytes": None, "path": str(path)}]
    inputs = predictor.to_tensors(pd.DataFrame({"image": pd.Series(cells, dtype=object)}))
    assert len(inputs) == len(cells)
    assert all(torch.equal(image, inputs[0]) for image in inputs)


def test_an_image_that_cannot_be_decoded_is_named_and_the_others_are_answered(tmp_path):
    write_images(tmp_path / "data")
    out, _, _ = export(tmp_path, {"type": "imagefolder", "root": str(tmp_path / "data"), "image_size": 16}, steps=1)
    (tmp_path / "broken.png").write_bytes((tmp_path / "data" / "cat" / "0.png").read_bytes()[:300])
    gray = io.BytesIO()
    Image.new("L", (5, 90), 7).save(gray, "png")
    cells = [str(tmp_path / "broken.png"), gray.getvalue(), str(tmp_path / "none.png"), None]
    answers = Predictor.load(out).predict(pd.DataFrame({"image": pd.Series(cells, dtype=object)}))
    assert answers["prediction"].notna().tolist() == [False, True, False, False]
    assert "broken.png cannot be decoded as an image" in answers["error"][0]
    assert answers["error"][2] == f"no such file: {tmp_path / 'none.png'}"


def test_boxes_are_in_pixels_of_the_stored_image_and_have_names(tmp_path):
    write_voc(tmp_path)
    model = {"type": "torchvision_detection", "name": "fasterrcnn_mobilenet_v3_large_320_fpn"}
    model |= {"args": {"min_size": 64, "max_size": 64, "box_score_thresh": 0.0}}
    data = {"type": "voc", "root": str(tmp_path), "years": ["2007"]}
    out, _, val = export(tmp_path, data, model)
    predictor = Predictor.load(out)
    answers = predictor.predict(predictor.example())
    with (
        torch.no_grad()
    ):  # as many at once: another batch rounds differently, and the scores of random weights are close
        found = predictor.module([val[row][0] for row in range(len(answers))])[0]
    first = answers["boxes"][0]
    assert answers.columns.tolist() == ["boxes"]
    assert [box["score"] for box in first] == pytest.approx(found["scores"].tolist())
    assert {box["class"] for box in first} <= set(predictor.classes)
    sides = ("xmin", "ymin", "xmax", "ymax")
    np.testing.assert_allclose([[box[side] for side in sides] for box in first], found["boxes"], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_raw_arrays_give_the_bits_that_validation_sees(tmp_path, dtype):
    x = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4)).astype(dtype)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(60) % 3)
    out, _, val = export(tmp_path, {"type": "npz", "path": str(tmp_path / "a.npz")})
    predictor = Predictor.load(out)
    found = predictor.to_tensors(predictor.example())
    assert all((inputs_of(val) == row).flatten(1).all(dim=1).any() for row in found)
    whole = pd.DataFrame({"input": [row.tolist() for row in x]})
    fractions = whole if dtype == np.float32 else pd.DataFrame({"input": [(row / 255).tolist() for row in x]})
    assert torch.allclose(predictor.to_tensors(whole), predictor.to_tensors(fractions))
    bad = pd.DataFrame({"input": [x[0].tolist(), [1, 2], None, np.full((1, 4, 4), np.nan)]})
    assert predictor.predict(bad)["error"].notna().tolist() == [False, True, True, True]


def test_several_numbers_are_answered_in_columns_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(40, 3)), y=rng.normal(size=(40, 2)))
    out, _, _ = export(tmp_path, {"type": "npz", "path": str(tmp_path / "a.npz")})
    predictor = Predictor.load(out)
    assert predictor.predict(predictor.example()).columns.tolist() == ["prediction_0", "prediction_1"]


def test_a_text_is_continued_and_measured_as_the_validation_text_is(tmp_path):
    data = {"type": "stdlib_chars", "block_size": 32, "num_train": 8}
    out, _, val = export(tmp_path, data, {**TINY_GPT, "config": {**TINY_GPT["config"], "n_positions": 32}})
    predictor = Predictor.load(out)
    blocks = [val[index][0] for index in range(16)]
    answers = predictor.predict(
        pd.DataFrame({"text": ["".join(map(chr, block)) for block in blocks]}), max_new_tokens=5
    )
    with torch.no_grad():
        logits = predictor.module(input_ids=torch.stack(blocks)[:, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.stack(blocks)[:, 1:].flatten()).item()
    assert answers["loss"].mean() == pytest.approx(expected, rel=1e-5)
    assert answers["generated"].map(len).eq(5).all()


def test_texts_of_a_tokenizer_are_answered_one_for_one(tmp_path):
    write_plain(tmp_path / "text")
    data = {"type": "text", "root": str(tmp_path / "text"), "block_size": 16, "vocab_size": 300}
    out, job, _ = export(tmp_path, data, {**TINY_GPT, "config": {**TINY_GPT["config"], "n_positions": 16}})
    shutil.copy(f"{job.data.tokens}/tokenizer.json", out)
    predictor = Predictor.load(out)
    rows = pd.DataFrame({"text": ["the", "", "a long text " * 20, None, "the café"]})
    answers = predictor.predict(rows)
    assert answers["error"].notna().tolist() == [False, False, False, True, False]
    assert answers["loss"].notna().tolist()[1:] == [False, True, False, True]
    alone = [predictor.predict(rows.iloc[[row]]) for row in (0, 2, 4)]
    assert [one["generated"].iloc[0] for one in alone] == answers["generated"].iloc[[0, 2, 4]].tolist()
    assert len(predictor.predict(predictor.example())) == 8
    with pytest.raises(InputError, match="max_new_tokens must be from 0 to 15"):
        predictor.predict(rows, max_new_tokens=16)


def test_rows_of_token_ids_are_continued_by_token_ids(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).integers(0, 50, (20, 16)))
    out, _, _ = export(
        tmp_path, {"type": "npz", "path": str(tmp_path / "a.npz")}, {**TINY_GPT, "config": {**TINY_GPT["config"]}}
    )
    predictor = Predictor.load(out)
    answers = predictor.predict(pd.DataFrame({"input": [[1, 2, 3], [70], np.array([4, 5])]}), max_new_tokens=4)
    assert answers["generated"].dropna().map(len).to_dict() == {0: 4, 2: 4}


def test_the_recipe_says_how_images_are_prepared(tmp_path):
    write_images(tmp_path / "data")
    out, _, _ = export(tmp_path, {"type": "imagefolder", "root": str(tmp_path / "data"), "image_size": 16}, steps=1)
    inputs = json.loads((out / RECIPE).read_text())["inputs"]
    assert inputs["mean"] == [0.485, 0.456, 0.406]
    assert (inputs["image_size"], inputs["crop_share"], inputs["classes"]) == (16, 0.875, ["cat", "dog"])


def test_the_recipe_names_no_place_of_a_file(table, tmp_path):
    recipe = (table[0].folder / RECIPE).read_text()
    assert table[1].data.path not in recipe
    assert json.loads(recipe)["inputs"]["columns"][0]["name"] == "length"


def test_a_model_of_an_earlier_version_is_refused_with_the_remedy(table, tmp_path):
    for name in (RECIPE, "model.safetensors"):
        (tmp_path / name).write_bytes((table[0].folder / name).read_bytes())
    recipe = json.loads((tmp_path / RECIPE).read_text())
    inputs = recipe.pop("inputs")
    (tmp_path / RECIPE).write_text(json.dumps(recipe))
    with pytest.raises(InputError, match=r"earlier version.*predict with its run"):
        Predictor.load(tmp_path)
    assert Predictor.load(tmp_path, inputs=inputs).predict(flowers(3))["prediction"].notna().all()


OWN = """
import torch

class Rows(torch.utils.data.Dataset):
    classes = ["calm", "wild"]
    def __len__(self):
        return 20
    def __getitem__(self, index):
        if index >= 20:
            raise IndexError(index)
        return torch.full((2, 3), index / 20), index % 2

def make():
    return Rows(), Rows()
"""


def test_rows_of_users_own_data_are_arrays(tmp_path, monkeypatch):
    (tmp_path / "calm_or_wild.py").write_text(OWN)
    info = tmp_path / "calm_or_wild-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: calm-or-wild\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[activelr.data]\ncalm-or-wild = calm_or_wild:make\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    out, _, val = export(tmp_path / "out", {"type": "python", "name": "calm-or-wild"})
    predictor = Predictor.load(out)
    assert torch.equal(predictor.to_tensors(predictor.example())[1], val[2][0])
    assert predictor.predict(predictor.example()).columns.tolist()[1:] == ["probability_calm", "probability_wild"]
