"""What a Ray Train worker runs: the plain loop of :mod:`~activelr_service.training.loop`, in Ray's words."""

import json
import logging
import traceback
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from activelr_service.config import parse_job
from activelr_service.data.info import DataInfo
from activelr_service.record import Record
from activelr_service.runs import Run
from activelr_service.training.build import build_training
from activelr_service.training.checkpoint import CheckpointStore
from activelr_service.training.loop import fit

# What a lost peer looks like to the others: torch raises RuntimeError with the text of the transport.
PEER_LOST = ("gloo", "NCCL", "Connection reset", "Connection closed", "Socket", "DataLoader worker")


def train_loop_per_worker(config: dict[str, Any]) -> None:
    """Train the run at ``config['run']``. An error that would only repeat is written to the run and ends all workers
    quietly; any other is raised, and Ray replaces the worker group."""
    run = Run(Path(config["run"]))
    if run.failure.exists():
        return
    try:
        logging.getLogger("ray.train").setLevel(logging.WARNING)  # it would print every report
        job = parse_job(config["job"])
        torch.set_num_threads(job.workers.cpus_per_worker or 1)  # sums depend on it: the same after a restart
        training = build_training(
            job=job,
            info=DataInfo(**config["info"]),
            device=ray.train.torch.get_device(),  # [1] the device Ray gave this worker
        )
        fit(training, CheckpointStore(run.checkpoints, run.journal), on_epoch=report)
    except Exception as error:
        if run.failure.exists():
            return  # the collective broke because another rank has said why and left
        if is_retryable(error):
            raise
        write_failure(run, error)
        if dist.is_initialized():
            dist.destroy_process_group()  # the other ranks wait in a collective: this ends it


def report(record: Record) -> None:
    ray.train.report({"epoch": record.epoch, **record.metrics})  # [2] for Ray's dashboard and Tune; a barrier


def is_retryable(error: Exception) -> bool:
    """Whether a new worker group could do better: lost peers and full collectives, not bad data or a bad loss."""
    if isinstance(error, dist.DistError | ConnectionError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in PEER_LOST)


def write_failure(run: Run, error: Exception) -> None:
    """For the driver, which tells the user. The first rank to fail is the one that knows."""
    rank = ray.train.get_context().get_world_rank()
    details = {"type": type(error).__name__, "message": str(error), "rank": rank, "traceback": traceback.format_exc()}
    temporary = run.failure.with_suffix(f".{rank}")
    temporary.write_text(json.dumps(details))
    if not run.failure.exists():
        temporary.replace(run.failure)
