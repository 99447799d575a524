"""Measuring a run's model on other data: classes are matched by name, and other data are refused by what differs."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from activelr_service.config import dump_job, parse_job
from activelr_service.data import build_data
from activelr_service.errors import JobError
from activelr_service.export.model import load_model
from activelr_service.models import build_model
from activelr_service.runs.run import Run
from activelr_service.service.check import prepare_job
from activelr_service.service.evaluate import evaluate_run
from activelr_service.service.resolve import Resources, resolve_job
from tests.conftest import export_model

SHADES = {"ant": 30, "bee": 90, "cow": 160, "dog": 230}


def write_shades(root, classes, count=10, shades=SHADES):
    """Images of one shade for each class."""
    rng = np.random.default_rng(len(classes))
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((8, 8, 3), shades[name], np.uint8) + rng.integers(0, 9, (8, 8, 1), np.uint8)
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
    export_model(run.model, build_model(job.model, info, job.task), job.model, info, job.task)
    return run, job


def on(job, **changes):
    return job.model_copy(update={"data": job.data.model_copy(update=changes)})


def test_a_folder_that_lacks_a_class_is_measured_by_name(tmp_path, caplog):
    root = write_shades(tmp_path / "train", SHADES)
    run, job = exported(tmp_path, {"type": "imagefolder", "root": str(root), "image_size": 8, "val_fraction": 0.5})
    some = write_shades(tmp_path / "some", ["bee", "dog"])
    for classes in (job.data.classes, None):  # None: of a run from before the classes were kept
        measured = evaluate_run(run, on(job, root=str(some), classes=classes))
        model, (_, val) = load_model(run.model), build_data(on(job, root=str(some)).data)
        with torch.no_grad():
            answers = [model(image[None]).argmax().item() for image, _ in val]
        names = [path.split("/")[-2] for path in val.files.paths]
        right = np.mean([model.classes[answer] == name for answer, name in zip(answers, names, strict=True)])
        assert measured["rows"] == 10
        assert "measured on the validation samples: 10; not on those to train on: 10" in caplog.text
        assert measured["accuracy"] == pytest.approx(right)


def test_a_class_that_the_model_does_not_know_is_refused_by_name(tmp_path):
    root = write_shades(tmp_path / "train", ["ant", "bee"])
    run, job = exported(tmp_path, {"type": "imagefolder", "root": str(root), "image_size": 8})
    other = write_shades(tmp_path / "other", ["ant", "cow"])
    with pytest.raises(JobError, match=r"data\.root: .*other has classes .* not among those trained on: cow"):
        evaluate_run(run, on(job, root=str(other)))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((20, 5), np.float32), np.arange(20) % 3, r"rows of shape \(5,\), and the model was trained on \(4,\)"),
        (np.ones((20, 4), np.float32), np.arange(20) % 4, "the data have 4 classes, and the model was trained on 3"),
    ],
)
def test_arrays_that_do_not_suit_the_model_are_refused(tmp_path, x, y, message):
    np.savez(tmp_path / "a.npz", x=np.ones((20, 4), np.float32), y=np.arange(20) % 3)
    np.savez(tmp_path / "b.npz", x=x, y=y)
    run, job = exported(tmp_path, {"type": "npz", "path": str(tmp_path / "a.npz")})
    assert evaluate_run(run, job)["rows"] == 4
    with pytest.raises(JobError, match=message):
        evaluate_run(run, on(job, path=str(tmp_path / "b.npz")))


def test_other_text_is_measured_with_the_tokenizer_of_the_model(tmp_path):
    (tmp_path / "one.txt").write_text("the cat sat on the mat\n" * 300)
    (tmp_path / "two.txt").write_text("a dog ran to the sea\n" * 900)
    gpt2 = {"type": "causal_lm", "name": "gpt2", "config": {"n_layer": 1, "n_head": 1, "n_embd": 8}}
    data = {"type": "text", "root": str(tmp_path / "one.txt"), "block_size": 16, "vocab_size": 300}
    run, job = exported(tmp_path, data, gpt2)
    shutil.copy(Path(job.data.tokens) / "tokenizer.json", run.model)
    rows = evaluate_run(run, job)["rows"]
    assert evaluate_run(run, on(job, root=str(tmp_path / "two.txt")))["rows"] > 2 * rows
