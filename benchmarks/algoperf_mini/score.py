"""AlgoPerf's score from the raw table: targets, steps to them, and integrated performance profiles.

The score of a submission is the integral of its performance profile from ratio 1 to 4, divided by 3. The profile at a ratio
is the share of workloads where the submission took at most that many times the steps of the fastest.
"""

import json
from collections.abc import Mapping
from math import inf, isfinite
from statistics import median

from benchmarks.algoperf_mini.table import Run, best, steps_to

LARGEST_RATIO = 4.0

Steps = dict[str, dict[str, float]]


def find_targets(runs: list[Run]) -> dict[str, tuple[float, dict[str, float]]]:
    """For each workload the target and the drawn point that set it: the median over the seeds of the point whose run
    with the first seed was the best."""
    targets = {}
    for workload in dict.fromkeys(run.workload for run in runs):
        drawn = [run for run in runs if run.workload == workload and run.optimizer.startswith("target_")]
        if not drawn:
            raise ValueError(f"{workload}: the table has no run that sets its target; run it first")
        first = min(run.seed for run in drawn)
        winner = min((run for run in drawn if run.seed == first), key=best)
        repeats = [best(run) for run in drawn if run.optimizer == winner.optimizer]
        targets[workload] = (median(repeats), json.loads(winner.settings))
    return targets


def steps_to_targets(runs: list[Run], targets: Mapping[str, float]) -> Steps:
    """For each competitor and workload the median over the seeds of the steps to the target."""
    found: Steps = {}
    competitors = [run for run in runs if not run.optimizer.startswith("target_")]
    for optimizer in dict.fromkeys(run.optimizer for run in competitors):
        found[optimizer] = {}
        for workload, target in targets.items():
            own = [run for run in competitors if (run.workload, run.optimizer) == (workload, optimizer)]
            found[optimizer][workload] = median(steps_to(run, target) for run in own) if own else inf
    return found


def profile(steps: Steps, submission: str, ratio: float) -> float:
    """The share of workloads where the submission takes at most ``ratio`` times the steps of the fastest."""
    ratios = ratios_to_fastest(steps, submission)
    return sum(value <= ratio for value in ratios) / len(ratios)


def score(steps: Steps, submission: str) -> float:
    """The integral of the profile from 1 to 4 over 3. Each workload adds what is right of its ratio, so it is exact."""
    ratios = ratios_to_fastest(steps, submission)
    return sum(max(0.0, LARGEST_RATIO - value) for value in ratios) / (LARGEST_RATIO - 1) / len(ratios)


def ratios_to_fastest(steps: Steps, submission: str) -> list[float]:
    """Infinite where the target was not reached."""
    ratios = []
    for workload, own in steps[submission].items():
        fastest = min(other[workload] for other in steps.values())
        ratios.append(own / fastest if isfinite(own) else inf)
    return ratios


def score_lines(runs: list[Run]) -> list[str]:
    """The tables of the results as lines of Markdown: scores, steps to the targets, targets, and best values."""
    targets = find_targets(runs)
    steps = steps_to_targets(runs, {workload: target for workload, (target, _) in targets.items()})
    ranking = sorted(steps, key=lambda name: -score(steps, name))
    lines = ["| | score | targets reached | fastest |", "| --- | --- | --- | --- |"]
    for name in ranking:
        reached = sum(map(isfinite, steps[name].values()))
        fastest = sum(ratio == 1 for ratio in ratios_to_fastest(steps, name))
        lines.append(f"| `{name}` | {score(steps, name):.2f} | {reached} of {len(targets)} | {fastest} |")
    header = ["", "| | " + " | ".join(f"`{name}`" for name in ranking) + " |", "| --- |" + " --- |" * len(ranking)]
    lines += [*header]
    for workload in targets:
        cells = (f"{steps[name][workload]:.0f}" if isfinite(steps[name][workload]) else "-" for name in ranking)
        lines.append(f"| {workload} | " + " | ".join(cells) + " |")
    lines += [*header[:1], header[1].replace("| |", "| | target |", 1), header[2] + " --- |"]
    for workload, (target, _) in targets.items():
        cells = (f"{median_best(runs, workload, name):.4f}" for name in ranking)
        lines.append(f"| {workload} | {target:.4f} | " + " | ".join(cells) + " |")
    return lines + ["", *point_lines(runs, targets)]


def median_best(runs: list[Run], workload: str, optimizer: str) -> float:
    return median(best(run) for run in runs if (run.workload, run.optimizer) == (workload, optimizer))


def point_lines(runs: list[Run], targets: Mapping[str, tuple[float, dict[str, float]]]) -> list[str]:
    """The points that set the targets, and which of them have the largest or the smallest rate that was drawn."""
    rates = sorted({json.loads(run.settings)["lr"] for run in runs if run.optimizer.startswith("target_")})
    lines = ["| | learning rate | 1 - beta1 | weight decay | its rank of the rates |", "| --- |" + " --- |" * 4]
    for workload, (_, point) in targets.items():
        rank = f"{rates.index(point['lr']) + 1} of {len(rates)}"
        values = (f"{point[name]:.2g}" for name in ("lr", "one_minus_beta1", "weight_decay"))
        lines.append(f"| {workload} | " + " | ".join(values) + f" | {rank} |")
    ends = [name for name, (_, point) in targets.items() if point["lr"] in (rates[0], rates[-1])]
    return [*lines, "", f"best at an end of the rates drawn: {', '.join(ends) or 'none'}"]
