"""``python -m benchmarks.any_direction``: how many steps to the loss of the best AdamW, for ActiveAdamW and ActiveMuon.

AdamW searches: six rates, each constant and with a cosine, in runs of the task's length. The lowest held-out loss after the
last step, mean over the seeds, is the target. The others have nothing to search. They train runs of several lengths, and the
length that reaches the target is read off the line between the two lengths around it.

Runs go to ``any_direction.csv`` as they end, and one that stands there is not repeated. So a call that was stopped goes on,
and a call after the last run prints the table. All runs take about 20 minutes on one core.
"""

import csv
import functools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, nn

from activelr_service.optim import ActiveAdamW, ActiveMuon, muon_groups
from benchmarks.small_tasks import TASKS, Task

RESULTS = Path(__file__).with_name("any_direction.csv")
SEEDS = (0, 1)
RATES, SCHEDULES = (5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2), ("constant", "cosine")
SHARES = (0.4, 0.55, 0.75, 1.0, 1.35, 1.8)  # of a task's steps: lengths of runs of the others, shortest first
ACTIVE = ("ActiveAdamW", "ActiveMuon")


class Run(NamedTuple):
    """One run. ``lr`` and ``schedule`` are those of AdamW, and empty of the others."""

    task: str
    optimizer: str
    lr: str
    schedule: str
    steps: int
    seed: int


Losses = dict[Run, float]


def main() -> None:
    """Train what is missing, and print the table."""
    torch.set_num_threads(1)
    losses = read_results()
    print("\n".join(table(losses)))


def read_results() -> Losses:
    if not RESULTS.exists():
        return {}
    with RESULTS.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {
        Run(task, optimizer, lr, schedule, int(steps), int(seed)): float(loss)
        for task, optimizer, lr, schedule, steps, seed, loss, _ in rows
    }


def mean_loss(run: Run, losses: Losses) -> float:
    """The held-out loss of a run, mean over the seeds. Trains what is missing, and writes it down."""
    for seed in SEEDS:
        seeded = run._replace(seed=seed)
        if seeded not in losses:
            start = time.process_time()
            losses[seeded] = train(seeded)
            write_result(seeded, losses[seeded], time.process_time() - start)
    return sum(losses[run._replace(seed=seed)] for seed in SEEDS) / len(SEEDS)


def write_result(run: Run, loss: float, seconds: float) -> None:
    is_new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow([*Run._fields, "loss", "cpu_seconds"])
        writer.writerow([*run, f"{loss:.5f}", f"{seconds:.1f}"])
    print(*run, f"{loss:.4f}", f"{seconds:.1f} s", flush=True)


def train(run: Run) -> float:
    """Train a task from a seed. Returns the held-out loss after the last step, in nats; infinity if it is not finite."""
    task = {task.name: task for task in TASKS}[run.task]
    torch.manual_seed(run.seed)
    model = task.build()
    optimizer = make_optimizer(run, model)
    rng = Generator().manual_seed(1000 + run.seed)
    for step in range(run.steps):
        inputs, targets = task.draw(rng)
        loss = task.loss(model(inputs), targets)
        loss.backward()
        if run.schedule == "cosine":
            optimizer.param_groups[0]["lr"] = float(run.lr) * 0.5 * (1 + math.cos(math.pi * step / run.steps))
        optimizer.step()
        optimizer.zero_grad()
    return held_out_loss(task, model)


def make_optimizer(run: Run, model: nn.Module) -> torch.optim.Optimizer:
    if run.optimizer == "AdamW":
        return torch.optim.AdamW(model.parameters(), lr=float(run.lr))
    if run.optimizer == "ActiveMuon":
        return ActiveMuon(muon_groups(model), total_steps=run.steps)
    return ActiveAdamW(model.parameters(), total_steps=run.steps)


@torch.no_grad()
def held_out_loss(task: Task, model: nn.Module) -> float:
    model.eval()
    inputs, targets = task.held_out()
    loss = task.loss(model(inputs), targets).item()
    return loss if math.isfinite(loss) else math.inf


def best_adamw(task: Task, losses: Losses) -> tuple[Run, float]:
    """The run of AdamW with the lowest loss, mean over the seeds, and this loss."""
    runs = [Run(task.name, "AdamW", str(lr), each, task.steps, 0) for lr in RATES for each in SCHEDULES]
    best = min(runs, key=functools.partial(mean_loss, losses=losses))
    return best, mean_loss(best, losses)


def steps_to_target(task: Task, optimizer: str, target: float, losses: Losses) -> float:
    """How many steps a run needs to end at a loss, as a share of the task's: infinity where the longest does not reach it.

    Logarithms of the lengths are interpolated. Where the shortest run reaches it, its length is the answer.
    """
    before: tuple[float, float] | None = None
    for share in SHARES:
        loss = mean_loss(Run(task.name, optimizer, "", "", round(share * task.steps), 0), losses)
        if loss <= target:
            if before is None:
                return share
            shorter, higher = before
            return share * (shorter / share) ** ((target - loss) / (higher - loss))
        before = share, loss
    return math.inf


def table(losses: Losses) -> Iterator[str]:
    """The table in Markdown: how many times fewer steps than the best AdamW, and the geometric means. Trains what is
    missing."""
    yield f"| task | steps | best AdamW of {len(RATES) * len(SCHEDULES)} | its loss | {' | '.join(ACTIVE)} |"
    yield "| --- | --- | --- | --- |" + " --- |" * len(ACTIVE)
    shares: dict[str, list[float]] = {name: [] for name in ACTIVE}
    for task in TASKS:
        best, loss = best_adamw(task, losses)
        for name in ACTIVE:
            shares[name].append(steps_to_target(task, name, loss, losses))
        found = " | ".join(as_ratio(shares[name][-1]) for name in ACTIVE)
        yield f"| {task.name} | {task.steps} | {best.lr}, {best.schedule} | {loss:.3f} | {found} |"
    yield f"| geometric mean | | | | {' | '.join(f'{geometric_mean(each):.2f}' for each in shares.values())} |"


def geometric_mean(shares: list[float]) -> float:
    """Of the factors. One outside of what was trained counts as its bound."""
    return math.exp(-sum(math.log(min(share, SHARES[-1])) for share in shares) / len(shares))


def as_ratio(share: float) -> str:
    """A share of the steps as a factor; a bound where it lies outside of what was trained."""
    if math.isinf(share):
        return f"< {1 / SHARES[-1]:.2f}"
    return f"> {1 / share:.2f}" if share == SHARES[0] else f"{1 / share:.2f}"


if __name__ == "__main__":
    main()
