"""A study from its spec to its report: what is done already stays done, what is left is run."""

import json
from collections.abc import Callable
from typing import Any

from activelr_service.config import StudyJob, dump_job
from activelr_service.data.fingerprint import FIELDS, Fingerprint, compare_data, take_fingerprint
from activelr_service.errors import JobError, TrackingError
from activelr_service.redact import redact
from activelr_service.report import summary_lines, write_report
from activelr_service.runs.console import Follower
from activelr_service.runs.files import write_text
from activelr_service.runs.run import output_root
from activelr_service.studies.cost import estimate_cost
from activelr_service.studies.folder import StudyFolder, hold_study
from activelr_service.studies.plan import Plan, describe_plan, make_plan
from activelr_service.studies.progress import Progress
from activelr_service.studies.table import make_table
from activelr_service.studies.track import StudyTracker
from activelr_service.studies.tune import check_resources, count_concurrent, memory_of_a_trial, run_trials
from activelr_service.tracking.store import tracking_uri

Say = Callable[[str], None]


def show_study(study: StudyJob) -> None:
    """Say what a study would run and cost, without running it."""
    with hold_study(study.output_dir, study.name) as folder:
        check_resources(study)
        plan = make_plan(study)
        pending = find_pending(plan, folder, memory_of_a_trial(study))
        _say_plan(study, plan, len(pending), print)
        print(f"  {estimate_cost(plan, pending, count_concurrent(study))}; nothing is started (--dry-run)")


def run_study(study: StudyJob) -> StudyFolder:
    """Run what is left of a study, and write its report. Raises :class:`JobError` or :class:`TrackingError` before anything
    starts; trials that end badly are results."""
    with hold_study(study.output_dir, study.name) as folder:
        say = _log_to(folder)
        check_resources(study)
        plan = make_plan(study)
        check_study_data(plan, folder)
        memory = memory_of_a_trial(study)
        pending = find_pending(plan, folder, memory)
        uri = tracking_uri(study.tracking.uri, output_root(study.output_dir), study.tracking.backend)
        tracker = StudyTracker.open(study, uri, plan, folder)
        tracker.forget(pending)
        write_text(folder.path / "study.yaml", dump_job(study))
        folder.write_plan(plan.ready)
        _say_plan(study, plan, len(pending), say)
        _say_again(pending, folder, say)
        status = "interrupted"
        try:
            if pending:
                say(f"  {estimate_cost(plan, pending, count_concurrent(study))}")
                _run(study, plan, folder, pending, tracker, say)
            status = "finished"
        finally:
            if status != "finished":
                left = len(find_pending(plan, folder, memory))
                say(f"study {study.name} is interrupted with {left} trials left; the same command continues it")
            _conclude(study, plan, folder, tracker, status, say)
        return folder


def check_study_data(plan: Plan, folder: StudyFolder) -> None:
    """Keep the fingerprints of the data of a study when it begins; raise :class:`JobError` when they have changed since.

    A study compares its trials, so all of them must have seen the same data.
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
    """The type and the places of data, without what is derived from them."""
    return json.dumps([config.type, *(getattr(config, field, None) for field in FIELDS)])


def find_pending(plan: Plan, folder: StudyFolder, memory: int) -> list[str]:
    """The trials to be run: those without an outcome, those that failed, and those that ran out of memory where there is
    much more of it now: ``memory`` bytes for each."""
    outcomes = {trial_id: folder.read_outcome(trial_id) for trial_id in plan.ready}
    return [trial_id for trial_id, outcome in outcomes.items() if outcome is None or not outcome.is_result(memory)]


def _run(study: StudyJob, plan: Plan, folder: StudyFolder, pending: list[str], tracker: StudyTracker, say: Say) -> None:
    ended = [trial_id for trial_id in plan.ready if trial_id not in set(pending)]
    progress = Progress(plan, folder, ended, say)
    follower: Follower[str] = Follower(lambda: list(enumerate(ended, start=1)), tracker.deliver)
    follower.start()

    def end(trial_id: str) -> None:
        progress.end(trial_id)
        ended.append(trial_id)

    try:
        run_trials(study, folder, pending, end)
    finally:
        say("\n".join(progress.table()))
        if not follower.finish():
            say(f"MLflow at {tracker.parent.uri} has not got all trials; the same command delivers the rest")


def _conclude(study: StudyJob, plan: Plan, folder: StudyFolder, tracker: StudyTracker, status: str, say: Say) -> None:
    """The report of what there is, and the end of the study in MLflow."""
    table = make_table(plan, folder)
    if not table.empty:
        write_report(table, folder.report, study.name)
        say("\n".join(summary_lines(table)))
        say(f"study {study.name}: {folder.report / 'report.html'}")
    try:
        for trial_id in plan.ready:
            tracker.deliver(trial_id)
        tracker.deliver_report()
        tracker.finish(status)
    except TrackingError as error:
        say(f"{error}; the same command delivers what it has not got")


def _say_plan(study: StudyJob, plan: Plan, num_pending: int, say: Say) -> None:
    num_done = len(plan.ready) - num_pending
    say("\n".join(describe_plan(plan, study, count_concurrent(study), num_done)))


def _say_again(pending: list[str], folder: StudyFolder, say: Say) -> None:
    """Which of the pending trials have ended before, for want of memory or with an outcome that cannot be read."""
    outcomes = [folder.read_outcome(trial_id) for trial_id in pending]
    damaged = [folder.outcome(trial_id) for trial_id in pending if folder.has_damaged_outcome(trial_id)]
    if damaged:
        say(f"  outcomes that cannot be read: {len(damaged)}, such as {damaged[0]}; their trials are run again")
    count = sum(outcome is not None and outcome.status == "out_of_memory" for outcome in outcomes)
    if count:
        say(
            f"  {count} trials ran out of memory on a busy machine, or with half of what there is now: they are run again"
        )


def _log_to(folder: StudyFolder) -> Say:
    def say(line: str) -> None:
        line = redact(line)
        print(line, flush=True)
        with folder.log.open("a") as file:
            file.write(line + "\n")

    return say
