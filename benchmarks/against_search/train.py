"""One run of a task, by one optimizer."""

import math
from collections.abc import Callable

import torch
from torch import Generator, nn

from activelr_service.optim import ActiveAdamW, ActiveMuon, ActiveSGD, muon_groups
from benchmarks.against_search import deciding, judging
from benchmarks.against_search.runs import Plan, Run
from benchmarks.against_search.task import Task

TASKS = {task.name: task for task in (*deciding.TASKS, *judging.TASKS)}
ACTIVE = {"active_adamw": ActiveAdamW, "active_sgd": ActiveSGD, "active_muon": ActiveMuon}
EVALUATIONS = 10  # in a run, at equal distances, the last after the last step
WARM_UP = 0.1  # share of the steps


def run_one(plan: Plan) -> Run:
    """Train as planned, on one thread."""
    torch.set_num_threads(1)
    make = active(plan.optimizer) if plan.lr is None else adamw_at(plan.lr)
    scores = train(TASKS[plan.task], make, plan.schedule, plan.seed)
    return Run(plan, scores[-1], max(scores))


def train(task: Task, make: Callable[[nn.Module, int], torch.optim.Optimizer], schedule: str, seed: int) -> list[float]:
    """Train from a seed, and return the scores of all evaluations. Those that are not finite are minus infinity."""
    torch.manual_seed(seed)
    model = task.build()
    optimizer = make(model, task.steps)
    lr = optimizer.param_groups[0].get("lr")
    rng = Generator().manual_seed(1000 + seed)
    scores = []
    for step in range(task.steps):
        inputs, targets = task.draw(rng)
        task.loss(model(inputs), targets).backward()
        if schedule:
            optimizer.param_groups[0]["lr"] = lr * factor(schedule, step / task.steps)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) * EVALUATIONS // task.steps > step * EVALUATIONS // task.steps:
            scores.append(evaluate(task, model))
    return scores


def factor(schedule: str, done: float) -> float:
    """What multiplies the learning rate."""
    if schedule == "constant":
        return 1.0
    rise = min(1.0, (done + 1e-2) / WARM_UP) if schedule == "warm-up" else 1.0
    return rise * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def evaluate(task: Task, model: nn.Module) -> float:
    model.eval()
    inputs, targets = task.held_out()
    score = task.score(model(inputs), targets)
    model.train()
    return score if math.isfinite(score) else -math.inf


def adamw_at(lr: float) -> Callable[[nn.Module, int], torch.optim.Optimizer]:
    return lambda model, steps: torch.optim.AdamW(model.parameters(), lr, fused=True)


def active(name: str) -> Callable[[nn.Module, int], torch.optim.Optimizer]:
    if name == "active_muon":
        return lambda model, steps: ActiveMuon(muon_groups(model), total_steps=steps)
    return lambda model, steps: ACTIVE[name](model.parameters(), total_steps=steps)
