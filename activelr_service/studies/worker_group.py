"""A trial that is a Ray Train run of its own: workers, checkpoints and all, so that a killed study continues within it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from activelr_service.config import CompleteJob, dump_job
from activelr_service.data.info import DataInfo
from activelr_service.errors import WorkersLostError, says_out_of_memory
from activelr_service.runs.begin import start_attempt
from activelr_service.runs.files import write_text
from activelr_service.runs.journal import read_journal
from activelr_service.runs.run import Run
from activelr_service.service.ray_run import train_on_ray
from activelr_service.studies.folder import Outcome, StudyFolder
from activelr_service.studies.trial import STATUSES, epoch_row, untrained_row


def run_distributed_trial(config: dict[str, Any]) -> dict[str, Any]:
    """What Ray Tune runs for such a trial; it takes no CPU itself."""
    folder = StudyFolder(Path(config["study"]))
    job, info = folder.read_plan(config["trial"])
    run = open_run(folder.trial(config["trial"]), job)
    outcome = train(run, job, info)
    folder.write_outcome(config["trial"], outcome)
    shutil.rmtree(run.checkpoints)
    return {"status": outcome.status}


def open_run(path: Path, job: CompleteJob) -> Run:
    """The trial's run on disk, which may have been begun before."""
    run = Run(path)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    write_text(path / "resolved.yaml", dump_job(job))
    if not (path / "run.json").exists():
        write_text(path / "run.json", json.dumps({"status": "running", "attempts": 0}))
    start_attempt(run)
    return run


def train(run: Run, job: CompleteJob, info: DataInfo) -> Outcome:
    try:
        train_on_ray(run, job, info, measure_untrained=True)
    except WorkersLostError as error:
        if says_out_of_memory(str(error)):
            return replace(_ended(run, "out_of_memory", str(error)), memory=0)
        return _ended(run, "failed", str(error))
    return ending(run)


def ending(run: Run) -> Outcome:
    """The outcome of a run whose workers have ended, from what they noted."""
    failure = run.read_failure()
    if failure is None:
        return Outcome("finished", "", len(read_journal(run.journal)), _rows(run))
    return _ended(run, STATUSES.get(failure.kind, "failed"), f"{failure.type}: {failure.message[:300]}")


def _ended(run: Run, status: str, reason: str) -> Outcome:
    """In the epoch after the last one that was committed."""
    return Outcome(status, reason, len(read_journal(run.journal)) + 1, _rows(run))


def _rows(run: Run) -> list[dict[str, float]]:
    untrained = [untrained_row(json.loads(run.untrained.read_text()))] if run.untrained.exists() else []
    return untrained + [epoch_row(record) for record in read_journal(run.journal)]
