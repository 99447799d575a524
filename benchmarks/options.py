"""milliseconds of a training step of ResNet-18, 32 images of 64 x 64, under the options of a job"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from activelr_service.config import CompleteJob, parse_job
from activelr_service.data import inspect_data
from activelr_service.service.resolve import Resources, resolve_job
from activelr_service.training.build import build_training
from activelr_service.training.evaluate import MetricAccumulator
from activelr_service.training.loop import train_step
from activelr_service.training.optimizers import begin_step

ROUNDS = 7
JOB = {
    "kind": "train",
    "name": "options",
    "model": {"type": "torchvision", "name": "resnet18"},
    "data": {"type": "digits", "image_size": 64},
    "epochs": 1,
    "global_batch_size": 32,
    "workers": {"num_workers": 1, "use_gpu": torch.cuda.is_available()},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "precision: bfloat16": {"precision": "bfloat16"},
    "channels_last: true": {"channels_last": True},
    "both": {"precision": "bfloat16", "channels_last": True},
    "compile: true": {"compile": True},
}


def measure() -> dict[str, float]:
    """Rounds of one step each, in turn, after two that warm up and compile. The median of the rounds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = {}
    for name, options in OPTIONS.items():
        try:
            steps[name] = make_step({**JOB, **options}, device)
        except Exception as error:
            if not options:
                raise
            print(f"{name:22}not measured: {str(error).splitlines()[0]}")
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            times[name].append(timed(step))
    figures = {name: 1000 * median(taken) for name, taken in times.items()}
    plain = figures["as it is"]
    return figures | {f"{name}, times as it is": value / plain for name, value in figures.items() if OPTIONS[name]}


def make_step(job: dict[str, Any], device: torch.device) -> Callable[[], None]:
    """A function that takes one training step of the job; two were taken to warm up."""
    checked = parse_job(job)
    info = inspect_data(checked.data)
    resources = Resources(2, torch.cuda.device_count())
    complete = resolve_job(checked, info, resources)[0]
    assert isinstance(complete, CompleteJob)
    training = build_training(complete, info, device)
    totals = MetricAccumulator((*training.task.sum_names, "grad_norm"), device)
    batch = next(iter(training.train_loader))
    training.replica.train()

    def step() -> None:
        begin_step(training.optimizer, "constant", 0.0, 0.5)
        train_step(training, iter([batch]), totals, 0)

    for _ in range(2):
        step()
    return step


def timed(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
