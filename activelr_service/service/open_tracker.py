"""The MLflow run of a run on disk: opened again, or begun, with what the run was begun with."""

from activelr_service.config import ResolvedJob
from activelr_service.data.info import DataInfo
from activelr_service.errors import RunGoneError
from activelr_service.runs.run import Run
from activelr_service.service.attempt import Say
from activelr_service.service.batch_size import derived_sizes
from activelr_service.service.prepare import describe_data
from activelr_service.tracking.store import is_embedded, new_tracker, reopen_tracker
from activelr_service.tracking.tracker import Tracker

DESCRIPTION = "mlflow.note.content"  # what MLflow's UI shows as the description of a run


def open_tracker(run: Run, job: ResolvedJob, info: DataInfo | None, say: Say) -> Tracker:
    """The MLflow run of ``run``, running. One that was deleted in MLflow, or is in another store, is begun anew, and said;
    it gets all epochs when the run ends.

    Raises :class:`~activelr_service.tracking.tracker.TrackingError` if MLflow does not answer.
    """
    tracker = _reopen(run, job.tracking.uri, say) or _begin(run, job)
    tracker.say = say
    if info is not None:
        _log_start(tracker, run, job, info)
    return tracker


def _reopen(run: Run, uri: str, say: Say) -> Tracker | None:
    run_id = run.state().get("mlflow_run_id")
    if run_id is None:
        return None
    try:
        tracker = reopen_tracker(uri, run_id)
        if is_embedded(uri) and not tracker.keeps_files_in(run.folder.parent.parent):
            raise RunGoneError(f"MLflow run {run_id} keeps its files where the output directory was before")
        return tracker
    except RunGoneError as error:
        say(f"run {run.label}: {error}; a new MLflow run is begun, with all epochs")
        return None


def _begin(run: Run, job: ResolvedJob) -> Tracker:
    """A new MLflow run; one that this run began just before it was cut off is taken up."""
    root, identity = run.folder.parent.parent, run.state()["id"]
    tracker = new_tracker(job.tracking.uri, job.tracking.experiment, job.name, root, identity)
    run.update(mlflow_run_id=tracker.run_id, model_uri=None, tracked=False)
    return tracker


def _log_start(tracker: Tracker, run: Run, job: ResolvedJob, info: DataInfo) -> None:
    """What the run began with. What MLflow has already stays as it is."""
    num_train, num_val = info.counted()
    derived = {"num_train": num_train, "num_val": num_val, **derived_sizes(job, num_train)}
    params = job.model_dump(mode="json", exclude={"kind", "tracking", "output_dir"})
    tracker.log_params({**params, "derived": derived})
    why = {f"activelr.why.{path}": reason for path, reason in run.state().get("why", {}).items()}
    description = "\n".join(f"- {line}" for line in (info.describe(), *describe_data(info)))
    tracker.set_tags({"activelr.run": run.folder, DESCRIPTION: description, **why})
