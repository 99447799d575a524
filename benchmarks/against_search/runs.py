"""The raw table: which runs there are, and one line for each."""

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

ADAMW = "adamw"
RATES, SCHEDULES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), ("constant", "cosine", "warm-up")
SEARCH_SEEDS = (0, 1)  # on which AdamW searches


class Plan(NamedTuple):
    """What is to be trained. ``lr`` and ``schedule`` are those of AdamW; the others have none."""

    task: str
    optimizer: str
    lr: float | None
    schedule: str
    seed: int


class Run(NamedTuple):
    """A plan, and the scores of its last and of its best evaluation."""

    plan: Plan
    last: float
    best: float


class Setting(NamedTuple):
    """What an optimizer is set to."""

    optimizer: str
    lr: float | None
    schedule: str


SEARCH = [Setting(ADAMW, lr, schedule) for lr in RATES for schedule in SCHEDULES]
Scores = dict[Setting, list[Run]]  # of one task


def plans(tasks: Sequence[str], settings: Sequence[Setting], seeds: Sequence[int]) -> Iterator[Plan]:
    for seed in seeds:
        yield from (Plan(task, *setting, seed) for task in tasks for setting in settings)


def by_task(runs: Sequence[Run]) -> dict[str, Scores]:
    """The runs of each setting of each task."""
    found: dict[str, Scores] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        found[run.plan.task][Setting(*run.plan[1:4])].append(run)
    return found


def winners(scores: Scores) -> tuple[Setting, Setting]:
    """The settings of AdamW with the best mean of the last scores and of the best ones, on the seeds of the search."""

    def mean(setting: Setting, name: str) -> float:
        found = [getattr(run, name) for run in scores[setting] if run.plan.seed in SEARCH_SEEDS]
        return sum(found) / len(found)

    searched = [setting for setting in SEARCH if scores.get(setting)]
    last, best = (max(searched, key=lambda setting: mean(setting, name)) for name in ("last", "best"))
    return last, best


def read(file: Path) -> list[Run]:
    """The runs of a raw table; none where there is no file."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return [_of_row(row) for row in csv.DictReader(lines)]


def _of_row(row: dict[str, str]) -> Run:
    lr = float(row["lr"]) if row["lr"] else None
    plan = Plan(row["task"], row["optimizer"], lr, row["schedule"], int(row["seed"]))
    return Run(plan, float(row["last"]), float(row["best"]))


def run_all(file: Path, wanted: Sequence[Plan], processes: int) -> None:
    """Train what the file lacks, each run on one thread, and append it."""
    from benchmarks.against_search.train import run_one

    there = {run.plan for run in read(file)}
    missing = [plan for plan in wanted if plan not in there]
    if not file.exists():
        _append(file, [*Plan._fields, "last", "best"])
    with get_context("spawn").Pool(processes) as pool:
        for number, run in enumerate(pool.imap_unordered(run_one, missing), 1):
            _append(file, [*run.plan, f"{run.last:.3f}", f"{run.best:.3f}"])
            print(f"{number}/{len(missing)} {run}", flush=True)


def _append(file: Path, row: list[object]) -> None:
    with file.open("a", newline="", encoding="utf-8") as lines:
        csv.writer(lines, lineterminator="\n").writerow(row)
