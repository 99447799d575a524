"""Files of a run that are lost, damaged or moved, and processes that were overtaken."""

import os
import shutil
import subprocess

import numpy as np
import pytest

from activelr_service.errors import CommandError, JobError, RunDamagedError, SupersededError, WorkersLostError
from activelr_service.export.model import load_model
from activelr_service.runs.begin import start_attempt
from activelr_service.runs.journal import read_journal
from activelr_service.runs.run import find_run, runs_of
from activelr_service.service import attempt
from activelr_service.service.evaluate import evaluate_run
from activelr_service.service.launch import resume, train
from tests.conftest import ACTIVELR, PATIENCE_S, activelr, small_job
from tests.data.generate_text import write_wikitext
from tests.service.conftest import QUICK, cut_off, rows_job

pytestmark = [pytest.mark.xdist_group("damage"), pytest.mark.ray]


def test_a_run_that_lost_its_state_is_damaged_and_no_new_run_begins_beside_it(run):
    (run.folder / "run.json").unlink()
    assert [each.label for each in runs_of(run.folder.parent)] == ["small/001"]
    with pytest.raises(RunDamagedError, match=r"run small/001 is damaged: run.json: No such file"):
        train(run.written_job())


def test_a_finished_run_with_a_damaged_journal_gets_it_written_anew_as_its_message_says(run):
    whole = run.journal.read_bytes()
    run.journal.write_bytes(whole.replace(b"\n", b"\n\0\n"))
    with pytest.raises(RunDamagedError, match="resuming the run writes it anew"):
        read_journal(run.journal)
    resume(run)
    assert run.journal.read_bytes() == whole
    assert run.status() == "finished"


@pytest.mark.parametrize("name", ["data.json", "batch_size.json"])
def test_a_file_of_a_run_that_cannot_be_read_is_named_in_one_line(run, name):
    cut_off(run, 1)
    for content in ("", "{", "\0\0", "[]"):
        (run.folder / name).write_text(content)
        with pytest.raises(CommandError, match=rf"{name}.*restore"):
            resume(run)


def test_a_damaged_count_of_attempts_is_taken_from_the_state(run):
    cut_off(run, 1)
    attempts = run.state()["attempts"]
    (run.folder / "attempt.json").write_text("{")
    resume(run)
    assert run.state()["attempts"] == attempts + 1


def test_a_model_whose_recipe_is_damaged_is_not_measured_and_resume_makes_it_again(run):
    (run.model / "recipe.json").write_text("{")
    measured = activelr("evaluate", "small", "--output-dir", run.folder.parent.parent)
    assert (measured.returncode, measured.stderr.count("\n")) == (2, 1), measured.stderr
    assert f"the model of small/001 is damaged; `activelr resume {run.folder}` makes it again" in measured.stderr
    resume(run)
    assert load_model(run.model).task == "classification"


def test_what_was_not_delivered_after_an_interruption_is_delivered_later(run):
    cut_off(run, 1)
    run.update(status="interrupted", tracked=True)
    start_attempt(run)
    assert not run.state()["tracked"], "what this attempt does is not in MLflow yet"


def test_an_older_run_that_is_resumed_is_running_although_there_is_a_newer_one(run):
    shutil.copytree(run.folder, run.folder.parent / "002")
    start_attempt(run)
    assert run.status() == "running"


def test_a_driver_whose_run_another_one_took_over_writes_no_state_of_it(run, monkeypatch):
    """As on two machines whose shared folder has no locks."""
    cut_off(run, 1)

    def take_over(*args, **kwargs):
        start_attempt(run)
        raise WorkersLostError("rank 0: SupersededError")

    monkeypatch.setattr(attempt, "train_on_ray", take_over)
    with pytest.raises(SupersededError, match=r"attempt \d+ of .* was superseded by \d+; it writes nothing more"):
        resume(run)
    assert run.state()["status"] == "running"


def test_a_training_whose_terminal_or_pipe_is_gone_goes_on(run):
    cut_off(run, 1)
    command = [*ACTIVELR, "resume", str(run.folder)]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert run.status() == "finished"
    assert "finished: best" in run.log.read_text()


def test_what_a_killed_process_left_half_written_is_removed(run):
    cut_off(run, 1)
    (run.folder / ".run.json.1-2.tmp").write_text("{")
    (run.folder / ".model.old").mkdir()
    resume(run)
    assert not list(run.folder.glob(".*.tmp")) + list(run.folder.glob(".model.*"))


def test_data_of_which_nothing_is_known_any_more_are_not_taken_for_the_same_without_a_word(run, capsys):
    cut_off(run, 1)
    run.data.unlink()
    resume(run)
    assert "whether its data have changed is not known: there is no data.json" in capsys.readouterr().out


def test_data_of_the_same_size_and_time_with_other_values_are_refused(tmp_path):
    job, arrays = rows_job(tmp_path)
    run = train(job)
    cut_off(run, 1)
    before = (tmp_path / "rows.npz").stat()
    arrays["x"][0, 0] += 1
    np.savez(tmp_path / "rows.npz", **arrays)
    os.utime(tmp_path / "rows.npz", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(JobError, match="have changed since it began"):
        resume(run)


def test_a_text_run_whose_outputs_were_moved_needs_no_data_for_its_model(tmp_path):
    write_wikitext(tmp_path / "wiki")
    data = {"type": "text", "root": str(tmp_path / "wiki"), "block_size": 16, "vocab_size": 300}
    model = {"type": "causal_lm", "name": "gpt2", "config": {"n_layer": 1, "n_head": 1, "n_embd": 16}}
    run = train(small_job(tmp_path / "before", **{**QUICK, "epochs": 1, "data": data, "model": model}))
    shutil.rmtree(run.model)
    shutil.move(tmp_path / "before", tmp_path / "after")
    (tmp_path / "wiki").rename(tmp_path / "away")
    moved = resume(find_run(tmp_path / "after", "small"))
    assert load_model(moved.model).task == "language_modeling"
    (tmp_path / "away").rename(tmp_path / "wiki")
    assert evaluate_run(moved, moved.job()).scores["validation"].rows > 0
    assert not (tmp_path / "before").exists()
