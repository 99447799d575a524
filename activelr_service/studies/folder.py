"""A study on disk: ``OUTPUT_DIR/studies/NAME`` with its plan, an outcome for every trial that has ended, and its report."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from activelr_service.config import JobError, TrainJob, parse_job
from activelr_service.data.info import DataInfo
from activelr_service.files import write_text
from activelr_service.runs import output_root

FOLDER = "studies"
RESULTS = ("finished", "diverged", "out_of_memory")  # what a trial says of its settings; a failed one is run again


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. ``status``: finished, diverged (its loss was not finite), out_of_memory or failed; ``epoch``:
    the one it ended in; ``rows``: the metrics of every epoch that was completed, and of the untrained model as epoch 0."""

    status: str
    reason: str = ""
    epoch: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class StudyFolder:
    """The files of one study. Every file appears whole or not at all."""

    path: Path

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def log(self) -> Path:
        return self.path / "study.log"

    def trial(self, trial_id: str) -> Path:
        """Where a trial that is a Ray Train run of its own keeps it."""
        return self.path / "trials" / trial_id

    def write_plan(self, plan: dict[str, tuple[TrainJob, DataInfo]]) -> None:
        """The resolved jobs of the trials, for the processes that run them."""
        data = {key: {"job": job.model_dump(mode="json"), "info": info._asdict()} for key, (job, info) in plan.items()}
        write_text(self.path / "plan.json", json.dumps(data))

    def read_plan(self, trial_id: str) -> tuple[TrainJob, DataInfo]:
        entry = json.loads((self.path / "plan.json").read_text())[trial_id]
        return parse_job(entry["job"]), DataInfo.from_json(entry["info"])

    def write_outcome(self, trial_id: str, outcome: Outcome) -> None:
        write_text(self._outcome(trial_id), json.dumps(asdict(outcome)))

    def read_outcome(self, trial_id: str) -> Outcome | None:
        path = self._outcome(trial_id)
        return Outcome(**json.loads(path.read_text())) if path.exists() else None

    def _outcome(self, trial_id: str) -> Path:
        return self.path / "trials" / f"{trial_id}.json"

    def state(self) -> dict[str, Any]:
        """``mlflow_run_id`` and ``tracking_uri``, once there are any."""
        path = self.path / "study.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def update(self, **changes: Any) -> None:
        write_text(self.path / "study.json", json.dumps({**self.state(), **changes}))


@contextmanager
def hold_study(output_dir: str, name: str) -> Iterator[StudyFolder]:
    """The folder of a study, held against other processes; the system lets go of it if this one dies."""
    folder = output_root(output_dir) / FOLDER / name
    try:
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        text = f"the study {name!r} is being run by another process; wait for it, stop it, or use another name"
        raise JobError.at("name", text) from None
    except OSError as error:
        raise JobError.at("output_dir", f"{folder} cannot be written: {error.strerror}") from error
    try:
        yield StudyFolder(folder)
    finally:
        lock.release()
