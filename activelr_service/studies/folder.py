"""A study on disk, in ``OUTPUT_DIR/studies/NAME``: its plan, the outcome of every trial that has ended, and its report."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from activelr_service.config import CompleteJob
from activelr_service.data.info import DataInfo
from activelr_service.errors import CommandError, JobError
from activelr_service.runs.files import take_lock, write_text
from activelr_service.runs.run import output_root

FOLDER = "studies"
RESULTS = (
    "finished",
    "diverged",
    "out_of_memory",
)  # these tell something about the settings; a failed trial is run again
MEMORY_FACTOR = 2  # a trial that ran out of memory is run again where it can have this many times the memory


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    - ``status``: finished, diverged (its loss was not finite), out_of_memory or failed;
    - ``reason``: one line, empty for a finished trial;
    - ``epoch``: the epoch in which it ended;
    - ``rows``: the metrics of every completed epoch. The first row, of epoch 0, is that of the untrained model;
    - ``memory``: for a trial that ran out of memory, the bytes that it could use. 0 if another process ended it.
    """

    status: str
    reason: str = ""
    epoch: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    memory: int | None = None

    def is_result(self, memory_now: int) -> bool:
        """Whether the outcome tells something about the settings of the trial, so that the trial is not run again.

        A trial may run out of memory only because the machine was busy or small. ``memory_now`` is the number of bytes
        that the trial could use now; with enough of them it is run again.
        """
        if self.status == "out_of_memory" and self.memory is not None:
            return self.memory > 0 and memory_now < MEMORY_FACTOR * self.memory
        return self.status in RESULTS


@dataclass(frozen=True)
class StudyFolder:
    """The files of one study. Each file is replaced as a whole: no reader sees half of one."""

    path: Path

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def log(self) -> Path:
        return self.path / "study.log"

    def trial(self, trial_id: str) -> Path:
        """The run folder of a trial that is a Ray Train run of its own."""
        return self.path / "trials" / trial_id

    def write_plan(self, plan: dict[str, tuple[CompleteJob, DataInfo]]) -> None:
        """Write the resolved jobs of the trials, for the processes that run them."""
        data = {key: {"job": job.model_dump(mode="json"), "info": info._asdict()} for key, (job, info) in plan.items()}
        write_text(self.path / "plan.json", json.dumps(data))

    def read_plan(self, trial_id: str) -> tuple[CompleteJob, DataInfo]:
        entry = json.loads((self.path / "plan.json").read_text())[trial_id]
        return CompleteJob.model_validate(entry["job"]), DataInfo.from_json(entry["info"])

    def write_outcome(self, trial_id: str, outcome: Outcome) -> None:
        write_text(self.outcome(trial_id), json.dumps(asdict(outcome)))

    def read_outcome(self, trial_id: str) -> Outcome | None:
        """The outcome of a trial. None if it has none, or if the file cannot be read: then the trial is run again."""
        try:
            return Outcome(**json.loads(self.outcome(trial_id).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def has_damaged_outcome(self, trial_id: str) -> bool:
        return self.outcome(trial_id).exists() and self.read_outcome(trial_id) is None

    def outcome(self, trial_id: str) -> Path:
        return self.path / "trials" / f"{trial_id}.json"

    def state(self) -> dict[str, Any]:
        """The state of the study: ``mlflow_run_id``, ``tracking_uri``, ``delivered`` (trials in MLflow) and ``data``.

        Raises :class:`CommandError` if its file is damaged.
        """
        path = self.path / "study.json"
        try:
            return dict(json.loads(path.read_text())) if path.exists() else {}
        except (ValueError, TypeError) as error:
            remedy = f"restore the file, or move {self.path} away"
            raise CommandError(f"{path} is damaged: {' '.join(str(error).split())[:100]}; {remedy}") from error

    def update(self, **changes: Any) -> None:
        write_text(self.path / "study.json", json.dumps({**self.state(), **changes}))


@contextmanager
def lock_study(output_dir: str, name: str) -> Iterator[StudyFolder]:
    """The folder of a study, locked against other processes. The lock ends with this process.

    Raises :class:`JobError` if another process runs the study, or if the folder cannot be written.
    """
    folder = output_root(output_dir) / FOLDER / name
    try:
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        lock = take_lock(folder / ".lock", 0)
    except TimeoutError:
        text = f"the study {name!r} is being run by another process; wait for it, stop it, or use another name"
        raise JobError.at("name", text) from None
    except OSError as error:
        raise JobError.at("output_dir", f"{folder} cannot be written: {error.strerror}") from error
    with lock:
        yield StudyFolder(folder)
