"""The raw table, a line for each run, and what is read from it."""

import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """One training run.

    Attributes:
        problem: a module of LightBench.
        optimizer: a competitor of one run, or a search.
        draw: which of the search's points; 0 for a competitor of one run.
        seed: of the weights and the data.
        settings: JSON of what was drawn.
        won_at: the step whose loss met LightBench's condition; 0 if none did.
        best: the smallest loss of a step.
        seconds: of the run.
    """

    problem: str
    optimizer: str
    draw: int
    seed: int
    settings: str
    won_at: int
    best: float
    seconds: float

    @property
    def key(self) -> tuple[str, str, int, int]:
        return self.problem, self.optimizer, self.draw, self.seed


def append(path: Path, result: Result) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Result)], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(asdict(result))


def read(path: Path) -> list[Result]:
    """All runs of a file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [Result(**{f.name: KINDS[f.type](row[f.name]) for f in fields(Result)}) for row in csv.DictReader(file)]


KINDS: dict[Any, Callable[[str], Any]] = {kind: kind for kind in (str, int, float)}


def wins(results: list[Result], problem: str, optimizer: str) -> list[int]:
    """For each draw the steps to the win, of the seed that took longest; 0 for a draw that some seed did not win."""
    own = [result for result in results if (result.problem, result.optimizer) == (problem, optimizer)]
    by_draw = {
        draw: [result.won_at for result in own if result.draw == draw] for draw in {result.draw for result in own}
    }
    return [max(steps) if all(steps) else 0 for steps in by_draw.values()]


def score_lines(results: list[Result]) -> list[str]:
    """Two tables in Markdown: problems won by each optimizer, and the steps to each win."""
    seen = list(dict.fromkeys(result.problem for result in results))
    optimizers = list(dict.fromkeys(result.optimizer for result in results))
    problems = [problem for problem in seen if all(wins(results, problem, name) for name in optimizers)]
    won = {name: {problem: wins(results, problem, name) for problem in problems} for name in optimizers}
    lines = ["| | runs a problem | won by the best run | won by one run on average |", "| --- | --- | --- | --- |"]
    for name, draws in won.items():
        share = sum(sum(map(bool, steps)) / len(steps) for steps in draws.values())
        count = max(map(len, draws.values()))
        lines.append(f"| `{name}` | {count} | {sum(map(any, draws.values()))} of {len(problems)} | {share:.1f} |")
    lines += [
        "",
        "| | " + " | ".join(f"`{name}`" for name in optimizers) + " |",
        "| --- |" + " --- |" * len(optimizers),
    ]
    for problem in problems:
        lines.append(f"| {problem} | " + " | ".join(cell(won[name][problem]) for name in optimizers) + " |")
    unfinished = [problem for problem in seen if problem not in problems]
    return lines + ([f"left out, as not every optimizer has run: {', '.join(unfinished)}"] if unfinished else [])


def cell(steps: list[int]) -> str:
    """The steps of the fastest win, and of a search how many of its points win."""
    winning = [value for value in steps if value]
    fastest = str(min(winning)) if winning else "-"
    return f"{fastest} ({len(winning)} of {len(steps)})" if len(steps) > 1 and winning else fastest
