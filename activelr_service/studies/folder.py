"""A study on disk: ``OUTPUT_DIR/studies/NAME`` with its plan, an outcome for every trial that has ended, and its report."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from activelr_service.config import CompleteJob
from activelr_service.data.info import DataInfo
from activelr_service.errors import CommandError, JobError
from activelr_service.runs.files import write_text
from activelr_service.runs.run import output_root

FOLDER = "studies"
RESULTS = ("finished", "diverged", "out_of_memory")  # what a trial says of its settings; a failed one is run again
MUCH_MORE = 2  # times the memory that a trial had: it is run again where there is so much


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. ``status``: finished, diverged (its loss was not finite), out_of_memory or failed; ``epoch``:
    the one it ended in; ``rows``: the metrics of every epoch that was completed, and of the untrained model as epoch 0;
    ``memory``: bytes that one which ran out of memory could take, 0 if its process was ended from outside."""

    status: str
    reason: str = ""
    epoch: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    memory: int | None = None

    def is_result(self, memory_now: int) -> bool:
        """Whether it says something of the trial's settings; it does not where a trial ran out of memory because the machine
        was busy or small, and one that is run now could take ``memory_now`` bytes."""
        if self.status == "out_of_memory" and self.memory is not None:
            return self.memory > 0 and memory_now < MUCH_MORE * self.memory
        return self.status in RESULTS


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

    def write_plan(self, plan: dict[str, tuple[CompleteJob, DataInfo]]) -> None:
        """The resolved jobs of the trials, for the processes that run them."""
        data = {key: {"job": job.model_dump(mode="json"), "info": info._asdict()} for key, (job, info) in plan.items()}
        write_text(self.path / "plan.json", json.dumps(data))

    def read_plan(self, trial_id: str) -> tuple[CompleteJob, DataInfo]:
        entry = json.loads((self.path / "plan.json").read_text())[trial_id]
        return CompleteJob.model_validate(entry["job"]), DataInfo.from_json(entry["info"])

    def write_outcome(self, trial_id: str, outcome: Outcome) -> None:
        write_text(self.outcome(trial_id), json.dumps(asdict(outcome)))

    def read_outcome(self, trial_id: str) -> Outcome | None:
        """None if there is none, or one that cannot be read: then the trial is run again."""
        try:
            return Outcome(**json.loads(self.outcome(trial_id).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def has_damaged_outcome(self, trial_id: str) -> bool:
        return self.outcome(trial_id).exists() and self.read_outcome(trial_id) is None

    def outcome(self, trial_id: str) -> Path:
        return self.path / "trials" / f"{trial_id}.json"

    def state(self) -> dict[str, Any]:
        """``mlflow_run_id`` and ``tracking_uri``, once there are any."""
        path = self.path / "study.json"
        try:
            return dict(json.loads(path.read_text())) if path.exists() else {}
        except (ValueError, TypeError) as error:
            remedy = f"restore the file, or move {self.path} away"
            raise CommandError(f"{path} is damaged: {' '.join(str(error).split())[:100]}; {remedy}") from error

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
