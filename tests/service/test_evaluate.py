"""Measuring a run's model: all samples of other data count, classes are matched by name, and what differs is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image

from activelr_service.cli.scores import table, to_json
from activelr_service.config import dump_job, parse_job
from activelr_service.data.imagefolder import as_dataset, label
from activelr_service.data.imagefolder_layout import list_classes
from activelr_service.errors import CommandError, JobError
from activelr_service.export.model import load_model
from activelr_service.models import build_model
from activelr_service.runs.run import Run
from activelr_service.service.check import prepare_job
from activelr_service.service.evaluate import evaluate_run
from activelr_service.service.prepare import write_data
from activelr_service.service.resolve import Resources, resolve_job
from tests.conftest import export_model
from tests.data.generate_voc import write_voc

SHADES = {"ant": 30, "bee": 90, "cow": 160, "dog": 230}
IRISES = "size,color,kind\n" + "".join(f"{i / 7:.3f},{'red' if i % 2 else 'blue'},{'abc'[i % 3]}\n" for i in range(60))


def write_shades(root, classes, count=10):
    """Images of one shade for each class."""
    rng = np.random.default_rng(len(classes))
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((8, 8, 3), SHADES[name], np.uint8) + rng.integers(0, 9, (8, 8, 1), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def exported(tmp_path, data, model=None):
    """A run with an untrained model, as it is left when a job on these data has finished, and its job."""
    job = parse_job({"kind": "train", "name": "x", "epochs": 1, "model": model or {"type": "mlp", "hidden": [8]},
                     "data": data, "output_dir": str(tmp_path), "global_batch_size": 4, "grad_accum_steps": 1,
                     "workers": {"num_workers": 1}})  # fmt: skip
    job, info = prepare_job(job)
    job, _ = resolve_job(job, info, Resources(1, 0))
    run = Run(tmp_path / "x" / "001")
    torch.manual_seed(0)
    run.folder.mkdir(parents=True)
    (run.folder / "resolved.yaml").write_text(dump_job(job))
    (run.folder / "data.json").write_text(write_data(job, info))
    export_model(run.model, build_model(job.model, info, job.task), job.model, info, job.task)
    return run, job


def on(job, **changes):
    return job.model_copy(update={"data": job.data.model_copy(update=changes)})


def table_run(tmp_path, **changes):
    (tmp_path / "t.csv").write_text(IRISES)
    return exported(tmp_path, {"type": "table", "path": str(tmp_path / "t.csv"), "target": "kind", **changes})


def measured(run, job, tmp_path, text, **changes):
    (tmp_path / "other.csv").write_text(text)
    return evaluate_run(run, on(job, path=str(tmp_path / "other.csv"), **changes)).scores["all"]


def test_every_image_of_a_folder_that_lacks_a_class_is_measured_by_name(tmp_path):
    root = write_shades(tmp_path / "train", SHADES)
    run, job = exported(tmp_path, {"type": "imagefolder", "root": str(root), "image_size": 8, "val_fraction": 0.5})
    some = write_shades(tmp_path / "some", ["bee", "dog"])
    for classes in (job.data.classes, None):  # None: of a run from before the classes were kept
        other = on(job, root=str(some), classes=classes)
        evaluation = evaluate_run(run, other)
        model, every = load_model(run.model), as_dataset(other.data, label(some, list_classes(some), list(SHADES)))
        with torch.no_grad():
            answers = [model(image[None]).argmax().item() for image, _ in every]
        names = [path.split("/")[-2] for path in every.files.paths]
        right = np.mean([model.classes[answer] == name for answer, name in zip(answers, names, strict=True)])
        assert evaluation.scores["all"].rows == 20
        assert evaluation.lines == [f"20 samples: {some}"]
        assert evaluation.scores["all"].metrics["accuracy"] == pytest.approx(right)


def test_a_folder_with_splits_is_measured_whole_or_one_split_of_it(tmp_path):
    run, job = exported(
        tmp_path, {"type": "imagefolder", "root": str(write_shades(tmp_path / "own", SHADES)), "image_size": 8}
    )
    other = tmp_path / "other"
    write_shades(other / "train", ["ant", "bee"], count=3)
    write_shades(other / "val", ["bee", "dog"], count=2)
    write_shades(other / "misc" / "x", ["ant"], count=1)
    (other / "val" / "dog" / "notes.txt").write_text("no image")
    (other / "val" / "dog" / "broken.png").write_bytes(b"no image either")
    evaluation = evaluate_run(run, on(job, root=str(other)))
    assert evaluation.lines == [f"6 samples: {other}/train", f"5 samples: {other}/val"]
    assert evaluation.scores["all"].rows == 10
    assert evaluation.scores["all"].left_out == {
        f"images in {other}/misc, which is no split": 1,
        "files that are no images that can be decoded": 1,
        "images that cannot be decoded": 1,
    }
    assert {name: score.rows for name, score in evaluate_run(run, on(job, root=str(other)), "val").scores.items()} == {
        "validation": 4
    }
    with pytest.raises(CommandError, match="--split test: these data have train, validation"):
        evaluate_run(run, on(job, root=str(other)), "test")


def test_a_class_that_the_model_does_not_know_is_refused_by_name(tmp_path):
    root = write_shades(tmp_path / "train", ["ant", "bee"])
    run, job = exported(tmp_path, {"type": "imagefolder", "root": str(root), "image_size": 8})
    other = write_shades(tmp_path / "other", ["ant", "cow", "dog"])
    message = r"data\.root: .*other has classes .* not among those trained on: cow \(10 samples\), dog \(10 samples\)"
    with pytest.raises(JobError, match=message):
        evaluate_run(run, on(job, root=str(other)))


def test_the_own_splits_are_measured_where_no_other_data_are_named(tmp_path):
    run, job = table_run(tmp_path, test_fraction=0.2)
    evaluation = evaluate_run(run, job)
    assert {name: score.rows for name, score in evaluation.scores.items()} == {"validation": 10, "test": 12}
    assert evaluation.lines == ["the data of the run; not measured: train: 38"]
    assert evaluate_run(run, on(job, path=str(tmp_path / "x" / ".." / "t.csv"))).scores == evaluation.scores
    rows = {split: evaluate_run(run, job, split).scores for split in ("val", "test", "train", "all")}
    assert [list(scores) for scores in rows.values()] == [
        ["validation"],
        ["test"],
        ["train"],
        ["train", "validation", "test"],
    ]
    (tmp_path / "plain").mkdir()
    run, job = table_run(tmp_path / "plain")
    assert list(evaluate_run(run, job).scores) == ["validation"]
    with pytest.raises(CommandError, match=r"x/001 has no test split; .* data\.test_fraction"):
        evaluate_run(run, job, "test")
    with pytest.raises(JobError, match=r"data\.test_fraction: the run was trained with None, .* got 0\.5"):
        evaluate_run(run, on(job, test_fraction=0.5))
    with pytest.raises(CommandError, match="--split exam: there are train, val, test and all"):
        evaluate_run(run, job, "exam")


@pytest.mark.parametrize(
    ("text", "rows", "left_out"),
    [
        (IRISES, 60, {}),
        ("size,color,kind\n2.5,red,b\n", 1, {}),
        ("extra,kind,size,color\n1,a,3,red\n1,c,4,green\n", 2, {}),
        (
            "size,color,kind\n2,red,a\n3,red,\nbig,red,b\n,,c\n",
            2,
            {"no target 'kind' (first in row 2)": 1, "no number in the column 'size' (first in row 3)": 1},
        ),
    ],
)
def test_every_row_of_another_table_is_measured_or_left_out_with_the_reason(tmp_path, text, rows, left_out):
    run, job = table_run(tmp_path)
    score = measured(run, job, tmp_path, text)
    assert (score.rows, score.left_out) == (rows, left_out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "size,color,kind\n1,red,a\n2,red,x\n3,red,x\n4,red,y\n",
            r"trained on: x \(2 samples\), y \(1 samples\); those are",
        ),
        ("Size,color,kind\n1,red,a\n", "lacks the columns size"),
        ("size,color,kind\n", "the file has no row"),
        ("size,color,kind\n1,red,\n", r"no row can be measured: 1 rows: no target 'kind' \(first in row 1\)"),
    ],
)
def test_a_table_that_does_not_suit_the_model_is_refused(tmp_path, text, message):
    run, job = table_run(tmp_path)
    with pytest.raises(JobError, match=message):
        measured(run, job, tmp_path, text)


@pytest.mark.parametrize("written", ["{}", "{}.0", '"{}"'])
def test_classes_that_are_written_another_way_are_the_same_and_the_columns_of_the_model_count(tmp_path, written):
    lines = ["size,kind", *(f"{i / 7:.3f},{i % 3}" for i in range(60))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    run, job = exported(tmp_path, {"type": "table", "path": str(tmp_path / "t.csv"), "target": "kind"})
    whole = measured(run, job, tmp_path, "\n".join(lines) + "\n")
    other = "\n".join(["size,kind", *(f"{i / 7:.3f},{written.format(i % 3)}" for i in range(60))]) + "\n"
    assert measured(run, job, tmp_path, other) == whole
    model, mean, std = load_model(run.model), job.data.columns[0].mean, job.data.columns[0].std
    sizes = torch.tensor([[(round(i / 7, 3) - mean) / std] for i in range(60)], dtype=torch.float32)
    right = (model(sizes).argmax(dim=1) == torch.arange(60) % 3).float().mean().item()
    assert whole.metrics["accuracy"] == pytest.approx(right)


def test_only_the_files_that_are_new_are_measured_and_a_copy_of_the_own_is_told(tmp_path):
    (tmp_path / "val.csv").write_text(IRISES)
    run, job = table_run(tmp_path, val_path=str(tmp_path / "val.csv"))
    assert measured(run, job, tmp_path, IRISES[: IRISES.index("\n1.000") + 1]).rows == 7
    (tmp_path / "small.csv").write_text("size,color,kind\n1,red,a\n")
    scores = evaluate_run(run, on(job, val_path=str(tmp_path / "small.csv"))).scores
    assert {name: score.rows for name, score in scores.items()} == {"validation": 1}
    (tmp_path / "copy.csv").write_text(IRISES)
    (tmp_path / "plain").mkdir()
    run, job = table_run(tmp_path / "plain")
    lines = evaluate_run(run, on(job, path=str(tmp_path / "copy.csv"))).lines
    assert "the same as the run's own data" in lines[-1]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((20, 5), np.float32), np.arange(20) % 3, r"rows of shape \(5,\), and the model was trained on \(4,\)"),
        (np.ones((20, 4), np.float32), np.arange(20) % 5, r"trained on: 3 \(4 samples\), 4 \(4 samples\)"),
        (np.full((2, 4), np.nan), np.arange(2), "no row can be measured"),
    ],
)
def test_arrays_that_do_not_suit_the_model_are_refused(tmp_path, x, y, message):
    np.savez(tmp_path / "a.npz", x=np.ones((20, 4), np.float32), y=np.arange(20) % 3)
    np.savez(tmp_path / "b.npz", x=x, y=y)
    run, job = exported(tmp_path, {"type": "npz", "path": str(tmp_path / "a.npz")})
    assert evaluate_run(run, job).scores["validation"].rows == 4
    with pytest.raises(JobError, match=message):
        evaluate_run(run, on(job, path=str(tmp_path / "b.npz")))


def test_every_row_of_other_arrays_is_measured_on_the_scale_of_the_model(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 3, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=pixels, y=np.arange(30) % 3)
    run, job = exported(tmp_path, {"type": "npz", "path": str(tmp_path / "a.npz")})
    expected = None
    for x in (pixels, pixels / np.float32(255), pixels.astype(np.float32)):
        for y in (np.arange(30) % 3, (np.arange(30) % 3).astype(np.float32), (np.arange(30) % 3).astype(str)):
            np.savez(tmp_path / "b.npz", x=x, y=y)
            score = evaluate_run(run, on(job, path=str(tmp_path / "b.npz"))).scores["all"]
            expected = expected or score
            assert (score.rows, score.metrics["accuracy"]) == (30, expected.metrics["accuracy"])
            assert score.metrics["loss"] == pytest.approx(expected.metrics["loss"], rel=1e-5)
    np.savez(tmp_path / "b.npz", x=pixels[:1], y=np.array([2]))
    assert evaluate_run(run, on(job, path=str(tmp_path / "b.npz"))).scores["all"].rows == 1
    x = (pixels / 255).astype(np.float32)
    x[4] = np.nan
    np.savez(tmp_path / "b.npz", x=x, y=np.arange(30) % 3)
    score = evaluate_run(run, on(job, path=str(tmp_path / "b.npz"))).scores["all"]
    assert (score.rows, score.left_out) == (29, {"NaN, infinity or a number too large in x or y": 1})


def test_a_saved_dataset_without_splits_is_measured_whole_and_rows_without_a_label_are_left_out(tmp_path):
    def saved(name, labels, names=("cat", "dog"), is_one=True):
        features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(names))})
        images = [Image.fromarray(np.full((8, 8, 3), 9 * i, np.uint8)) for i in range(len(labels))]
        made = Dataset.from_dict({"image": images, "label": labels}, features)
        (made if is_one else DatasetDict({"test": made})).save_to_disk(str(tmp_path / name))
        return str(tmp_path / name)

    data = {"type": "huggingface", "path": saved("own", [0, 1] * 6), "image_size": 8}
    run, job = exported(tmp_path, data)
    score = evaluate_run(run, on(job, path=saved("one", [0, 0, -1, 1, 1]))).scores["all"]
    assert (score.rows, list(score.left_out.values())) == (4, [1])
    assert evaluate_run(run, on(job, path=saved("swapped", [1], ["dog", "cat"], False))).scores["test"].rows == 1
    with pytest.raises(JobError, match=r"trained on: cow \(2 samples\)"):
        evaluate_run(run, on(job, path=saved("odd", [0, 1, 1], ["cat", "cow"])))


@pytest.mark.parametrize("count", [0, 1, 60])
def test_other_text_of_any_length_is_measured_whole_with_the_tokenizer_of_the_model(tmp_path, count):
    text = "a dog ran to the sea\n" * count or "a"
    (tmp_path / "one.txt").write_text("the cat sat on the mat\n" * 300)
    (tmp_path / "two.txt").write_text(text)
    gpt2 = {"type": "causal_lm", "name": "gpt2", "config": {"n_layer": 1, "n_head": 1, "n_embd": 8}}
    data = {"type": "text", "root": str(tmp_path / "one.txt"), "block_size": 16, "vocab_size": 300}
    run, job = exported(tmp_path, data, gpt2)
    shutil.copy(Path(job.data.tokens) / "tokenizer.json", run.model)
    assert list(evaluate_run(run, job).scores) == ["validation"]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(run.model / "tokenizer.json"))
    score = evaluate_run(run, on(job, root=str(tmp_path / "two.txt"))).scores["all"]
    encoded = len(tokenizer.encode(text).ids)
    assert abs(score.metrics["count"] - encoded) <= encoded // 500, (
        "each token is predicted once, and the end of the text"
    )
    assert score.rows == -(-int(score.metrics["count"]) // 16)


def test_text_with_a_validation_file_only_is_measured(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.txt").write_text("the cat sat on the mat\n" * 300)
    gpt2 = {"type": "causal_lm", "name": "gpt2", "config": {"n_layer": 1, "n_head": 1, "n_embd": 8}}
    data = {"type": "text", "root": str(tmp_path / "own"), "block_size": 16, "vocab_size": 300}
    run, job = exported(tmp_path, data, gpt2)
    shutil.copy(Path(job.data.tokens) / "tokenizer.json", run.model)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "val.txt").write_text("a dog ran\n" * 20)
    (tmp_path / "other" / "test.txt").write_text("")
    evaluation = evaluate_run(run, on(job, root=str(tmp_path / "other")))
    assert list(evaluation.scores) == ["validation"]
    assert list(evaluation.scores["validation"].left_out) == ["file or split without text: test"]


@pytest.mark.slow
def test_another_year_of_voc_is_measured_with_all_its_image_sets(tmp_path):
    write_voc(tmp_path, year="2012")
    write_voc(tmp_path, year="2007", sets=(("train", 1), ("val", 1), ("test", 2)))
    small = {"type": "torchvision_detection", "name": "fasterrcnn_mobilenet_v3_large_320_fpn",
             "args": {"min_size": 64, "max_size": 64}}  # fmt: skip
    run, job = exported(tmp_path, {"type": "voc", "root": str(tmp_path)}, small)
    evaluation = evaluate_run(run, on(job, years=["2007"]))
    assert evaluation.scores["all"].rows == 4
    assert [line.split(":")[0] for line in evaluation.lines] == ["1 sample", "1 sample", "2 samples"]


def test_data_of_another_type_and_changed_own_data_are_refused(tmp_path):
    run, job = table_run(tmp_path)
    np.savez(tmp_path / "b.npz", x=np.ones((4, 2)), y=np.arange(4) % 2)
    npz = parse_job({**job.model_dump(exclude_none=True), "data": {"type": "npz", "path": str(tmp_path / "b.npz")}})
    with pytest.raises(JobError, match=r"data\.type: the model was trained on data of type table, got npz"):
        evaluate_run(run, job.model_copy(update={"data": npz.data}))
    (tmp_path / "t.csv").write_text(IRISES + "1,red,a\n")
    with pytest.raises(JobError, match="have changed since it began"):
        evaluate_run(run, job)


def test_the_scores_are_a_table_and_json(tmp_path):
    run, job = table_run(tmp_path, test_fraction=0.2)
    scores = evaluate_run(run, job).scores
    lines = table(scores)
    assert lines[0].split() == ["validation", "test"]
    assert lines[1].split() == ["samples", "10", "12"]
    assert any(line.startswith("accuracy") for line in lines)
    written = json.loads(json.dumps(to_json(scores)))
    assert {name: values["rows"] for name, values in written.items()} == {"validation": 10, "test": 12}
