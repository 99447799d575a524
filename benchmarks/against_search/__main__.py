"""``python -m benchmarks.against_search run|score [FILE]``: train what the file lacks, or score what it has."""

import argparse
from pathlib import Path

from benchmarks.against_search import deciding, judging
from benchmarks.against_search.runs import SEARCH, SEARCH_SEEDS, Setting, by_task, plans, read, run_all, winners
from benchmarks.against_search.score import ACTIVE, score_lines

RESULTS = Path(__file__).with_name("results.csv")
GROUPS = {"deciding": deciding.TASKS, "judging": judging.TASKS}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against_search", description=__doc__)
    parser.add_argument("action", choices=["run", "score"])
    parser.add_argument("file", nargs="?", type=Path, default=RESULTS, help="the raw table (default: %(default)s)")
    parser.add_argument("--tasks", choices=GROUPS, default="judging", help="(default: %(default)s)")
    parser.add_argument(
        "--seeds", type=int, default=3, help="of the default and of AdamW's winners (default: %(default)s)"
    )
    parser.add_argument(
        "--optimizers", nargs="+", choices=ACTIVE, default=["active_adamw"], help="(default: %(default)s)"
    )
    parser.add_argument("--processes", type=int, default=1, help="runs at a time (default: %(default)s)")
    asked = parser.parse_args()
    tasks = {task.name: task.half_a_point for task in GROUPS[asked.tasks]}
    if asked.action == "run":
        search(asked.file, [*tasks], asked.optimizers, asked.seeds, asked.processes)
    if not (runs := [run for run in read(asked.file) if run.plan.task in tasks]):
        parser.error(f"{asked.file}: no runs of these tasks; `run` makes them")
    print("\n".join(score_lines(runs, tasks)))


def search(file: Path, tasks: list[str], optimizers: list[str], seeds: int, processes: int) -> None:
    """All settings of AdamW on the seeds of the search; then its winners, and what needs no settings, on all seeds."""
    run_all(file, [*plans(tasks, SEARCH, SEARCH_SEEDS)], processes)
    wanted = [*plans(tasks, [Setting(name, None, "") for name in optimizers], range(seeds))]
    scores = by_task(read(file))
    for task in tasks:
        wanted += plans([task], [*dict.fromkeys(winners(scores[task]))], range(seeds))
    run_all(file, wanted, processes)


if __name__ == "__main__":
    main()
