"""Before a study starts: which of its trials can run, on what, and what it will cost."""

from collections import Counter
from dataclasses import dataclass

from activelr_service.config import CompleteJob, StudyJob, TrainJob
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.service.check import prepare_job
from activelr_service.service.resolve import Resources, resolve_job
from activelr_service.studies.space import Trial, make_trials
from activelr_service.training.batch_size.choice import at_the_limit


@dataclass(frozen=True)
class Plan:
    """The trials of a study in their order; ``ready`` has those that can run, with their resolved jobs, ``refused`` why
    the others cannot."""

    trials: list[Trial]
    ready: dict[str, tuple[CompleteJob, DataInfo]]
    refused: dict[str, str]

    def trial(self, trial_id: str) -> Trial:
        return next(trial for trial in self.trials if trial.id == trial_id)


def make_plan(study: StudyJob) -> Plan:
    """Raises :class:`JobError` if the study is not one, or if none of its trials can run."""
    trials = make_trials(study)
    prepared: dict[str, tuple[TrainJob, DataInfo] | str] = {}
    ready, refused = {}, {}
    for trial in trials:
        found = _prepare(trial.job, prepared)
        try:
            if isinstance(found, str):
                refused[trial.id] = found
                continue
            job = trial.job.model_copy(update={"data": found[0].data})
            ready[trial.id] = (_resolve(job, found[1], study), found[1])
        except JobError as error:
            refused[trial.id] = str(error)
    if not ready:
        reasons = "; ".join(sorted(set(refused.values())))
        raise JobError.at("workloads", f"none of the {len(trials)} trials can run: {reasons}")
    return Plan(trials, ready, refused)


def _prepare(job: TrainJob, prepared: dict[str, tuple[TrainJob, DataInfo] | str]) -> tuple[TrainJob, DataInfo] | str:
    """The job with its data prepared, once for all trials with the same data, model and optimizer; or what is wrong."""
    key = "".join(part.model_dump_json() for part in (job.data, job.model)) + job.optimizer.type
    if key not in prepared:
        try:
            prepared[key] = prepare_job(job)
        except JobError as error:
            prepared[key] = str(error)
    return prepared[key]


def _resolve(job: TrainJob, info: DataInfo, study: StudyJob) -> CompleteJob:
    """Without a probe, which is timed: a trial has the same batch size wherever and whenever it runs."""
    return at_the_limit(resolve_job(job, info, _resources(study))[0], info.counted()[0])


def _resources(study: StudyJob) -> Resources:
    """What one trial is given."""
    trials = study.trials
    gpus = trials.num_workers if trials.gpus_per_worker > 0 else 0
    return Resources(trials.num_workers * trials.cpus_per_worker, gpus, is_shared=True)


def is_packed(study: StudyJob) -> bool:
    """Whether long-lived processes take trial after trial, or each is a Ray Train run of its own."""
    return study.trials.num_workers == 1 if study.trials.packed is None else study.trials.packed


def describe_plan(plan: Plan, study: StudyJob, num_concurrent: int, num_done: int) -> list[str]:
    """Lines for the user: how many trials of what, what cannot run, what one takes and how many run at once."""
    counts = Counter((trial.workload, trial.optimizer) for trial in plan.trials)
    lines = [f"study {study.name}: {len(plan.trials)} trials, {num_done} of them done before"]
    for workload in study.workloads:
        parts = [f"{label} {number}" for (name, label), number in counts.items() if name == workload]
        lines.append(f"  {workload}: {', '.join(parts)}")
    trials = study.trials
    how = "packed in long-lived processes" if is_packed(study) else "each a Ray Train run of its own"
    gpus = f" and {trials.gpus_per_worker:g} GPU" if trials.gpus_per_worker else ""
    lines.append(f"  {how}; {trials.num_workers} x {trials.cpus_per_worker} CPU{gpus} each, {num_concurrent} at once")
    for reason, number in Counter(plan.refused.values()).items():
        lines.append(f"  {number} trials cannot run: {reason}")
    return lines
