"""What a Ray Train worker runs: the loop of :mod:`~activelr_service.training.loop`, and how its errors are reported."""

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from activelr_service.config import parse_resolved_job
from activelr_service.data.info import DataInfo
from activelr_service.errors import DeterministicError, SupersededError, kind_of
from activelr_service.runs.fence import Fence, begin_group
from activelr_service.runs.files import write_text
from activelr_service.runs.record import Failure, Record
from activelr_service.runs.run import Run
from activelr_service.training.batch_size.probe import resolve_batch_size
from activelr_service.training.build import TrainContext, build_training
from activelr_service.training.checkpoint import CheckpointStore
from activelr_service.training.distributed import barrier, broadcast_int, rank
from activelr_service.training.loop import evaluate_val, fit

# Parts of the texts that torch raises, as RuntimeError, when a process is lost: another rank, or a loader process. An error
# that was raised inside a loader process begins with "Caught": it would only happen again.
PEER_LOST = ("gloo", "NCCL", "Connection reset", "Connection closed", "Socket", "DataLoader worker (pid")
RAISED_IN_LOADER = "Caught "


def train_loop_per_worker(config: dict[str, Any]) -> None:
    """Train the run at ``config['run']``.

    An error that would only happen again is written to the run, and the run ends. After any other error Ray replaces the
    worker group. What a worker prints goes to the run's ``workers`` folder, unless the worker runs in the driver's process.
    """
    run = Run(Path(config["run"]))
    if run.failure.exists():
        return None
    if config["in_driver"]:
        return train_run(run, config)
    silence_ray_logging()
    with output_to(run.folder / "workers"):
        return train_run(run, config)


def train_run(run: Run, config: dict[str, Any]) -> None:
    fence: Fence | None = None
    try:
        job = parse_resolved_job(config["job"])
        torch.set_num_threads(job.workers.cpus_per_worker)  # sums depend on it: the same after a restart
        info = DataInfo.from_json(config["info"])
        device = ray.train.torch.get_device()  # [1] the device Ray gave this worker
        fence = begin_writing(run, config["attempt"], device)
        complete, choice = resolve_batch_size(run.batch_size, job, info, device, fence)
        checkpoints = CheckpointStore(run.checkpoints, run.journal, run.notify, choice, fence)
        is_continued = any(place.epochs > 0 for place in checkpoints.places())
        training = build_training(complete, info, device, is_continued=is_continued)
        if config["measure_untrained"] and not broadcast_int(run.untrained.exists(), device):
            write_untrained(run, training)
        fit(training, checkpoints, on_epoch=report)
    except SupersededError:
        raise  # another attempt trains the run: this one must write nothing
    except Exception as error:
        if run.failure.exists():
            return  # another rank has failed and written why; that broke a collective here
        if is_retryable(error) or fence is None:
            raise
        write_failure(run, fence, error)
        if not config["in_driver"]:
            raise  # so that FailureCallback ends the other ranks, which may wait for this one in a collective


def begin_writing(run: Run, attempt: int, device: torch.device) -> Fence:
    """The fence of this worker group, the same on every rank. From now on no older group can write to the run."""
    group = begin_group(run.folder, attempt).group if rank() == 0 else 0
    return Fence(run.folder, attempt, broadcast_int(group, device))


def write_untrained(run: Run, training: TrainContext) -> None:
    metrics = evaluate_val(training)
    barrier()  # no rank may see the file before every rank has looked for it
    if rank() == 0:
        write_text(run.untrained, json.dumps(metrics))


@contextmanager
def output_to(folder: Path) -> Iterator[None]:
    """Write what this rank prints to ``folder/rank-N.log``."""
    folder.mkdir(exist_ok=True)
    path = folder / f"rank-{ray.train.get_context().get_world_rank()}.log"
    with path.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        yield


class FailureCallback(ray.train.UserCallback):
    """Runs in Ray Train's controller after workers have failed.

    If the run has failed for good, it ends the training: Ray does not retry after an error that a callback raises.
    Otherwise it tells the user that workers were lost and are replaced.
    """

    def __init__(self, folder: str) -> None:
        self.run = Run(Path(folder))

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        if self.run.failure.exists():
            raise DeterministicError(str(self.run.failure))
        with suppress(OSError):
            self.run.notify(f"workers lost ({root_cause(worker_exceptions)}); replaced, from the last checkpoint on")


def root_cause(failures: dict[int, Exception]) -> str:
    """One line about the rank that failed first: its process died, and the other ranks only lost their connection to it."""
    died = {rank: error for rank, error in failures.items() if not isinstance(error, RuntimeError)}
    rank, error = sorted((died or failures).items())[0]
    text = str(error).strip().splitlines() or [""]
    return f"rank {rank}: {type(error).__name__}: {text[0][:200]}"


def silence_ray_logging() -> None:
    """Show warnings only. Ray Train would log every report in full, and the driver prints one readable line an epoch.

    Ray sets the root logger of a worker's process to INFO, and the logger of reports has no name of its own below it.
    """
    for name in ("ray.train", None):
        logging.getLogger(name).setLevel(logging.WARNING)


def report(record: Record) -> None:
    ray.train.report({"epoch": record.epoch, **record.metrics})  # [2] for Ray's dashboard and Tune; a barrier


def is_retryable(error: Exception) -> bool:
    """Whether a new worker group could do better: after a lost process or connection, not after bad data or a bad loss."""
    if isinstance(error, dist.DistError | ConnectionError):
        return True
    text = str(error)
    if text.startswith(RAISED_IN_LOADER):
        return False
    return isinstance(error, RuntimeError) and any(words in text for words in PEER_LOST)


def write_failure(run: Run, fence: Fence, error: Exception) -> None:
    """Write the error for the driver, which tells the user. Only the first rank that fails writes: it knows the cause."""
    kind = kind_of(error) or "training"
    failure = Failure(type(error).__name__, kind, describe(error), rank(), traceback.format_exc())
    with fence.held():
        if not run.failure.exists():
            run.write_failure(failure)


def describe(error: Exception) -> str:
    """The text of an error. For an error that was raised in a loader process: the last line of its traceback."""
    text = str(error)
    return text.strip().splitlines()[-1] if text.startswith(RAISED_IN_LOADER) else text
