"""A study that runs, followed in two places: in the terminal, and in MLflow as a parent run with a run for each trial."""

import math
import time
from collections.abc import Callable
from typing import Any

from activelr_service.config import StudyJob
from activelr_service.config.task import metrics_of_task
from activelr_service.runs.console import duration
from activelr_service.runs.run import output_root
from activelr_service.studies.folder import Outcome, StudyFolder
from activelr_service.studies.plan import Plan
from activelr_service.studies.table import column_name
from activelr_service.tracking.store import open_tracker
from activelr_service.tracking.tracker import Tracker

TRIAL_TAG = "activelr.trial"


class StudyTracker:
    """Sends a study to MLflow. Each trial is there once, also after an interruption between two steps of the upload."""

    def __init__(self, parent: Tracker, plan: Plan, folder: StudyFolder) -> None:
        self.parent = parent
        self.plan = plan
        self.folder = folder
        self.children = parent.children(TRIAL_TAG)
        self.delivered = set(folder.state().get("delivered", []))

    @classmethod
    def open(cls, study: StudyJob, uri: str | None, plan: Plan, folder: StudyFolder) -> "StudyTracker":
        """The tracker of the study's MLflow run. The run is created if there is none, or if it was deleted."""
        state = folder.state()
        run_id = state["mlflow_run_id"] if state.get("tracking_uri") == uri and uri else None
        root = output_root(study.output_dir)
        parent = open_tracker(uri, study.tracking.experiment, study.name, root, run_id=run_id)
        if run_id is None or parent.run_id != run_id:
            folder.update(mlflow_run_id=parent.run_id, tracking_uri=uri, delivered=[])
        parent.log_params(study_params(study, plan))
        return cls(parent, plan, folder)

    def forget(self, trial_ids: list[str]) -> None:
        """Delete the MLflow runs of trials that are run again."""
        for trial_id in trial_ids:
            if trial_id in self.children:
                self.children.pop(trial_id).delete()
        self.delivered -= set(trial_ids)
        self.folder.update(delivered=sorted(self.delivered))

    def sync(self, trial_id: str) -> None:
        """Send one trial that has ended: its job as parameters, the metrics of every epoch, and its status."""
        outcome = self.folder.read_outcome(trial_id)
        if outcome is None or trial_id in self.delivered:
            return
        trial, (job, _) = self.plan.trial(trial_id), self.plan.ready[trial_id]
        child = self.children.get(trial_id)
        if child is None:
            tags = {TRIAL_TAG: trial_id, "activelr.workload": trial.workload, "activelr.optimizer": trial.optimizer}
            child = self.children[trial_id] = self.parent.child(trial.describe(), tags)
        child.log_params(job.model_dump(mode="json", exclude={"output_dir", "tracking"}))
        child.log_params({}, {"activelr.status": outcome.status, "activelr.reason": outcome.reason})
        child.log_metrics(outcome.rows)
        child.end("finished" if outcome.status == "finished" else "failed")
        self.delivered.add(trial_id)
        self.folder.update(delivered=sorted(self.delivered))

    def sync_report(self) -> None:
        """Send the report, the study file and the log, as artifacts of the parent run."""
        files = [path for path in sorted(self.folder.report.rglob("*")) if path.is_file()]
        self.parent.log_artifacts(self.folder.path, [self.folder.path / "study.yaml", self.folder.log, *files])

    def finish(self, status: str) -> None:
        self.parent.end(status)


def study_params(study: StudyJob, plan: Plan) -> dict[str, Any]:
    """The parameters of the parent run."""
    axes = {path: values for sweep in study.sweeps for path, values in sweep.items()}
    optimizers = sorted({trial.optimizer for trial in plan.trials})
    return {"study": study.name, "workloads": list(study.workloads), "optimizers": optimizers, "sweeps": axes} | {
        "seeds": study.seeds
    }


TABLE_EVERY_S = 15.0


class Progress:
    """Logs each trial that does not finish, and every :data:`TABLE_EVERY_S` seconds a table of all trials."""

    def __init__(self, plan: Plan, folder: StudyFolder, ended: list[str], log: Callable[[str], None]) -> None:
        self.plan = plan
        self.outcomes = {trial_id: outcome for trial_id in ended if (outcome := folder.read_outcome(trial_id))}
        self.folder = folder
        self.log = log
        self.num_ended_before = len(ended)
        self.start = self.last_table = time.monotonic()
        self.first_end: float | None = None

    def end(self, trial_id: str) -> None:
        """Count a trial that has ended."""
        outcome = self.folder.read_outcome(trial_id)
        if outcome is None:
            return
        self.outcomes[trial_id] = outcome
        self.first_end = self.first_end or time.monotonic()
        if outcome.status != "finished":
            trial = self.plan.trial(trial_id).describe()
            self.log(f"  {trial}: {outcome.status} in epoch {outcome.epoch} ({outcome.reason[:120]})")
        if time.monotonic() - self.last_table >= TABLE_EVERY_S:
            self.last_table = time.monotonic()
            self.log("\n".join(self.table()))

    def trials_per_minute(self) -> float:
        """How fast the trials of this call of the command end."""
        minutes = (time.monotonic() - self.start) / 60
        return (len(self.outcomes) - self.num_ended_before) / minutes

    def table(self) -> list[str]:
        """For every workload and optimizer: how many trials have ended, and the best score so far."""
        total, ended = len(self.plan.ready), len(self.outcomes)
        lines = [f"{ended} of {total} trials, {self.trials_per_minute():.1f} a minute{self._left(total - ended)}"]
        lines.append(f"  {'':44}{'ended':>9}{'diverged':>9}{'other':>7}   best")
        groups: dict[tuple[str, str], list[str]] = {}
        for trial in self.plan.trials:
            if trial.id in self.plan.ready:
                groups.setdefault((trial.workload, trial.optimizer), []).append(trial.id)
        return lines + [self._line(*group, ids) for group, ids in groups.items()]

    def _left(self, count: int) -> str:
        """The time left. The time in which the processes started is not counted."""
        since_first = len(self.outcomes) - self.num_ended_before - 1
        if count == 0 or self.first_end is None or since_first < 1:
            return ""
        seconds = (time.monotonic() - self.first_end) / since_first * count
        return f", about {duration(seconds)} left"

    def _line(self, workload: str, optimizer: str, ids: list[str]) -> str:
        ended = [self.outcomes[trial_id] for trial_id in ids if trial_id in self.outcomes]
        diverged = sum(outcome.status == "diverged" for outcome in ended)
        other = sum(outcome.status not in ("diverged", "finished") for outcome in ended)
        job = self.plan.ready[ids[0]][0]
        task = metrics_of_task(job.task, job.metric)
        best = best_score(ended, task.val_score, task.higher_is_better)
        shown = f"{column_name(task.val_score)} {best:.4f}" if math.isfinite(best) else ""
        name = f"{workload}, {optimizer}"[:44]
        return f"  {name:44}{f'{len(ended)}/{len(ids)}':>9}{diverged:>9}{other:>7}   {shown}"


def best_score(outcomes: list[Outcome], metric: str, higher_is_better: bool) -> float:
    """The best score of all epochs of all outcomes. Infinite if there is no score."""
    pick, none = (max, -math.inf) if higher_is_better else (min, math.inf)
    scores = [row[metric] for outcome in outcomes for row in outcome.rows if row["epoch"] > 0 and metric in row]
    return pick(scores, default=none)
