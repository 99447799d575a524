"""What a Ray Train worker runs: the plain loop of :mod:`~activelr_service.training.loop`, in Ray's words."""

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import ray.train.v2._internal.execution.context
import torch
import torch.distributed as dist

from activelr_service.config import parse_resolved_job
from activelr_service.data.info import DataInfo
from activelr_service.errors import CheckpointError, DeterministicError, JobError, SupersededError
from activelr_service.redact import redact
from activelr_service.runs.fence import Fence, begin_group
from activelr_service.runs.files import write_text
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run
from activelr_service.training.batch_size.probe import resolve_batch_size
from activelr_service.training.build import Training, build_training
from activelr_service.training.checkpoint import CheckpointStore
from activelr_service.training.distributed import barrier, broadcast_int, rank
from activelr_service.training.loop import evaluate_held_out, fit
from activelr_service.training.memory import is_out_of_memory

# What a lost peer looks like to the others: torch raises RuntimeError with the text of the transport. A loader process that
# was killed is lost too; an error that was raised in one begins with "Caught" and would only repeat.
PEER_LOST = ("gloo", "NCCL", "Connection reset", "Connection closed", "Socket", "DataLoader worker (pid")
RAISED_IN_LOADER = "Caught "


def train_loop_per_worker(config: dict[str, Any]) -> None:
    """Train the run at ``config['run']``. An error that would only repeat is written to the run and ends all workers for
    good; any other makes Ray replace the worker group. What a worker prints goes to the run's ``workers``
    folder, unless it runs in the driver."""
    run = Run(Path(config["run"]))
    if run.failure.exists():
        return
    with nullcontext() if config["in_driver"] else output_to(run.folder / "workers"):
        train_run(run, config)


def train_run(run: Run, config: dict[str, Any]) -> None:
    fence: Fence | None = None
    try:
        quiet_ray_train()
        job = parse_resolved_job(config["job"])
        torch.set_num_threads(job.workers.cpus_per_worker)  # sums depend on it: the same after a restart
        info = DataInfo.from_json(config["info"])
        device = ray.train.torch.get_device()  # [1] the device Ray gave this worker
        fence = enter(run, config["attempt"], device)
        complete, choice = resolve_batch_size(run.batch_size, job, info, device, fence)
        training = build_training(complete, info, device)
        if config["measure_untrained"] and not broadcast_int(run.untrained.exists(), device):
            write_untrained(run, training)
        fit(training, CheckpointStore(run.checkpoints, run.journal, run.note, choice, fence), on_epoch=report)
    except SupersededError:
        raise  # the run is another attempt's now: there is nothing to write
    except Exception as error:
        if run.failure.exists():
            return  # the collective broke because another rank has said why and left
        if is_retryable(error) or fence is None:
            raise
        write_failure(run, fence, error)
        if not config["in_driver"]:
            raise  # the other ranks may wait in a collective, which only their end ends: see NoteFailures


def enter(run: Run, attempt: int, device: torch.device) -> Fence:
    """The fence of this worker group, the same on every rank: an older group cannot write to the run any more."""
    group = begin_group(run.folder, attempt).group if rank() == 0 else 0
    return Fence(run.folder, attempt, broadcast_int(group, device))


def write_untrained(run: Run, training: Training) -> None:
    metrics = evaluate_held_out(training)
    barrier()  # no rank may see the file before all have measured
    if rank() == 0:
        write_text(run.untrained, json.dumps(metrics))


@contextmanager
def output_to(folder: Path) -> Iterator[None]:
    """What this rank prints goes to ``folder/rank-N.log``."""
    folder.mkdir(exist_ok=True)
    path = folder / f"rank-{ray.train.get_context().get_world_rank()}.log"
    with path.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        yield


class NoteFailures(ray.train.UserCallback):
    """Tells the user, through the run's notes, that workers were lost; ends the training if the run has failed for good,
    since an error that is raised in here is not retried. Runs in Ray Train's controller."""

    def __init__(self, folder: str) -> None:
        self.run = Run(Path(folder))

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        if self.run.failure.exists():
            raise DeterministicError(str(self.run.failure))
        with suppress(OSError):
            self.run.note(f"workers lost ({root_cause(worker_exceptions)}); replaced, from the last committed epoch on")


def root_cause(failures: dict[int, Exception]) -> str:
    """A rank whose process died comes before the ranks that lost their connection to it."""
    died = {rank: error for rank, error in failures.items() if not isinstance(error, RuntimeError)}
    rank, error = sorted((died or failures).items())[0]
    text = str(error).strip().splitlines() or [""]
    return f"rank {rank}: {type(error).__name__}: {text[0][:200]}"


def quiet_ray_train() -> None:
    """Ray Train would print every report in full; the driver prints one readable line an epoch."""
    for name in ("ray.train", ray.train.v2._internal.execution.context.__file__):  # Ray names that logger by its file
        logging.getLogger(name).setLevel(logging.WARNING)


def report(record: Record) -> None:
    ray.train.report({"epoch": record.epoch, **record.metrics})  # [2] for Ray's dashboard and Tune; a barrier


def is_retryable(error: Exception) -> bool:
    """Whether a new worker group could do better: lost peers and full collectives, not bad data or a bad loss."""
    if isinstance(error, dist.DistError | ConnectionError):
        return True
    text = str(error)
    if text.startswith(RAISED_IN_LOADER):
        return False
    return isinstance(error, RuntimeError) and any(words in text for words in PEER_LOST)


def write_failure(run: Run, fence: Fence, error: Exception) -> None:
    """For the driver, which tells the user. The first rank to fail is the one that knows."""
    details = {
        "type": type(error).__name__,
        "kind": classify(error),
        "message": redact(describe(error)),
        "rank": rank(),
        "traceback": redact(traceback.format_exc()),
    }
    with fence.held():
        if not run.failure.exists():
            write_text(run.failure, json.dumps(details))


def classify(error: Exception) -> str:
    """What went wrong: ``job``, ``checkpoint``, ``environment`` (a full disk, a file that cannot be read, no memory) or
    ``training``. Only an error of the training itself must repeat."""
    if isinstance(error, JobError):
        return "job"
    if isinstance(error, CheckpointError):
        return "checkpoint"
    return "environment" if isinstance(error, OSError) or is_out_of_memory(error) else "training"


def describe(error: Exception) -> str:
    """The text of an error; of one that was raised in a loader process, its own last line instead of the traceback."""
    text = str(error)
    return text.strip().splitlines()[-1] if text.startswith(RAISED_IN_LOADER) else text
