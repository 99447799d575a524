"""The batch size of a job that gives none: how large it may be, what the workers found, and how they share it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from activelr_service.config import CompleteJob, ResolvedJob
from activelr_service.config.job import LARGEST_BATCH
from activelr_service.errors import CommandError
from activelr_service.runs.files import write_text

STEPS_TO_LEARN_IN = 500  # optimizer steps of the whole run
STEPS_PER_EPOCH = 8
RISE_WANTED = 0.10  # of samples/s, for twice the samples
SMALLEST_BATCH = 8
LARGEST_DETECTION_BATCH = 16  # images of full size; as in torchvision's recipes, which take 2 on each of 8 GPUs


class BatchSizeLimit(NamedTuple):
    """The largest batch size that a run may have, a power of two, and what sets it."""

    batch_size: int
    reason: str


def limit_batch_size(num_train: int, samples_in_run: int | None, task: str) -> BatchSizeLimit:
    """The limit for ``num_train`` training samples: a run of too few steps learns nothing.

    ``samples_in_run``: how many samples all steps of the run take together, None if that sets no limit.
    """
    limits = [
        BatchSizeLimit(num_train // STEPS_PER_EPOCH, f"more would leave fewer than {STEPS_PER_EPOCH} steps an epoch"),
        BatchSizeLimit(LARGEST_BATCH, "the largest there is"),
    ]
    if samples_in_run is not None:
        reason = f"more would leave fewer than {STEPS_TO_LEARN_IN} steps to learn in"
        limits.append(BatchSizeLimit(samples_in_run // STEPS_TO_LEARN_IN, reason))
    if task == "detection":
        limits.append(BatchSizeLimit(LARGEST_DETECTION_BATCH, "images of full size"))
    limit = min(limits)
    smallest = min(SMALLEST_BATCH, num_train)
    if limit.batch_size < smallest:
        found = num_train if samples_in_run is None else samples_in_run
        limit = BatchSizeLimit(smallest, f"the smallest, though the run has few samples: {found:,}")
    return BatchSizeLimit(2 ** (limit.batch_size.bit_length() - 1), limit.reason)


class ProbeSample(NamedTuple):
    """One size that a probe tried, as measured on the slowest worker.

    ``samples_per_sec`` is 0 if there was not enough memory. ``memory`` is the share of the memory that was taken, from 0 to
    1. ``fits`` says whether the size can be trained with.
    """

    micro_batch_size: int
    samples_per_sec: float
    memory: float
    fits: bool

    def __str__(self) -> str:
        size = f"{self.micro_batch_size:>5} samples a worker: "
        if not self.samples_per_sec:
            return size + "out of memory"
        return size + f"{self.samples_per_sec:,.0f} samples/s, {self.memory:.0%} of its memory"


class ProbeResult(NamedTuple):
    """What a probe tried, why nothing larger, and the seconds of an optimizer step without its gradients."""

    tried: tuple[ProbeSample, ...]
    reason: str
    step_seconds: float


def choose(found: ProbeResult, limit: BatchSizeLimit) -> tuple[int, str]:
    """The largest batch size that is worth it, and why no larger one is.

    A batch of twice the size must raise samples/s. Beyond what fits into memory, gradients are accumulated, which spares
    optimizer steps.
    """
    rates = {one.micro_batch_size: one.samples_per_sec for one in found.tried if one.fits}
    largest = max(rates)
    seconds = largest / rates[largest] - found.step_seconds
    smallest = min(SMALLEST_BATCH, limit.batch_size)

    def rate(size: int) -> float:
        return rates.get(size) or size / (size / largest * seconds + found.step_seconds)

    size = min(rates)
    while 2 * size <= limit.batch_size and (size < smallest or rate(2 * size) >= (1 + RISE_WANTED) * rate(size)):
        size *= 2
    if size == limit.batch_size:
        return size, limit.reason
    reason = f"samples/s rise by less than {RISE_WANTED:.0%} beyond it"
    return size, reason if size < largest else f"{found.reason}; accumulated, {reason}"


@dataclass(frozen=True)
class BatchSizeChoice:
    """A batch size that was chosen, and why. Any number of workers can share it: see :meth:`complete`.

    ``grad_accum_steps`` is that of the job, None to derive it. ``largest_micro_batch_size`` is what fits into the memory of
    a worker, ``smallest_micro_batch_size`` what the model can be trained with. ``num_train`` is the number of training
    samples, and ``tried`` has the sizes that were measured, in order.
    """

    global_batch_size: int
    grad_accum_steps: int | None
    largest_micro_batch_size: int
    num_train: int
    reason: str
    tried: tuple[ProbeSample, ...] = ()
    smallest_micro_batch_size: int = 1

    def complete(self, job: ResolvedJob) -> CompleteJob:
        """The job with its batch size and accumulation steps, for the workers it has."""
        num_workers, steps = job.workers.num_workers, self.grad_accum_steps
        if steps is None:
            steps = self._derive_steps(num_workers)
        return job.complete(self._share(num_workers * steps), steps)

    def _derive_steps(self, num_workers: int) -> int:
        steps = 1
        while self._samples_each(num_workers * steps) > self.largest_micro_batch_size:
            steps *= 2
        return steps

    def _samples_each(self, parts: int) -> int:
        """The samples of each of ``parts`` equal parts that together are nearest to the batch size."""
        samples = max(self.smallest_micro_batch_size, round(self.global_batch_size / parts))
        return max(1, min(samples, self.num_train // parts))

    def _share(self, parts: int) -> int:
        return parts * min(self._samples_each(parts), self.largest_micro_batch_size)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tried": [tried._asdict() for tried in self.tried]}

    def explain(self, job: CompleteJob) -> str:
        """Why the completed ``job`` has its batch size."""
        if job.global_batch_size == self.global_batch_size:
            return self.reason
        parts = f"{job.workers.num_workers} workers x {job.grad_accum_steps} accumulation steps"
        if self.grad_accum_steps is not None and job.micro_batch_size() == self.largest_micro_batch_size:
            fit = f"as many samples as fit for {parts}, which the job gives"
            return f"{fit}; without them {self.global_batch_size}: {self.reason}"
        least = f" of at least {self.smallest_micro_batch_size} samples" if self.smallest_micro_batch_size > 1 else ""
        return f"{self.reason}; {self.global_batch_size} shared by {parts}{least}"


def at_the_limit(job: ResolvedJob, num_train: int) -> CompleteJob:
    """A resolved job with the largest batch size it may have, if it has none: for where nothing is measured."""
    if isinstance(job, CompleteJob):
        return job
    size, reason = limit_of(job, num_train)
    return BatchSizeChoice(size, job.grad_accum_steps, size, num_train, reason).complete(job)


def limit_of(job: ResolvedJob, num_train: int) -> BatchSizeLimit:
    """The limit of a job. A budget of steps sets none, and a budget of time none before samples were timed."""
    return limit_batch_size(num_train, job.duration.total_samples(num_train), job.task)


def limit_in_time(limit: BatchSizeLimit, result: ProbeResult, job: ResolvedJob, num_train: int) -> BatchSizeLimit:
    """The limit of a job with a budget of time, at the best rate that a probe found on each of its workers."""
    seconds = job.duration.seconds
    if seconds is None:
        return limit
    samples_per_sec = max(sample.samples_per_sec for sample in result.tried if sample.fits) * job.workers.num_workers
    return min(limit, limit_batch_size(num_train, int(seconds * samples_per_sec), job.task))


def write_choice(path: Path, choice: BatchSizeChoice) -> None:
    """As JSON, whole or not at all."""
    write_text(path, json.dumps(choice.to_json(), indent=1))


def read_choice(path: Path) -> BatchSizeChoice:
    """What :func:`write_choice` wrote. Raises :class:`CommandError` if it cannot be read."""
    try:
        data = json.loads(path.read_text())
        return BatchSizeChoice(**{**data, "tried": tuple(ProbeSample(**tried) for tried in data["tried"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        remedy = "restore it: manifest.json of a checkpoint has the same under batch_size"
        raise CommandError(f"{path} is damaged: {str(error)[:100]}; {remedy}") from error
