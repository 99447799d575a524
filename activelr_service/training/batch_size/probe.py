"""Finding the batch size of a job that gives none, inside the workers that will train it.

The model and the optimizer are built as the job says, used to measure, and thrown away. Those that are trained are built
anew, from the same seed. Whatever can run out of memory contains no collective. After each size all ranks agree on its
result, so that no rank waits for one that failed.
"""

import itertools
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from activelr_service.config import CompleteJob, ResolvedJob
from activelr_service.data.info import DataInfo
from activelr_service.errors import is_out_of_memory
from activelr_service.optim import ActiveOptimizer
from activelr_service.runs.fence import Fence
from activelr_service.training import distributed
from activelr_service.training.batch_size.choice import (
    RISE_WANTED,
    SMALLEST_BATCH,
    BatchSizeChoice,
    BatchSizeLimit,
    ProbeResult,
    ProbeSample,
    choose,
    limit_in_time,
    limit_of,
    read_choice,
    write_choice,
)
from activelr_service.training.build import TrainContext, build_training
from activelr_service.training.evaluate import autocast, to_device
from activelr_service.training.monitors import MemoryMeter
from activelr_service.training.optimizers import begin_step, set_training, uses_lr
from activelr_service.training.replicate import NO_ROW, readable_rows

MEMORY_ALLOWED = 0.8  # of what a worker may have
TIME_LIMIT_S = 20.0  # no size is begun after it
PASSES, PASSES_S = 2, 0.1  # at least so many of each size, and for so long
SAMPLES_READ = 256  # larger batches repeat them
STEPS = 3


def resolve_batch_size(
    path: Path, job: ResolvedJob, info: DataInfo, device: torch.device, fence: Fence | None = None
) -> tuple[CompleteJob, BatchSizeChoice | None]:
    """The complete job, and the choice at ``path`` that completed it: None if the job gives its batch size.

    A choice that is missing is made and written. Every rank must call it; all share the folder. With a ``fence`` only the
    newest attempt writes it.
    """
    if not distributed.broadcast_int(path.exists(), device):
        if isinstance(job, CompleteJob):
            return job, None
        choice = probe(job, info, device)
        if distributed.rank() == 0:
            with fence.held() if fence else nullcontext():
                write_choice(path, choice)
        distributed.barrier()
    else:
        choice = read_choice(path)
    return choice.complete(job), choice


def probe(job: ResolvedJob, info: DataInfo, device: torch.device) -> BatchSizeChoice:
    """Measure and choose: the same on every rank. Raises ``torch.OutOfMemoryError`` if not even one sample fits."""
    num_train, _ = info.counted()
    limit = limit_of(job, num_train)
    accum_steps = 1 if job.grad_accum_steps is None else job.grad_accum_steps
    smallest_job = job.complete(distributed.world_size() * accum_steps, accum_steps)
    measuring = Probe(build_training(smallest_job, info, device, is_probe=True), limit)
    result, smallest = measuring.measure(), measuring.smallest
    del measuring
    MemoryMeter(device).free()
    if job.compile:
        torch.compiler.reset()  # what was compiled for many sizes is not what would be for one
    size, reason = choose(result, limit_in_time(limit, result, job, num_train))
    largest = max(sample.micro_batch_size for sample in result.tried if sample.fits)
    return BatchSizeChoice(size, job.grad_accum_steps, largest, num_train, reason, result.tried, smallest)


class AttemptResult(NamedTuple):
    """The worst result of an attempt over all ranks: whether it failed on any, and the most seconds and memory.

    ``elapsed``: seconds since the probe began.
    """

    failed: bool
    seconds: float
    memory: float
    elapsed: float


class Probe:
    """Measures sizes with a training that is thrown away afterwards."""

    def __init__(self, training: TrainContext, limit: BatchSizeLimit) -> None:
        self.training = training
        self.limit = limit
        self.start = time.monotonic()
        self.meter = MemoryMeter(training.device)
        self.agreed = torch.zeros(4, dtype=torch.float64, device=training.device)
        self.unread = readable_rows(training.task, training.train_loader.dataset, training.train_loader.sampler)
        self.samples: list[Any] = []
        self.has_worked = False  # a smaller size
        self.smallest = smallest_micro_batch_size(training.model)
        training.replica.train()
        set_training(training.optimizer, True)
        if uses_lr(training.optimizer):
            for group in training.optimizer.param_groups:
                group["lr"] = 0.0  # weights that ran away could not be measured

    def measure(self) -> ProbeResult:
        """Try sizes, from small to large, until something stops it."""
        size, step_seconds = self.allocate()
        idle = self.attempt(lambda: (0.0, self.meter.used())).memory
        tried: list[ProbeSample] = []
        while True:
            result = self.attempt(partial(self.time_passes, size))
            tried.append(describe(size, result, step_seconds))
            if not any(one.fits for one in tried):
                size = self.halve(size)
            elif reason := self.why_stop(tried, idle, result.elapsed):
                return ProbeResult(tuple(tried), reason, step_seconds)
            else:
                self.has_worked, size = True, 2 * size

    def why_stop(self, tried: list[ProbeSample], idle: float, elapsed: float) -> str | None:
        """Why no larger size is tried than the last; ``idle`` is the share of memory that is taken without samples."""
        last = tried[-1]
        too_large = [one.micro_batch_size for one in tried if not one.fits]
        if not too_large and len(tried) > 1 and last.samples_per_sec < (1 + RISE_WANTED) * tried[-2].samples_per_sec:
            return f"samples/s rose by less than {RISE_WANTED:.0%}"
        if not too_large and 2 * last.micro_batch_size > self.limit.batch_size:
            return self.limit.reason
        if not too_large and last.memory + (last.memory - idle) > MEMORY_ALLOWED:
            too_large = [2 * last.micro_batch_size]
        if too_large:
            return f"{min(too_large)} samples a worker do not fit into {MEMORY_ALLOWED:.0%} of its memory"
        return f"the probe ended after {elapsed:.0f} s" if elapsed > TIME_LIMIT_S else None

    def allocate(self) -> tuple[int, float]:
        """Have the optimizer allocate its state, as the first epoch does; returns a size to begin with, and the seconds of
        a step."""
        size = min(SMALLEST_BATCH, self.limit.batch_size)
        while (result := self.attempt(partial(self.take_steps, size))).failed:
            size = self.halve(size)
        return size, result.seconds

    def attempt(self, work: Callable[[], tuple[float, float]]) -> AttemptResult:
        """Do ``work`` and agree on its result with the other ranks.

        ``work`` contains no collective. It returns its seconds and the share of memory that it takes.
        """
        failed, seconds, memory = False, 0.0, 0.0
        try:
            seconds, memory = work()
        except Exception as error:
            if not (is_out_of_memory(error) or (self.has_worked and isinstance(error, RuntimeError))):
                raise  # a smaller size has not worked either: it is not the size
            failed = True
            if not is_out_of_memory(error):
                logging.getLogger(__name__).warning("a batch of this size fails, a smaller one is taken: %s", error)
        self.training.optimizer.zero_grad()
        self.meter.free()
        mine = [float(failed), seconds, memory, time.monotonic() - self.start]
        result = distributed.max_(self.agreed.copy_(torch.tensor(mine, dtype=torch.float64))).tolist()
        return AttemptResult(bool(result[0]), *result[1:])

    def take_steps(self, size: int) -> tuple[float, float]:
        """The seconds of an optimizer step. The gradients are those of this rank alone: no weight is kept."""
        self.training.optimizer.state.clear()  # of an attempt that failed half way
        self.forward(self.batch(size)).backward()
        seconds = []
        for step in range(STEPS):
            begin_step(self.training.optimizer, "constant", step / STEPS, (step + 1) / STEPS)
            start = self.now()
            self.training.optimizer.step()
            seconds.append(self.now() - start)
            end_step_alone(self.training.optimizer)
        end_sums_alone(self.training.optimizer)
        return min(seconds), self.meter.used()

    def time_passes(self, size: int) -> tuple[float, float]:
        """The seconds of a forward and a backward pass of ``size`` samples, the best of a few, and their share of memory."""
        batch = self.batch(size)
        used = self.warm_up(batch)
        seconds: list[float] = []
        while not self.is_enough(seconds):
            start = self.now()
            self.forward(batch).backward()
            seconds.append(self.now() - start)
            self.training.optimizer.zero_grad()
        return min(seconds), used

    def warm_up(self, batch: Any) -> float:
        """A first pass; returns the memory it takes."""
        loss = self.forward(batch)
        used = self.meter.used()  # all that the backward pass needs is there
        loss.backward()
        self.training.optimizer.zero_grad()
        return max(used, self.meter.used())

    def is_enough(self, seconds: list[float]) -> bool:
        is_late = bool(seconds) and time.monotonic() - self.start > TIME_LIMIT_S
        return is_late or (len(seconds) >= PASSES and sum(seconds) >= PASSES_S)

    def batch(self, size: int) -> Any:
        """The first ``size`` samples of this rank, on the device. They repeat if there are fewer, or if fewer are read."""
        missing = max(0, min(size, SAMPLES_READ) - len(self.samples))
        self.samples += itertools.islice(self.unread, missing)
        if not self.samples:
            raise ValueError(NO_ROW)
        batch = self.training.task.collate([self.samples[index % len(self.samples)] for index in range(size)])
        return to_device(batch, self.training.device)

    def forward(self, batch: Any) -> torch.Tensor:
        """The loss of the bare model: the replica would send buffers and gradients to the other ranks."""
        with autocast(self.training.device, self.training.job.precision):
            return self.training.task.compute_loss(self.training.model, batch)[0]

    def halve(self, size: int) -> int:
        if size <= self.smallest:
            samples = "one sample fits" if self.smallest == 1 else f"{self.smallest} samples fit"
            raise torch.OutOfMemoryError(f"not even {samples} into the memory of a worker; use a smaller model")
        return size // 2

    def now(self) -> float:
        if self.training.device.type == "cuda":
            torch.cuda.synchronize(self.training.device)
        return time.perf_counter()


def end_step_alone(optimizer: torch.optim.Optimizer) -> None:
    """End a step on this rank alone: ranks that measure have no collective."""
    if isinstance(optimizer, ActiveOptimizer):
        optimizer.end_step()


def end_sums_alone(optimizer: torch.optim.Optimizer) -> None:
    """Have an ActiveLR optimizer allocate what it keeps from the end of its first sums on."""
    if isinstance(optimizer, ActiveOptimizer):
        optimizer.end_sums()


def describe(size: int, result: AttemptResult, step_seconds: float) -> ProbeSample:
    if result.failed:
        return ProbeSample(size, 0.0, 1.0, fits=False)
    fits = result.memory <= MEMORY_ALLOWED or size == 1
    return ProbeSample(size, size / (result.seconds + step_seconds), result.memory, fits)


def smallest_micro_batch_size(model: nn.Module) -> int:
    """Batch normalization cannot normalize over a single sample."""
    return 2 if any(isinstance(module, _BatchNorm) for module in model.modules()) else 1
