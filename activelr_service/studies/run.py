"""Run a study, from its file to its report. Only trials without a result are run."""

import json
from collections.abc import Callable
from typing import Any

from activelr_service.config import StudyJob, dump_job
from activelr_service.data.fingerprint import FIELDS, Fingerprint, compare_data, take_fingerprint
from activelr_service.errors import JobError, TrackingError
from activelr_service.reports import summary_lines, write_report
from activelr_service.runs.console import Follower, log_to
from activelr_service.runs.files import write_text
from activelr_service.runs.run import output_root
from activelr_service.studies.folder import StudyFolder, lock_study
from activelr_service.studies.plan import Plan, describe_plan, estimate_cost, make_plan
from activelr_service.studies.search import with_winners
from activelr_service.studies.table import make_table
from activelr_service.studies.track import Progress, StudyTracker
from activelr_service.studies.tune import check_resources, count_concurrent, memory_of_a_trial, run_trials
from activelr_service.tracking.store import tracking_uri

Log = Callable[[str], None]


def show_study(study: StudyJob) -> None:
    """Print which trials of a study would run and how long they would take. Nothing is run."""
    with lock_study(study.output_dir, study.name) as folder:
        check_resources(study)
        plan = with_winners(make_plan(study), study, folder)
        pending = find_pending(plan, folder, memory_of_a_trial(study))
        _log_plan(study, plan, len(pending), print)
        print(f"  {estimate_cost(plan, pending, count_concurrent(study))}; nothing is started (--dry-run)")


def run_study(study: StudyJob) -> StudyFolder:
    """Run the trials of a study that have no result yet, and write the report.

    Raises :class:`JobError` or :class:`TrackingError` before the first trial starts. A trial that diverges or fails is a
    result and no error.
    """
    with lock_study(study.output_dir, study.name) as folder:
        log = log_to(folder.log)
        check_resources(study)
        plan = with_winners(make_plan(study), study, folder)
        check_study_data(plan, folder)
        memory = memory_of_a_trial(study)
        pending = find_pending(plan, folder, memory)
        uri = tracking_uri(study.tracking.uri, output_root(study.output_dir), study.tracking.backend)
        tracker = StudyTracker.open(study, uri, plan, folder)
        tracker.forget(pending)
        write_text(folder.path / "study.yaml", dump_job(study))
        folder.write_plan(plan.ready)
        _log_plan(study, plan, len(pending), log)
        _log_repeated(pending, folder, log)
        status = "interrupted"
        try:
            if pending:
                log(f"  {estimate_cost(plan, pending, count_concurrent(study))}")
                _run(study, plan, folder, pending, tracker, log)
            plan = _run_winners(study, plan, folder, tracker, log)
            status = "finished"
        finally:
            if status != "finished":
                left = len(find_pending(plan, folder, memory))
                log(f"study {study.name} is interrupted with {left} trials left; the same command continues it")
            _conclude(study, plan, folder, tracker, status, log)
        return folder


def _run_winners(study: StudyJob, plan: Plan, folder: StudyFolder, tracker: StudyTracker, log: Log) -> Plan:
    """Train the winners of random searches that have just ended. Returns the plan with them."""
    longer = with_winners(plan, study, folder)
    if longer is not plan:
        tracker.plan = longer
        folder.write_plan(longer.ready)
        if pending := find_pending(
            longer, folder, memory_of_a_trial(study)
        ):  # the same one may have won a shorter search
            log("the random search has ended: its winners are trained again with the seeds of the study")
            _run(study, longer, folder, pending, tracker, log)
    return longer


def check_study_data(plan: Plan, folder: StudyFolder) -> None:
    """Write the fingerprints of the data when a study begins. Raise :class:`JobError` if the data have changed since.

    A study compares its trials, so all of them must be trained on the same data.
    """
    configs = {_data_key(job.data): job.data for job, _ in plan.ready.values()}
    kept: dict[str, Any] = folder.state().get("data", {})
    for key, config in configs.items():
        before = kept.get(key)
        change = compare_data(config, Fingerprint.from_json(before)).change if before else ""
        if change:
            remedy = f"restore them, use another name, or move {folder.path} away"
            raise JobError.at("workloads", f"data of this study have changed since it began: {change}; {remedy}")
    taken = {key: take_fingerprint(config) for key, config in configs.items() if key not in kept}
    new = {key: fingerprint._asdict() for key, fingerprint in taken.items() if fingerprint is not None}
    if new:
        folder.update(data={**kept, **new})


def _data_key(config: Any) -> str:
    """The type and the paths of the data, without values that are derived from their content.

    A ``test_path`` that is not given is left out, as it is in older studies.
    """
    paths = [getattr(config, field, None) for field in FIELDS]
    return json.dumps([config.type, *(paths if paths[-1] else paths[:-1])])


def find_pending(plan: Plan, folder: StudyFolder, memory: int) -> list[str]:
    """The ids of the trials to run: those that have no outcome, that failed, or that can have much more memory now.

    ``memory``: the bytes that a trial can use now.
    """
    outcomes = {trial_id: folder.read_outcome(trial_id) for trial_id in plan.ready}
    return [trial_id for trial_id, outcome in outcomes.items() if outcome is None or not outcome.is_result(memory)]


def _run(study: StudyJob, plan: Plan, folder: StudyFolder, pending: list[str], tracker: StudyTracker, log: Log) -> None:
    ended = [trial_id for trial_id in plan.ready if trial_id not in set(pending)]
    progress = Progress(plan, folder, ended, log)
    follower: Follower[str] = Follower(lambda after: list(enumerate(ended, start=1))[after:], tracker.sync)
    follower.start()

    def end(trial_id: str) -> None:
        progress.end(trial_id)
        ended.append(trial_id)

    try:
        run_trials(study, folder, pending, end)
    finally:
        log("\n".join(progress.table()))
        if not follower.finish():
            log(f"MLflow at {tracker.parent.uri} lacks some trials; the same command sends them")


def _conclude(study: StudyJob, plan: Plan, folder: StudyFolder, tracker: StudyTracker, status: str, log: Log) -> None:
    """Write the report of the trials that have ended, and end the study's MLflow run."""
    table = make_table(plan, folder)
    if not table.empty:
        write_report(table, folder.report, study.name)
        log("\n".join(summary_lines(table)))
        log(f"study {study.name}: {folder.report / 'report.html'}")
    try:
        for trial_id in plan.ready:
            tracker.sync(trial_id)
        tracker.sync_report()
        tracker.finish(status)
    except TrackingError as error:
        log(f"{error}; the same command sends what is missing")


def _log_plan(study: StudyJob, plan: Plan, num_pending: int, log: Log) -> None:
    num_ended = len(plan.ready) - num_pending
    log("\n".join(describe_plan(plan, study, count_concurrent(study), num_ended)))


def _log_repeated(pending: list[str], folder: StudyFolder, log: Log) -> None:
    """Log which of the pending trials have ended before: without enough memory, or with an outcome that cannot be read."""
    outcomes = [folder.read_outcome(trial_id) for trial_id in pending]
    damaged = [folder.outcome(trial_id) for trial_id in pending if folder.has_damaged_outcome(trial_id)]
    if damaged:
        log(f"  outcomes that cannot be read: {len(damaged)}, such as {damaged[0]}; their trials are run again")
    count = sum(outcome is not None and outcome.status == "out_of_memory" for outcome in outcomes)
    if count:
        log(
            f"  {count} trials ran out of memory on a busy machine, or with half of what there is now: they are run again"
        )
