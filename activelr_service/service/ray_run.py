"""Training with Ray Train, and how it ends: by itself, after a signal, or because its cluster is lost."""

import atexit
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from activelr_service.config import ResolvedJob
from activelr_service.data.info import DataInfo
from activelr_service.errors import ClusterError, WorkersLostError
from activelr_service.runs.run import Run
from activelr_service.service.ray_cluster import (
    HeadWatch,
    check_room,
    find_resources,
    init_ray,
    is_attached,
    use_short_temp_dir,
)
from activelr_service.tracking.deadline import hurry
from activelr_service.tracking.store import is_embedded

__all__ = ["ClusterError", "WorkersLostError", "find_resources", "init_ray", "train_on_ray"]

COLLECTIVE_TIMEOUT_S = 600
MLFLOW_S = 10  # how long MLflow may take after the cluster is lost


def train_on_ray(run: Run, job: ResolvedJob, info: DataInfo, *, measure_untrained: bool = False) -> None:
    """Train a resolved job with Ray Train. One worker without a cluster runs in this process.

    With ``measure_untrained`` the workers write :attr:`Run.untrained` first. It returns when the training has ended, also
    when a worker has written a failure to the run. Raises :class:`WorkersLostError` if workers were lost too often, and
    :class:`ClusterError` or :class:`CommandError` if there is no cluster for it.
    """
    from ray.train import TrainingFailedError

    from activelr_service.training.worker import root_cause

    is_local = not begin_cluster(job)
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    if not is_local:
        check_room(job.workers.num_workers, _resources_per_worker(job))
    trainer = _make_trainer(run, job, info, is_local, measure_untrained)
    try:
        if is_local or threading.current_thread() is not threading.main_thread():
            trainer.fit()
        else:
            _fit(trainer)
    except TrainingFailedError as error:
        if run.failure.exists():
            return
        failures = getattr(error, "worker_failures", None)
        raise WorkersLostError(root_cause(failures) if failures else str(error).splitlines()[0][:300]) from error


def begin_cluster(job: ResolvedJob) -> bool:
    """Join or start the Ray cluster that the training of ``job`` needs; False if it needs none: one worker without a
    cluster. Called again, it does nothing. Raises the errors of :func:`init_ray`."""
    use_short_temp_dir()
    workers = job.workers
    if workers.num_workers == 1 and not is_attached():
        return False
    init_ray(num_cpus=workers.num_workers * workers.cpus_per_worker)
    return True


def _make_trainer(run: Run, job: ResolvedJob, info: DataInfo, is_local: bool, measure_untrained: bool) -> Any:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from activelr_service.training.worker import FailureCallback, train_loop_per_worker

    return TorchTrainer(
        train_with_system_metrics if job.tracking.system_metrics else train_loop_per_worker,
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
            num_workers=0 if is_local else job.workers.num_workers,
            use_gpu=job.workers.use_gpu,
            resources_per_worker=None if is_local else _resources_per_worker(job),
        ),
        run_config=RunConfig(
            name=f"attempt-{run.state()['attempts']}",  # new every time: our checkpoints decide what is continued
            storage_path=str(run.folder / "ray"),
            failure_config=FailureConfig(max_failures=job.workers.max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),
            callbacks=None if is_local else [FailureCallback(str(run.folder))],
        ),
    )


def train_with_system_metrics(config: dict[str, Any]) -> None:
    """The loop of a worker. The first worker of each machine also tracks the metrics of that machine."""
    from ray.train import get_context

    from activelr_service.tracking.system_metrics import system_metrics
    from activelr_service.training.worker import train_loop_per_worker

    run, context = Run(Path(config["run"])), get_context()
    state, uri = run.state(), config["job"]["tracking"]["uri"]
    run_id, is_elsewhere = state.get("mlflow_run_id"), state.get("host") != socket.gethostname()
    watch: AbstractContextManager[None] = nullcontext()
    if context.get_local_rank() == 0 and run_id is not None:
        if is_embedded(uri) and is_elsewhere:
            host = socket.gethostname()
            run.notify(f"system metrics of {host} are not tracked: {uri} is a file of another machine; use a server")
        else:
            is_one_node = context.get_local_world_size() == context.get_world_size()
            watch = system_metrics(uri, run_id, None if is_one_node else f"node_{context.get_node_rank()}", run.notify)
    with watch:
        train_loop_per_worker(config)


def _resources_per_worker(job: ResolvedJob) -> dict[str, float]:
    gpus = {"GPU": 1.0} if job.workers.use_gpu else {}
    return {"CPU": float(job.workers.cpus_per_worker), **gpus}


def _fit(trainer: Any) -> None:
    # Ray has no public way to leave Ctrl-C to the caller, and its own handler takes 15 seconds.
    trainer._register_sigint_handler = lambda controller: None
    run_in_ray(trainer.fit)


def run_in_ray(function: Callable[[], Any]) -> None:
    """Call a function that waits for Ray, from the main thread. A signal, or the loss of the cluster, ends the wait.

    After a signal, the processes of Ray are ended first; then the exception of the signal's handler is raised. Raises
    :class:`ClusterError` if the head of the cluster is gone.
    """
    ending = Ending()
    try:
        with ending, HeadWatch(ending.lose_head):
            function()
    except BaseException:
        if ending.is_head_lost:
            _leave_dead_cluster()
            raise ClusterError("the Ray cluster is lost: its head process (GCS) does not answer any more") from None
        if ending.error is None:
            raise
        _end_workers()
        raise ending.error from None


class Ending:
    """Inside this context, the exception of a signal's handler is kept in ``error``. Raised inside Ray it would abort the
    process."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.is_head_lost = False

    def __enter__(self) -> None:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._before: dict[int, Any] = {number: handler for number, handler in handlers.items() if callable(handler)}
        for number in self._before:
            signal.signal(number, self._receive)

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def lose_head(self) -> None:
        """Make the main thread leave Ray. Called from another thread."""
        self.is_head_lost = True
        os.kill(os.getpid(), signal.SIGINT)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.is_head_lost:
            try:
                self._before[number](number, frame)
            except BaseException as error:
                self.error = error
            if self.error is None:
                return
        raise KeyboardInterrupt  # the one exception that Ray lets through a wait


def _end_workers() -> None:
    """Leave the cluster, which then ends the workers. If this process started it, its processes are killed, which is
    faster. Checkpoints are complete at any moment."""
    import ray

    family = _own_cluster()
    for process in family:
        with suppress(psutil.Error):
            if process.name().startswith("ray::RayTrainWorker"):
                process.kill()
    ray.shutdown()
    for process in family:
        with suppress(psutil.Error):
            process.kill()


def _own_cluster() -> list[psutil.Process]:
    """The processes of the cluster that this process has started; empty if it has joined another one.

    Ray has no public way to ask for them, and those that outlive :func:`ray.shutdown` have to be found before it.
    """
    from ray._private import worker

    node = worker._global_node
    heads = [info.process.pid for infos in node.all_processes.values() for info in infos] if node else []
    with suppress(psutil.Error):
        found = [psutil.Process(pid) for pid in heads]
        return found + [child for head in found for child in head.children(recursive=True)]
    return []


def _leave_dead_cluster() -> None:
    """Kill the processes of a cluster whose head is gone, without a call that would wait for the head.

    Ray aborts this process 60 seconds after the head is gone, so MLflow gets little time. At an ordinary exit the threads of
    Ray crash the process, so it ends with ``os._exit``.
    """
    import ray

    hurry(MLFLOW_S)
    atexit.unregister(ray.shutdown)
    atexit.register(_exit_at_once)
    for process in _own_cluster():
        with suppress(psutil.Error):
            process.kill()


def _exit_at_once() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ClusterError.exit_code)
