"""The Ray side of a training: what there is to run on, and the TorchTrainer around the worker."""

import logging
import os
import secrets

from activelr_service.config import TrainJob
from activelr_service.data.info import DataInfo
from activelr_service.driver.resolve import Resources
from activelr_service.runs import Run

COLLECTIVE_TIMEOUT_S = 600
POLL_INTERVAL_S = "0.5"  # how soon Ray Train notices a finished or lost worker; its default is 2


class WorkersLostError(RuntimeError):
    """The workers were lost more often than the job allows."""


def is_attached() -> bool:
    """Whether there is a cluster to use: this process joined one, or $RAY_ADDRESS names one (as in every Ray job)."""
    import ray

    return ray.is_initialized() or "RAY_ADDRESS" in os.environ


def find_resources() -> Resources:
    """What the cluster has, else this machine."""
    import ray
    import torch

    if not is_attached():
        return Resources(len(os.sched_getaffinity(0)), torch.cuda.device_count())
    init_ray()
    total = ray.cluster_resources()
    return Resources(int(total.get("CPU", 0)), int(total.get("GPU", 0)), is_shared=True)


def train_on_ray(run: Run, job: TrainJob, info: DataInfo, *, measure_untrained: bool = False) -> None:
    """Train a resolved job with Ray Train; one worker without a cluster runs in this process.

    ``measure_untrained`` has the workers write :attr:`Run.untrained` first. Returns when the training ended, with or
    without a failure written to the run. Raises :class:`WorkersLostError` when it could not be brought to an end.
    """
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from activelr_service.training.worker import NoteFailures, root_cause, train_loop_per_worker

    workers = job.workers
    is_local = workers.num_workers == 1 and not is_attached()
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    if not is_local:
        init_ray(num_cpus=(workers.num_workers or 1) * (workers.cpus_per_worker or 1))
    trainer = TorchTrainer(
        train_loop_per_worker,
        train_loop_config={
            "run": str(run.folder),
            "attempt": run.state()["attempts"],
            "job": job.model_dump(mode="json"),
            "info": info._asdict(),
            "in_driver": is_local,
            "measure_untrained": measure_untrained,
        },
        torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S),
        scaling_config=ScalingConfig(
            num_workers=0 if is_local else workers.num_workers,
            use_gpu=bool(workers.use_gpu),
            resources_per_worker=None if is_local else _resources_per_worker(job),
        ),
        run_config=RunConfig(
            name=f"attempt-{run.state()['attempts']}",  # new every time: our checkpoints decide what is continued
            storage_path=str(run.folder / "ray"),
            failure_config=FailureConfig(max_failures=workers.max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),
            callbacks=None if is_local else [NoteFailures(str(run.folder))],
        ),
    )
    try:
        trainer.fit()
    except SystemExit as error:  # Ray Train handles Ctrl-C itself and leaves with 0 or 1
        raise SystemExit(130 if error.code in (0, 1) else error.code) from None
    except TrainingFailedError as error:
        if run.failure.exists():
            return
        failures = getattr(error, "worker_failures", None)
        raise WorkersLostError(root_cause(failures) if failures else str(error).splitlines()[0][:300]) from error


def _resources_per_worker(job: TrainJob) -> dict[str, float]:
    gpus = {"GPU": 1.0} if job.workers.use_gpu else {}
    return {"CPU": float(job.workers.cpus_per_worker or 1), **gpus}


def init_ray(num_cpus: int | None = None) -> None:
    """Join the cluster there is, or start one on this machine that nobody else can use, for this process alone."""
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLL_INTERVAL_S)
    if is_attached():
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
        return
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray turns token authentication on for it
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    ray.init(address="local", num_cpus=num_cpus, log_to_driver=False, logging_level=logging.WARNING)
