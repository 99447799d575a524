"""`activelr compare`: what is put side by side, what is said of runs that do not compare, and the picture."""

import json

import matplotlib.image
import numpy as np
import pytest

from activelr_service.runs.begin import create_run
from activelr_service.runs.journal import write_journal
from activelr_service.runs.record import Record
from activelr_service.service.prepare import prepare, write_data
from tests.conftest import activelr, small_job

QUICK = {"workers": {"num_workers": 1}, "global_batch_size": 64, "epochs": 4}


def run_of(folder, scores, **changes):
    """A run that reached these scores, without its training."""
    job = small_job(folder, **{**QUICK, **changes})
    prepared = prepare(job)
    run = create_run(folder / job.name, job, prepared.job, write_data(prepared.job, prepared.info), prepared.state())
    name = "val/accuracy" if prepared.job.task == "classification" else "val/loss"
    speed = {"perf/samples": 1408.0, "perf/samples_per_sec": 704.0, "perf/epoch_seconds": 3.0}
    history = [
        Record(epoch, 22 * epoch, 0, {name: score, "train/loss": 1 / epoch, **speed}, [])
        for epoch, score in enumerate(scores, start=1)
    ]
    write_journal(run.journal, history)
    run.update(status="interrupted")
    return run


def rows_file(folder):
    rng = np.random.default_rng(0)
    np.savez(folder / "rows.npz", x=rng.normal(size=(200, 4)).astype(np.float32), y=rng.normal(size=200))
    return {"type": "npz", "path": str(folder / "rows.npz")}


def test_runs_of_two_folders_are_compared_in_a_table_a_picture_and_json(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "small").mkdir(parents=True)
    run_of(tmp_path / "a", [0.5, 0.9, 0.8])
    other = run_of(tmp_path / "b", [0.4, 0.6], model={"type": "mlp", "hidden": [64]}, seed=3)
    where = ("--output-dir", tmp_path / "a", "--output", tmp_path / "both.png")
    shown = activelr("compare", "small", other.folder, *where)
    assert shown.returncode == 0, shown.stderr
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert rows[1][:8] == ["a/small/001", "interrupted", "mlp", "digits", "val/accuracy", "0.9000", "2", "0.8000"]
    assert rows[1][8:] == ["3", "66", "0m09s", "704"]
    assert ["model.hidden", "[32]", "[64]"] in rows
    assert ["seed", "0", "3"] in rows
    assert "note:" not in shown.stdout
    assert matplotlib.image.imread(tmp_path / "both.png").std() > 0
    found = json.loads(activelr("compare", "small", other.folder, *where, "--json").stdout)
    assert [run["best"] for run in found["runs"]] == [0.9, 0.6]
    assert found["settings"]["seed"] == {"a/small/001": "0", "b/small/001": "3"}
    assert found["picture"] == str(tmp_path / "both.png")


def test_what_does_not_compare_is_said(tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "rows").mkdir()
    run_of(tmp_path, [0.5])
    run_of(tmp_path, [])
    run_of(tmp_path, [2.0], name="rows", data=rows_file(tmp_path))
    where = ("--output-dir", tmp_path, "--output", tmp_path / "all.png")
    notes = json.loads(activelr("compare", "small/001", "small/002", "rows", *where, "--json").stdout)["notes"]
    assert notes == [
        "the runs are measured by different scores, which do not compare: "
        "val/accuracy (classification), val/loss (regression)",
        "no epoch has ended yet, so that there is nothing to draw: small/002",
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["small", "small/002"], "needs two different runs or more to compare, got small, small/002"),
        (["small", "nothing"], "no run 'nothing' under"),
        (["small/001", "small/002", "--output", "picture.jpg"], "--output must be a .png file, got picture.jpg"),
        (
            ["small/001", "small/002", "--output", "/nowhere/x.png"],
            "the picture /nowhere/x.png cannot be written: No such",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(two, words, expected):
    refused = activelr("compare", *words, "--output-dir", two)
    assert refused.returncode == 2
    assert expected in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    (folder / "small").mkdir()
    run_of(folder, [0.5])
    run_of(folder, [0.6])
    return folder
