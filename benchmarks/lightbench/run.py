"""Train on the problems. What the file has is not run again."""

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from activelr_service.optim import ActiveAdamW
from benchmarks.lightbench.problems import CudaIsCpu, Problem, build
from benchmarks.lightbench.table import Result, append, read

STEPS, SEEDS, DRAWS = 1000, (0, 1), 10
# LightBench draws from the first space. The second is where people look for AdamW's.
SPACES = {
    "adamw_wide": {"lr": (1e-7, 100.0), "1mbeta1": (1e-5, 1.0), "1mbeta2": (1e-7, 1.0)},
    "adamw_usual": {"lr": (1e-4, 1.0), "1mbeta1": (0.02, 0.5), "1mbeta2": (1e-3, 0.1)},
}


def competitors() -> dict[str, Callable[[Any], Any]]:
    """Optimizers of one run, at their defaults."""
    from prodigyopt import Prodigy
    from schedulefree import AdamWScheduleFree

    return {
        "active_adamw": lambda params: ActiveAdamW(params, total_steps=STEPS, weight_decay=0.0),
        "adamw": lambda params: torch.optim.AdamW(params, weight_decay=0.0),
        "prodigy": Prodigy,
        "schedule_free": lambda params: AdamWScheduleFree(params, warmup_steps=STEPS // 50),
    }


def draw_points(space: dict[str, tuple[float, float]]) -> list[dict[str, float]]:
    """Ten points, even in the logarithm; the same for every problem."""
    shares = torch.rand(DRAWS, len(space), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [
        {
            name: float(f"{low * (high / low) ** share:.4g}")
            for share, (name, (low, high)) in zip(row, space.items(), strict=True)
        }
        for row in shares.tolist()
    ]


def adamw_at(point: dict[str, float]) -> Callable[[Any], Any]:
    betas = (1 - point["1mbeta1"], 1 - point["1mbeta2"])
    return lambda params: torch.optim.AdamW(params, point["lr"], betas, weight_decay=0.0)


def plan() -> Iterator[tuple[str, int, dict[str, float], Callable[[Any], Any]]]:
    """Every optimizer with its name, draw and settings."""
    for name, make in competitors().items():
        yield name, 0, {}, make
    for name, space in SPACES.items():
        for draw, point in enumerate(draw_points(space)):
            yield name, draw, point, adamw_at(point)


def train(problem: Problem, optimizer: Any, steps: int = STEPS) -> tuple[int, float]:
    """Steps until the problem is won, 0 if it is not, and the smallest loss. A loss that is not finite ends the run."""
    best = math.inf
    for step in range(1, steps + 1):
        set_mode(optimizer, "train")
        optimizer.zero_grad()
        loss = problem.loss()
        value = loss.item()
        if not math.isfinite(value):
            break
        best = min(best, value)
        loss.backward()
        optimizer.step()
        set_mode(optimizer, "eval")
        if problem.win_condition(problem.model, value)[0]:
            return step, best
    return 0, best


def set_mode(optimizer: Any, mode: str) -> None:
    """Schedule-Free trains other weights than those that it hands out."""
    if hasattr(optimizer, mode):
        getattr(optimizer, mode)()


def run_all(path: Path, problems: list[str]) -> None:
    """Every run that the file lacks, on one thread, a line of the file each."""
    torch.set_num_threads(1)
    known = {result.key for result in read(path)}
    for problem in problems:
        for name, draw, point, make in plan():
            for seed in SEEDS:
                if (problem, name, draw, seed) not in known:
                    append(path, run_one(problem, name, draw, seed, point, make))
        print(problem, flush=True)


def run_one(
    problem: str, name: str, draw: int, seed: int, point: dict[str, float], make: Callable[[Any], Any]
) -> Result:
    started = time.perf_counter()
    with CudaIsCpu():
        built = build(problem, seed)
        torch.manual_seed(seed)
        won_at, best = train(built, make(built.model.parameters()))
    seconds = round(time.perf_counter() - started, 2)
    return Result(problem, name, draw, seed, json.dumps(point), won_at, float(f"{best:.5g}"), seconds)
