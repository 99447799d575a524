"""Run the trials of a study with Ray Tune, as a grid in first-in, first-out order.

No trial is stopped early. Early stopping would bias the comparison of how robust optimizers are.
"""

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial as TuneTrial

from activelr_service.config import StudyJob
from activelr_service.errors import ClusterError, JobError, is_out_of_memory
from activelr_service.service.ray_cluster import find_resources, init_ray, is_attached
from activelr_service.service.ray_run import run_in_ray
from activelr_service.studies.folder import Outcome, StudyFolder
from activelr_service.studies.plan import is_packed
from activelr_service.studies.trial import describe, device_of, limit_memory, run_distributed_trial, run_trial
from activelr_service.training.monitors import available_memory, free_memory

HEAD_NODE = "node:__internal_head__"  # every Ray cluster has this resource

OnEnd = Callable[[str], None]


def run_trials(study: StudyJob, folder: StudyFolder, pending: list[str], on_end: OnEnd) -> None:
    """Run the pending trials. Their jobs are in the folder's plan.

    Each trial writes its outcome to the folder; then ``on_end`` is called with its id. Raises :class:`ClusterError` if
    Ray ends before the trials have ended.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # see run_in_ray
    os.environ.setdefault("TUNE_FORCE_TRIAL_CLEANUP_S", "5")  # how long trials may take to stop
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # with verbose=0, Ray Tune prints nothing of its own
    keep_secrets_from_ray()
    init_ray(num_cpus=count_concurrent(study) * cpus_of_a_trial(study))
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    tuner = tune.Tuner(
        _trainable(study),
        param_space={
            "study": str(folder.path),
            "most_at_once": count_concurrent(study),
            "needs": needs_of_a_trial(study),
            "trial": tune.grid_search(pending),
        },
        tune_config=tune.TuneConfig(max_concurrent_trials=count_concurrent(study), reuse_actors=is_packed(study)),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder.path),
            callbacks=[EndOfTrial(folder, on_end)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    try:
        run_in_ray(tuner.fit)
    except ClusterError:
        raise
    except (RuntimeError, tune.TuneError) as error:  # such as a trial's process that Ray ended for its memory
        remedy = "the same command runs the trials that are left"
        raise ClusterError(f"Ray Tune has ended: {describe(error)}; {remedy}") from error
    shutil.rmtree(folder.path / "tune", ignore_errors=True)  # the outcomes hold all that is needed


def keep_secrets_from_ray() -> None:
    """Stop Ray Tune from sending $AWS_SECRET_ACCESS_KEY and similar variables to trials: Ray would write them to its logs.

    Trials have the environment of their node, as the workers of a training do.
    """
    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}


def count_concurrent(study: StudyJob) -> int:
    """How many trials run at once: as many as the resources allow, at most ``max_concurrent``."""
    resources = find_resources()
    trials = study.trials
    count = max(1, resources.num_cpus // cpus_of_a_trial(study))
    if trials.gpus_per_worker:
        count = min(count, max(1, int(resources.num_gpus / (trials.num_workers * trials.gpus_per_worker))))
    return min(count, trials.max_concurrent or count)


def check_resources(study: StudyJob) -> None:
    """Raise :class:`JobError` if a trial needs more CPUs or GPUs than there are. It would wait for ever."""
    resources, trials = find_resources(), study.trials
    cpus, gpus = cpus_of_a_trial(study), trials.num_workers * trials.gpus_per_worker
    if gpus > resources.num_gpus:
        text = f"a trial needs {gpus:g} GPUs and there are {resources.num_gpus}; set it to 0 to train on the CPU"
        raise JobError.at("trials.gpus_per_worker", text)
    if cpus > resources.num_cpus:
        raise JobError.at("trials.num_workers", f"a trial needs {cpus} CPUs and there are {resources.num_cpus}")


def cpus_of_a_trial(study: StudyJob) -> int:
    """The CPUs of all workers of a trial."""
    return study.trials.num_workers * study.trials.cpus_per_worker


def needs_of_a_trial(study: StudyJob) -> dict[str, float]:
    """The resources that a packed trial takes of its node, under Ray's names."""
    return {"CPU": study.trials.cpus_per_worker, "GPU": study.trials.gpus_per_worker}


def memory_of_a_trial(study: StudyJob) -> int:
    """The bytes of memory that a packed trial could use if it ran on this node now."""
    resources = find_resources()
    here: dict[str, float] = {"CPU": resources.num_cpus, "GPU": resources.num_gpus}
    if is_attached():
        here = this_node()
    return available_memory() // trials_on(here, needs_of_a_trial(study), count_concurrent(study))


def trials_on(resources: dict[str, float], needs: dict[str, float], most: int) -> int:
    """How many trials a node with these ``resources`` runs at once, at most ``most``. They share the memory of the node."""
    counts = [int(resources.get(name, 0) / need + 1e-6) for name, need in needs.items() if need]
    return max(1, min([most, *counts]))


def this_node() -> dict[str, float]:
    """The resources of the Ray node that this process is on."""
    own = ray.get_runtime_context().get_node_id()
    return next((node["Resources"] for node in ray.nodes() if node["NodeID"] == own), {})


def _trainable(study: StudyJob) -> Any:
    if not is_packed(study):
        return tune.with_resources(
            run_distributed_trial, {HEAD_NODE: 0.001}
        )  # its workers ask for the resources themselves
    return tune.with_resources(PackedTrials, {"cpu": study.trials.cpus_per_worker, "gpu": study.trials.gpus_per_worker})


class PackedTrials(tune.Trainable):
    """A process that runs trial after trial, each as a step of Ray Tune. It starts only once (``reuse_actors``)."""

    def setup(self, config: dict[str, Any]) -> None:
        self.config = config
        count = trials_on(this_node(), config["needs"], config["most_at_once"])
        self.memory = limit_memory(count, config["needs"]["GPU"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        folder = StudyFolder(Path(self.config["study"]))
        job, info = folder.read_plan(self.config["trial"])
        outcome = run_trial(job, info)
        if outcome.status == "out_of_memory":
            outcome = replace(outcome, memory=self.memory)
        if outcome.status != "finished" or job.workers.use_gpu:
            free_memory(device_of(job))  # for the next trial, and for other trials on this GPU
        folder.write_outcome(self.config["trial"], outcome)
        return {"done": True, "status": outcome.status}


class EndOfTrial(tune.Callback):
    """Calls ``on_end`` when a trial has ended. If the process of a trial died, its outcome is made from the error."""

    def __init__(self, folder: StudyFolder, on_end: OnEnd) -> None:
        self.folder = folder
        self.on_end = on_end

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self.on_end(trial.config["trial"])

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        trial_id = trial.config["trial"]
        if self.folder.read_outcome(trial_id) is None:
            self.folder.write_outcome(trial_id, lost_trial_outcome(trial.get_error()))
        self.on_end(trial_id)


def lost_trial_outcome(error: BaseException | None) -> Outcome:
    """The outcome of a trial whose process was lost. The kernel and Ray end processes that use too much memory."""
    is_memory = error is not None and (is_out_of_memory(error) or isinstance(error, ray.exceptions.OutOfMemoryError))
    reason = f"the trial's process was lost: {describe(error or RuntimeError('without an error'))}"
    return Outcome("out_of_memory", reason, memory=0) if is_memory else Outcome("failed", reason)
