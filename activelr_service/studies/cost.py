"""What a study will cost: a few steps of each of its models are timed on this machine's CPU."""

import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from activelr_service.config import CompleteJob
from activelr_service.data.info import DataInfo
from activelr_service.runs.console import duration
from activelr_service.studies.plan import Plan

TIME_LIMIT_S = 30.0
Entry = tuple[CompleteJob, DataInfo]


def estimate_cost(plan: Plan, pending: list[str], num_concurrent: int) -> str:
    """One line: the steps of the pending trials, and for the CPU their time, one after the other and as many at once as
    there will be."""
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
    """Trials with the same key take about as long for a step."""
    parts = [job.model.model_dump_json(), job.data.model_dump_json()]
    return "|".join([*parts, str(job.global_batch_size), str(job.grad_accum_steps)])


def count_steps(job: CompleteJob, info: DataInfo) -> int:
    """Optimizer steps of a trial. Studies refuse budgets of time, so that the number is known."""
    steps = job.duration.total_steps(info.counted()[0] // job.global_batch_size)
    return 0 if steps is None else steps


def time_steps(entries: dict[str, Entry]) -> dict[str, float]:
    """Seconds of a step by key, in a process of their own: a model that takes too much memory ends that, not this one.
    Those that could not be timed, or not in :data:`TIME_LIMIT_S`, are left out."""
    from activelr_service.studies.trial import time_step

    found: dict[str, float] = {}
    deadline = time.monotonic() + TIME_LIMIT_S
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for key, entry in entries.items():
            if time.monotonic() > deadline:
                break
            try:
                found[key] = pool.submit(time_step, *entry).result()
            except (Exception, BrokenProcessPool):  # noqa: S112 - what is wrong with it, its trials will say
                continue
    return found
