"""A study in MLflow: a parent run, and under it a run for every trial, found by the values of the axes."""

from typing import Any

from activelr_service.config import StudyJob
from activelr_service.runs.run import output_root
from activelr_service.studies.folder import StudyFolder
from activelr_service.studies.plan import Plan
from activelr_service.tracking.store import open_tracker
from activelr_service.tracking.tracker import Tracker

TRIAL_TAG = "activelr.trial"


class StudyTracker:
    """Delivers what a study has to MLflow. A trial that is there already is not doubled, whatever was interrupted."""

    def __init__(self, parent: Tracker, plan: Plan, folder: StudyFolder) -> None:
        self.parent = parent
        self.plan = plan
        self.folder = folder
        self.children = parent.children(TRIAL_TAG)
        self.delivered = set(folder.state().get("delivered", []))

    @classmethod
    def open(cls, study: StudyJob, uri: str | None, plan: Plan, folder: StudyFolder) -> "StudyTracker":
        """The study's MLflow run, made if it is not there yet."""
        state = folder.state()
        run_id = state["mlflow_run_id"] if state.get("tracking_uri") == uri and uri else None
        root = output_root(study.output_dir)
        parent = open_tracker(uri, study.tracking.experiment, study.name, root, run_id=run_id)
        if run_id is None or parent.run_id != run_id:
            folder.update(mlflow_run_id=parent.run_id, tracking_uri=uri, delivered=[])
        parent.log_params(study_params(study, plan))
        return cls(parent, plan, folder)

    def forget(self, trial_ids: list[str]) -> None:
        """Trials that are run again: what MLflow had of them is deleted."""
        for trial_id in trial_ids:
            if trial_id in self.children:
                self.children.pop(trial_id).delete()
        self.delivered -= set(trial_ids)
        self.folder.update(delivered=sorted(self.delivered))

    def deliver(self, trial_id: str) -> None:
        """One trial that has ended: its job as parameters, its metrics of every epoch, its status."""
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

    def deliver_report(self) -> None:
        """The report and the study itself, as files of the parent run."""
        files = [path for path in sorted(self.folder.report.rglob("*")) if path.is_file()]
        self.parent.log_artifacts(self.folder.path, [self.folder.path / "study.yaml", self.folder.log, *files])

    def finish(self, status: str) -> None:
        self.parent.end(status)


def study_params(study: StudyJob, plan: Plan) -> dict[str, Any]:
    axes = {path: values for sweep in study.sweeps for path, values in sweep.items()}
    optimizers = sorted({trial.optimizer for trial in plan.trials})
    return {"study": study.name, "workloads": list(study.workloads), "optimizers": optimizers, "sweeps": axes} | {
        "seeds": study.seeds
    }
