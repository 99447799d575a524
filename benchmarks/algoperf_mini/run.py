"""Train on the stand-ins, and keep a line of a CSV file for each run. What the file has is not run again."""

import csv
import json
import math
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks.algoperf_mini.competitors import COMPETITORS, Built, TorchSubmission, build_nadamw
from benchmarks.algoperf_mini.spec import TrainingCompleteError, Workload
from benchmarks.algoperf_mini.table import FIELDS, Run, best, read
from benchmarks.algoperf_mini.workloads import WORKLOADS

SEEDS = (0, 1, 2)
DRAWS = 20
EVALUATIONS = 20  # until ``step_hint``; 15 of them until the end of a run that sets a target
# AlgoPerf's space for NadamW, whose rates end at 1e-2: small models take larger ones.
SPACE = {"lr": (1e-3, 1e-1), "one_minus_beta1": (4e-3, 0.1), "weight_decay": (5e-3, 1.0)}
FIXED = {"beta2": 0.999, "warmup": 0.05}

Planned = tuple[
    tuple[str, str, int], Any, dict[str, Any], bool
]  # key, submission, what was drawn, whether for a target


def run_all(path: Path, workloads: list[str], competitors: list[str]) -> None:
    """Every run of the named workloads and competitors that the file lacks, on one thread."""
    torch.set_num_threads(1)
    for name in workloads:
        workload = WORKLOADS[name]()
        for key, submission, settings, target in chain(target_runs(path, name), competitor_runs(name, competitors)):
            if key in {run.key for run in read(path)}:
                continue
            steps = workload.target_steps if target else workload.max_steps
            if target:
                submission = TorchSubmission(partial(build_for_target, workload, **settings))
            started = time.perf_counter()
            validation, test = train(workload, submission, key[2], steps)
            seconds = round(time.perf_counter() - started, 2)
            every = workload.step_hint // EVALUATIONS
            append(path, Run(*key, json.dumps(settings), steps, every, seconds, tuple(validation), tuple(test)))


def target_runs(path: Path, workload: str) -> Iterator[Planned]:
    """The points that are drawn, with the first seed; then the best of them with the other seeds.

    The best is looked up in the file when the first seed's runs are there, so the caller makes each run before it asks on.
    """
    points = draw_points()
    for number, point in enumerate(points):
        yield (workload, f"target_{number:02}", SEEDS[0]), None, point, True
    drawn = [run for run in read(path) if run.workload == workload and run.optimizer.startswith("target_")]
    number = int(min((run for run in drawn if run.seed == SEEDS[0]), key=best).optimizer.removeprefix("target_"))
    for seed in SEEDS[1:]:
        yield (workload, f"target_{number:02}", seed), None, points[number], True


def competitor_runs(workload: str, competitors: list[str]) -> Iterator[Planned]:
    for name in competitors:
        for seed in SEEDS:
            yield (workload, name, seed), COMPETITORS[name], {}, False


def draw_points() -> list[dict[str, Any]]:
    """Points that fill the space evenly in the logarithm, the same on every workload."""
    shares = torch.quasirandom.SobolEngine(len(SPACE), scramble=True, seed=0).draw(DRAWS).double()
    points = []
    for row in shares.tolist():
        drawn = {
            name: low * (high / low) ** share for share, (name, (low, high)) in zip(row, SPACE.items(), strict=True)
        }
        points.append({name: float(f"{value:.4g}") for name, value in drawn.items()} | FIXED)
    return points


def build_for_target(workload: Workload, model: torch.nn.Module, steps: int, **settings: float) -> Built:
    """NadamW whose schedule ends with the run that sets the target, not at ``step_hint``."""
    return build_nadamw(model, workload.target_steps, **settings)


def train(workload: Workload, submission: Any, seed: int, steps: int) -> tuple[list[float], list[float]]:
    """One run through AlgoPerf's functions. Returns the metric on the validation and test data at each evaluation.

    It ends after ``steps``, when the submission says so, or when the model is not finite any more.
    """
    model, model_state = workload.init_model_fn(seed)
    state = submission.init_optimizer_state(workload, model, model_state, None, seed)
    queue = workload._build_input_queue(seed, "train", "", workload.batch_size)
    every, validation, test = workload.step_hint // EVALUATIONS, [], []
    results: list[tuple[int, float]] = []
    for step in range(steps):
        batch = submission.data_selection(workload, queue, state, model, model_state, None, step, seed)
        try:
            state, model, model_state = submission.update_params(
                workload, model, None, model_state, None, batch, workload.loss_type, state, results, step, seed
            )
        except TrainingCompleteError:
            break
        if (step + 1) % every == 0:
            state, model, model_state = submission.prepare_for_eval(
                workload, model, None, model_state, None, workload.loss_type, state, results, step + 1, seed
            )
            validation.append(workload.evaluate(model, "validation"))
            test.append(workload.evaluate(model, "test"))
            results.append((step + 1, validation[-1]))
            if not math.isfinite(validation[-1]):
                break
    return validation, test


def append(path: Path, run: Run) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(FIELDS)
        writer.writerow(run.as_row())
    print(f"{run.workload:24}{run.optimizer:16}seed {run.seed}{best(run):10.4f}{run.seconds:8.1f} s", flush=True)
