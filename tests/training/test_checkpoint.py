"""Checkpoints: nothing damaged is ever read, and what is left is used or said to be missing."""

import shutil
from dataclasses import replace

import pytest
import torch

from activelr_service.data import inspect_data
from activelr_service.errors import CheckpointError
from activelr_service.runs.journal import write_journal
from activelr_service.training.build import build_training
from activelr_service.training.checkpoint import CheckpointStore, Place
from activelr_service.training.checkpoint_files import verify
from activelr_service.training.loop import run_epoch
from tests.conftest import small_job
from tests.training.test_loop import assert_identical, final_tensors, resolved, store, train

pytestmark = pytest.mark.slow


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(folder):
    path = folder / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def lose_a_file(folder):
    (folder / "state.json").unlink()


def lose_the_manifest(folder):
    (folder / "manifest.json").unlink()


def empty_the_manifest(folder):
    (folder / "manifest.json").write_text("")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, lose_a_file, lose_the_manifest, empty_the_manifest])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(tmp_path, damage, capsys):
    job = resolved(small_job(tmp_path, epochs=3))
    train(job, tmp_path)
    expected = final_tensors(tmp_path, 3)
    damage(tmp_path / "checkpoints" / "epoch-000003")
    epochs_run = []
    train(job, tmp_path, epochs_run)
    assert [record.epoch for record in epochs_run] == [3]
    assert_identical(final_tensors(tmp_path, 3), expected)
    assert (tmp_path / "checkpoints" / "epoch-000003.corrupt").exists()
    assert "epoch-000003 is set aside" in capsys.readouterr().out


def test_without_a_valid_checkpoint_the_training_does_not_start_from_scratch_in_silence(tmp_path):
    job = resolved(small_job(tmp_path, epochs=2))
    train(job, tmp_path)
    for epoch in (1, 2):
        flip_a_bit(tmp_path / "checkpoints" / f"epoch-{epoch:06d}")
    with pytest.raises(CheckpointError, match="no valid checkpoint in"):
        train(job, tmp_path)


def test_a_checkpoint_that_was_being_written_is_not_one(tmp_path):
    job = resolved(small_job(tmp_path, epochs=2))
    train(job, tmp_path)
    shutil.copytree(tmp_path / "checkpoints" / "epoch-000002", tmp_path / "checkpoints" / ".epoch-000003.77")
    assert store(tmp_path).find_valid() == Place(2)
    train(job.model_copy(update={"epochs": 3}), tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["epoch-000002", "epoch-000003"]
    assert verify(tmp_path / "checkpoints" / "epoch-000003") is None


def test_what_a_commit_writes_does_not_grow_with_the_epochs(tmp_path):
    sizes = []
    for behind in (10, 10_000):
        folder = tmp_path / str(behind)
        (folder / "checkpoints").mkdir(parents=True)
        job = resolved(small_job(folder, epochs=20_000))
        training = build_training(job, inspect_data(job.data), torch.device("cpu"))
        first = run_epoch(training, 1)
        history = [replace(first, epoch=epoch) for epoch in range(1, behind + 2)]
        write_journal(folder / "journal.jsonl", history[:-1])
        before = (folder / "journal.jsonl").stat().st_size
        checkpoints = CheckpointStore(folder / "checkpoints", folder / "journal.jsonl", print)
        checkpoints.commit(training, history)
        state = checkpoints.path(behind + 1) / "state.json"
        sizes.append((state.stat().st_size, (folder / "journal.jsonl").stat().st_size - before))
        assert checkpoints.history(Place(behind + 1)) == history
    assert all(abs(many - few) < 50 for few, many in zip(*sizes, strict=True))
