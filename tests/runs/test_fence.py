"""Only the newest attempt at a run, and in it the newest worker group, writes to the run."""

import pytest

from activelr_service.data import inspect_data
from activelr_service.errors import SupersededError
from activelr_service.runs.fence import begin_attempt, begin_group
from activelr_service.runs.journal import read_journal
from activelr_service.training.build import build_training
from activelr_service.training.checkpoint import CheckpointStore
from activelr_service.training.loop import fit
from tests.conftest import small_job
from tests.training.test_loop import CPU, resolved


def train_fenced(job, folder, fence):
    store = CheckpointStore(folder / "checkpoints", folder / "journal.jsonl", print, fence=fence)
    fit(build_training(job, inspect_data(job.data), CPU), store, lambda record: None)


def test_attempts_and_groups_are_counted_and_only_the_newest_writes(tmp_path):
    first = begin_group(tmp_path, begin_attempt(tmp_path))
    with first.held():
        pass
    replaced = begin_group(tmp_path, 1)
    assert (replaced.attempt, replaced.group) == (1, 2)
    with pytest.raises(SupersededError, match=r"attempt 1\.1 of .* was superseded by 1\.2"), first.held():
        raise AssertionError("an older worker group wrote")
    assert begin_attempt(tmp_path, after=7) == 8
    with pytest.raises(SupersededError), replaced.held():
        raise AssertionError("an older attempt wrote")
    with pytest.raises(SupersededError, match="attempt 1 of"):
        begin_group(tmp_path, 1)


def test_a_worker_that_comes_back_after_another_attempt_began_commits_deletes_and_journals_nothing(tmp_path):
    job = resolved(small_job(tmp_path, epochs=1))
    attempt = begin_attempt(tmp_path)
    old = begin_group(tmp_path, attempt)
    train_fenced(job, tmp_path, old)
    assert len(read_journal(tmp_path / "journal.jsonl")) == 1
    begin_attempt(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SupersededError):
        train_fenced(job.model_copy(update={"epochs": 2}), tmp_path, old)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_a_checkpoint_that_an_old_attempt_finds_damaged_is_left_where_it_is(tmp_path):
    old = begin_group(tmp_path, begin_attempt(tmp_path))
    begin_attempt(tmp_path)
    (tmp_path / "checkpoints" / "epoch-000001").mkdir(parents=True)
    store = CheckpointStore(tmp_path / "checkpoints", tmp_path / "journal.jsonl", print, fence=old)
    with pytest.raises(SupersededError):
        store.find_valid()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch-000001"]
