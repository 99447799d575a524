"""The trials of a study: the product of its workloads, optimizers, sweeps and seeds. Nothing is run here."""

import copy
import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from activelr_service.config import StudyJob, TrainJob, parse_job
from activelr_service.config.optimizer import OPTIMIZER_CONFIGS
from activelr_service.config.study import RandomSearchConfig
from activelr_service.errors import JobError, Location, Problem

LR, BATCH_SIZE = "optimizer.lr", "global_batch_size"
SEARCHED = "adamw"  # the optimizer of a random search
SEARCHED_LABEL, BEST = f"{SEARCHED} (random)", f"{SEARCHED} (best of "  # of its trials, and of the winner's
ONLY = "only"  # the key of a sweep that lists the types of the optimizers which it is for
# Keys that jobs got after studies were run, with their defaults. A default is left out of the id of a trial, so that an
# older study folder keeps its trials.
ADDED_KEYS: dict[str, Any] = {
    "budget": None,
    "warmup": 0.0,
    "hold": 0.03,
    "bfloat16_sums_from": 1024,
    **dict.fromkeys(("metric", "class_weights")),
    **dict.fromkeys(("weights", "freeze")),
    **dict.fromkeys(("augment", "crop_share", "interpolation", "mean", "squash", "std")),
    "log_every": {"steps": None, "minutes": 0.5},
    "evaluate_every": None,
    "checkpoint_every": {"steps": None, "minutes": 10.0},
    "early_stop": None,
    "test_fraction": None,
    "test_path": None,
    "hold_out_test": False,
    "val_fraction": None,
    "system_metrics": False,
}


@dataclass(frozen=True)
class Trial:
    """One training of a study.

    - ``id``: a hash of all that the training depends on. A changed study finds the trials that it shares with the old one;
    - ``workload``: the name of its workload;
    - ``optimizer``: the label of its optimizer, see :func:`optimizer_label`;
    - ``settings``: the swept values by path, without the learning rate and the batch size;
    - ``job``: the training job;
    - ``random_trial``: its number in the random search of its workload, from 1; 0 if it is not of a search.
    """

    id: str
    workload: str
    optimizer: str
    settings: dict[str, Any]
    job: TrainJob
    random_trial: int = 0

    def describe(self) -> str:
        """One line for a log: workload, optimizer, learning rate, batch size and seed."""
        lr = f"lr {self.job.optimizer.lr:g}" if self.job.optimizer.lr is not None else "no lr"
        batch = f", batch {self.job.global_batch_size}" if self.job.global_batch_size else ""
        return f"{self.workload}, {self.optimizer}, {lr}{batch}, seed {self.job.seed}"


class _Point(NamedTuple):
    """One point in the grid of a study: the values, and the places in the file where they are written."""

    workload: str
    optimizer: dict[str, Any]
    optimizer_at: Location
    values: dict[str, Any]
    sweep_at: Location
    seed: int
    random_trial: int = 0


def make_trials(study: StudyJob) -> list[Trial]:
    """The trials of a study, each once.

    Raises :class:`JobError`, with the place in the file, for a value that a training job does not take.
    """
    _check_paths(study)
    trials = (_make_trial(study, point) for point in itertools.chain(_points(study), _random_points(study)))
    by_id: dict[str, Trial] = {}
    for trial in trials:
        by_id.setdefault(trial.id, trial)
    return list(by_id.values())


def _points(study: StudyJob) -> Iterator[_Point]:
    entries = [(("optimizers", index), entry, True) for index, entry in enumerate(study.optimizers)]
    entries += [(("baselines", index), entry, False) for index, entry in enumerate(study.baselines)]
    for workload, (at, entry, is_swept) in itertools.product(study.workloads, entries):
        sweeps = list(enumerate(study.sweeps))
        own = [(index, sweep) for index, sweep in sweeps if entry["type"] in sweep.get(ONLY, [entry["type"]])]
        for index, sweep in own or [(0, {})]:  # without a sweep for it, an optimizer is run once with its own settings
            taken = {path: values for path, values in sweep.items() if _takes(entry, path, is_swept)}
            for values in itertools.product(*taken.values()):
                for seed in study.seeds:
                    point = dict(zip(taken, values, strict=True))
                    yield _Point(workload, entry, at, point, ("sweeps", index), seed)


def _random_points(study: StudyJob) -> Iterator[_Point]:
    """The trials of the random search, which have a seed that no other trial has."""
    search = study.random_search
    if search is None:
        return
    at, seed = ("random_search",), (max(study.seeds) + 1) % 2**31
    for workload, number in itertools.product(study.workloads, range(1, search.trials + 1)):
        entry = {"type": SEARCHED, "label": SEARCHED_LABEL, **draw_settings(search, number)}
        yield _Point(workload, entry, at, {}, at, seed, number)


def draw_settings(search: RandomSearchConfig, number: int) -> dict[str, Any]:
    """The settings of trial ``number`` of a search. They depend on the number and the seed of the draw only."""
    draw = np.random.default_rng([search.draw, number])
    low, high = math.log(search.lr_from), math.log(search.lr_to)
    return {
        "lr": float(f"{math.exp(draw.uniform(low, high)):.6g}"),
        "weight_decay": float(f"{math.exp(draw.uniform(math.log(1e-3), math.log(0.3))):.6g}"),
        "betas": [float(draw.choice(values)) for values in ((0.8, 0.9, 0.95), (0.95, 0.99, 0.999))],
        "schedule": str(draw.choice(["constant", "cosine"])),
        "warmup": float(draw.choice([0.0, 0.02, 0.05, 0.1])),
    }


def trial_of_winner(winner: Trial, seed: int, trials: int) -> Trial:
    """The trial with the settings of the winner of a random search of so many ``trials``, and with another seed."""
    job = winner.job.model_copy(update={"seed": seed})
    return Trial(_hash(job), winner.workload, f"{BEST}{trials})", {}, job)


def _takes(entry: dict[str, Any], path: str, is_swept: bool) -> bool:
    """Whether an optimizer is swept over ``path``. It must have this setting; a baseline keeps its own settings."""
    if path == ONLY:
        return False
    if path == BATCH_SIZE and _is_full_batch(entry):
        return False
    key = path.removeprefix("optimizer.")
    return key == path or (is_swept and _has_setting(entry, key))


def _is_full_batch(entry: dict[str, Any]) -> bool:
    """Whether the optimizer takes the whole training set in every step."""
    known = OPTIMIZER_CONFIGS.get(entry["type"])
    return known is not None and known.full_batch


def _has_setting(entry: dict[str, Any], key: str) -> bool:
    known = OPTIMIZER_CONFIGS.get(entry["type"])
    if known is not None and known.model_fields["lr"].annotation is type(None) and key == "lr":
        return False
    return known is None or key.split(".", maxsplit=1)[0] in known.model_fields


def _make_trial(study: StudyJob, point: _Point) -> Trial:
    data = copy.deepcopy(study.workloads[point.workload])
    optimizer = {key: value for key, value in point.optimizer.items() if key != "label"}
    data |= {"kind": "train", "name": point.workload, "seed": point.seed, "optimizer": optimizer}
    if _is_full_batch(optimizer):
        data.pop(BATCH_SIZE, None)
    for path, value in point.values.items():
        _set(data, path.split("."), value)
    try:
        job = parse_job(data)
    except JobError as error:
        raise JobError([_where_written(problem, point) for problem in error.problems]) from None
    if job.duration.seconds is not None:
        text = "a trial must not depend on how busy the machine is; give epochs or budget.steps"
        raise JobError([_where_written(Problem(("budget", "time"), text), point)])
    if job.early_stop is not None:
        text = "leave it out: the trials of a study take their whole length, so that they can be compared"
        raise JobError([_where_written(Problem(("early_stop",), text), point)])
    job = _complete(job, study)
    settings = {path: value for path, value in point.values.items() if path not in (LR, BATCH_SIZE)}
    label = optimizer_label(point.optimizer, settings)
    return Trial(_hash(job), point.workload, label, settings, job, point.random_trial)


def _complete(job: TrainJob, study: StudyJob) -> TrainJob:
    """The job with the workers of the study, and with the defaults of all that a sweep may set.

    A sweep that names the default value then gives the same trial as a study without this sweep.
    """
    lr = job.optimizer.lr if job.optimizer.lr is not None else job.optimizer.default_lr
    trials = study.trials
    workers = {
        "num_workers": trials.num_workers,
        "cpus_per_worker": trials.cpus_per_worker,
        "use_gpu": trials.gpus_per_worker > 0,
    }
    return job.model_copy(
        update={
            "optimizer": job.optimizer.model_copy(update={"lr": lr}),
            "grad_accum_steps": 1 if job.grad_accum_steps is None else job.grad_accum_steps,
            "workers": job.workers.model_copy(update=workers),
            "tracking": study.tracking,
            "output_dir": study.output_dir,
        }
    )


def optimizer_label(entry: dict[str, Any], settings: dict[str, Any]) -> str:
    """The name of an optimizer in a study: ``adamw``, or with its own settings ``adamw (schedule=cosine)``.

    An entry with a ``label`` has this label instead of the type and its own settings.
    """
    known = OPTIMIZER_CONFIGS.get(entry["type"])
    defaults = {} if known is None else {name: field.default for name, field in known.model_fields.items()}
    own = {key: value for key, value in entry.items() if key not in ("type", "lr", "label") and "label" not in entry}
    own |= {path.removeprefix("optimizer."): value for path, value in settings.items()}
    listed = ", ".join(f"{key}={value}" for key, value in own.items() if key not in defaults or value != defaults[key])
    name = entry.get("label", entry["type"])
    return f"{name} ({listed})" if listed else name


def _check_paths(study: StudyJob) -> None:
    """Raise :class:`JobError` for a sweep over a setting, or for a type, that no optimizer of the study has."""
    swept, types = _types(study.optimizers), _types([*study.optimizers, *study.baselines])
    for index, sweep in enumerate(study.sweeps):
        for path in sweep.keys() - {ONLY}:
            if not any(_takes(entry, path, True) for entry in study.optimizers):
                text = f"no optimizer of this study has this setting: {', '.join(swept)}"
                raise JobError([Problem(("sweeps", index, path), text)])
        for name in sweep.get(ONLY, []):
            if name not in types:
                text = f"no optimizer of this study has the type {name!r}: {', '.join(types)}"
                raise JobError([Problem(("sweeps", index, ONLY), text)])


def _types(entries: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(entry["type"] for entry in entries))


def _set(data: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            return  # the check of the job reports this error
    data[keys[-1]] = value


def _where_written(problem: Problem, point: _Point) -> Problem:
    """The problem of a trial's job, with the place in the study where the value is written."""
    for path in point.values:
        keys = tuple(path.split("."))
        if problem.location[: len(keys)] == keys:
            return Problem((*point.sweep_at, path), problem.message)
    if problem.location[:1] == ("optimizer",):
        return Problem((*point.optimizer_at, *problem.location[1:]), problem.message)
    return Problem(("workloads", point.workload, *problem.location), problem.message)


def _hash(job: TrainJob) -> str:
    data = _without_added_keys(job.model_dump(mode="json", exclude={"tracking", "output_dir"}))
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def _without_added_keys(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_added_keys(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key not in ADDED_KEYS or value != ADDED_KEYS[key]
    }
