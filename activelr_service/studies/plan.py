"""The plan of a study, made before it starts: which trials can run, on which resources, and how long they will take."""

import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

from activelr_service.config import CompleteJob, StudyJob, TrainJob
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.runs.console import duration
from activelr_service.service.check import prepare_job, with_absolute_paths
from activelr_service.service.resolve import Resources, resolve_job
from activelr_service.service.start import suit_images
from activelr_service.studies.space import Trial, make_trials
from activelr_service.training.batch_size.choice import at_the_limit


@dataclass(frozen=True)
class Plan:
    """The trials of a study, in order.

    ``ready``: by id, the resolved job and the data of each trial that can run. ``refused``: by id, why the others cannot.
    """

    trials: list[Trial]
    ready: dict[str, tuple[CompleteJob, DataInfo]]
    refused: dict[str, str]

    def trial(self, trial_id: str) -> Trial:
        return next(trial for trial in self.trials if trial.id == trial_id)


def make_plan(study: StudyJob) -> Plan:
    """Check and resolve every trial of a study. Raises :class:`JobError` if it is not valid, or if no trial can run."""
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
    """The job with its data prepared, or the text of the error. Trials of the same data, model and optimizer share it."""
    key = "".join(part.model_dump_json() for part in (job.data, job.model)) + job.optimizer.type
    if key not in prepared:
        try:
            prepared[key] = prepare_job(suit_images(with_absolute_paths(job))[0])
        except JobError as error:
            prepared[key] = str(error)
    return prepared[key]


def _resolve(job: TrainJob, info: DataInfo, study: StudyJob) -> CompleteJob:
    """Resolve a job without the probe of the batch size. The probe measures time, and a trial must have the same batch
    size on every machine."""
    return at_the_limit(resolve_job(job, info, _resources(study))[0], info.counted()[0])


def _resources(study: StudyJob) -> Resources:
    """The resources of one trial."""
    trials = study.trials
    gpus = trials.num_workers if trials.gpus_per_worker > 0 else 0
    return Resources(trials.num_workers * trials.cpus_per_worker, gpus, is_shared=True)


def is_packed(study: StudyJob) -> bool:
    """Whether long-lived processes run trial after trial. Otherwise each trial is a Ray Train run of its own."""
    return study.trials.num_workers == 1 if study.trials.packed is None else study.trials.packed


def describe_plan(plan: Plan, study: StudyJob, num_concurrent: int, num_ended: int) -> list[str]:
    """Lines for the user: the trials by workload and optimizer, the resources, and which trials cannot run and why."""
    counts = Counter((trial.workload, trial.optimizer) for trial in plan.trials)
    lines = [f"study {study.name}: {len(plan.trials)} trials, {num_ended} of them done before"]
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


TIME_LIMIT_S = 30.0
Entry = tuple[CompleteJob, DataInfo]


def estimate_cost(plan: Plan, pending: list[str], num_concurrent: int) -> str:
    """One line: the steps of the pending trials and, on the CPU, the time that they take.

    The time is given for one trial after the other, and for ``num_concurrent`` trials at once.
    """
    entries = [plan.ready[trial_id] for trial_id in pending]
    text = f"{len(pending)} trials to run: {sum(count_steps(*entry) for entry in entries):,} steps"
    if any(job.workers.use_gpu for job, _ in entries):
        return text
    seconds_per_step = time_steps({model_key(*entry): entry for entry in entries})
    known = [entry for entry in entries if model_key(*entry) in seconds_per_step]
    seconds = sum(seconds_per_step[model_key(*entry)] * count_steps(*entry) for entry in known)
    text += f", {duration(seconds)} of training on this machine's CPU, {duration(seconds / num_concurrent)}"
    text += f" at {num_concurrent} at once"
    unknown = len(entries) - len(known)
    return f"{text}, without {unknown} trials whose steps could not be timed here" if unknown else text


def model_key(job: CompleteJob, info: DataInfo) -> str:
    """A key that is equal for trials whose steps take about the same time."""
    parts = [job.model.model_dump_json(), job.data.model_dump_json()]
    return "|".join([*parts, str(job.global_batch_size), str(job.grad_accum_steps)])


def count_steps(job: CompleteJob, info: DataInfo) -> int:
    """The optimizer steps of a resolved job. Studies refuse budgets of time, so that the number is known."""
    steps = job.duration.total_steps(info.counted()[0] // job.global_batch_size)
    return 0 if steps is None else steps


def time_steps(entries: dict[str, Entry]) -> dict[str, float]:
    """Measure the seconds of a step for each key, in another process. A model that needs too much memory ends only that.

    A key is left out if its steps cannot be timed, or if :data:`TIME_LIMIT_S` seconds have passed before its turn.
    """
    from activelr_service.studies.trial import time_step

    found: dict[str, float] = {}
    deadline = time.monotonic() + TIME_LIMIT_S
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for key, entry in entries.items():
            if time.monotonic() > deadline:
                break
            try:
                found[key] = pool.submit(time_step, *entry).result()
            except (Exception, BrokenProcessPool):  # noqa: S112 - the trials themselves will report this error
                continue
    return found
