"""``python -m benchmarks.algoperf_mini run|score [FILE]``: train what the file lacks, or score what it has."""

import argparse
from pathlib import Path

from benchmarks.algoperf_mini.score import score_lines
from benchmarks.algoperf_mini.table import read

RESULTS = Path(__file__).with_name("results.csv")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.algoperf_mini", description=__doc__)
    parser.add_argument("action", choices=["run", "score"])
    parser.add_argument("file", nargs="?", type=Path, default=RESULTS, help="the raw table (default: %(default)s)")
    parser.add_argument("--workloads", nargs="+", metavar="NAME", help="of these only (default: all nine)")
    parser.add_argument("--competitors", nargs="+", metavar="NAME", help="run these only (default: all)")
    asked = parser.parse_args()
    if asked.action == "score":
        runs = [run for run in read(asked.file) if not asked.workloads or run.workload in asked.workloads]
        if not runs:
            parser.error(f"{asked.file}: no runs to score; `run` makes them")
        print("\n".join(score_lines(runs)))
        return
    from benchmarks.algoperf_mini.competitors import COMPETITORS
    from benchmarks.algoperf_mini.run import run_all
    from benchmarks.algoperf_mini.workloads import WORKLOADS

    for names, known in ((asked.workloads, WORKLOADS), (asked.competitors, COMPETITORS)):
        if unknown := set(names or ()) - set(known):
            parser.error(f"no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    run_all(asked.file, asked.workloads or [*WORKLOADS], asked.competitors or [*COMPETITORS])


if __name__ == "__main__":
    main()
