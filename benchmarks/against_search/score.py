"""The tables: the default against the best of the search, in the last evaluation and in the best."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.against_search.runs import Run, Scores, Setting, by_task, winners

Floats = NDArray[np.float64]
ACTIVE = ("active_adamw", "active_sgd", "active_muon")


def score_lines(runs: list[Run], tasks: dict[str, float]) -> list[str]:
    """A table of tasks, and how each optimizer did on all of them. ``tasks`` gives, by name, the difference that counts."""
    scores = {task: found for task, found in by_task(runs).items() if task in tasks}
    active = [name for name in ACTIVE if all(Setting(name, None, "") in found for found in scores.values())]
    head = ["task", "AdamW: last", "best", *(f"`{name}`: {end}" for name in active for end in ("last", "best"))]
    lines = [row(head), "| --- " * len(head) + "|"]
    lines += [row([task, *cells(found, active)]) for task, found in scores.items()]
    return [*lines, "", *(summary(name, scores, tasks) for name in active)]


def cells(scores: Scores, active: list[str]) -> list[str]:
    """Means of one task; of an optimizer without settings the difference to AdamW, and its standard error."""
    searched = of_winners(scores)
    found = [f"{np.mean(values):.1f}" for values in searched]
    for name in active:
        for ours, theirs in zip(of_active(scores, name), searched, strict=True):
            found.append(f"{np.mean(ours) - np.mean(theirs):+.1f} ± {error_of(ours, theirs):.1f}")
    return found


def row(found: list[str]) -> str:
    return f"| {' | '.join(found)} |"


def summary(name: str, scores: dict[str, Scores], tasks: dict[str, float]) -> str:
    """On how many tasks it is not below the search by more than the difference that counts, and by how much on the mean."""
    parts = []
    for number, end in enumerate(("last", "best")):
        ahead = {task: difference(found, name, number) for task, found in scores.items()}
        kept = sum(value >= -tasks[task] for task, value in ahead.items())
        mean = np.mean([np.clip(value / tasks[task] / 2, -10, 10) for task, value in ahead.items()])
        parts.append(f"{end}: not behind on {kept} of {len(scores)}, {mean:+.2f} points on the mean")
    return f"- `{name}`, {'; '.join(parts)}"


def difference(scores: Scores, name: str, number: int) -> float:
    return float(np.mean(of_active(scores, name)[number]) - np.mean(of_winners(scores)[number]))


def of_winners(scores: Scores) -> tuple[Floats, Floats]:
    """The last scores of the setting that is best in its last, and the best scores of the one that is best in those."""
    last, best = winners(scores)
    return np.array([run.last for run in scores[last]]), np.array([run.best for run in scores[best]])


def of_active(scores: Scores, name: str) -> tuple[Floats, Floats]:
    found = scores[Setting(name, None, "")]
    return np.array([run.last for run in found]), np.array([run.best for run in found])


def error_of(ours: Floats, theirs: Floats) -> float:
    """The standard error of the difference of two means."""
    return float(np.sqrt(sum(values.var(ddof=1) / len(values) for values in (ours, theirs))))
