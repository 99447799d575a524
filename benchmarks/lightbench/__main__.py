"""``python -m benchmarks.lightbench run|score [FILE]``: train what the file lacks, or make tables of what it has."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from benchmarks.lightbench.problems import PROBLEMS
from benchmarks.lightbench.table import read, score_lines

RESULTS = Path(__file__).with_name("results.csv")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lightbench", description=__doc__)
    parser.add_argument("action", choices=["run", "score"])
    parser.add_argument("file", nargs="?", type=Path, default=RESULTS, help="the raw table (default: %(default)s)")
    parser.add_argument("--problems", nargs="+", metavar="NAME", choices=PROBLEMS, default=PROBLEMS)
    asked = parser.parse_args()
    if asked.action == "run":
        if missing := [name for name in ("lightbench", "prodigyopt", "schedulefree") if find_spec(name) is None]:
            parser.error(f"not installed: {', '.join(missing)}; pip install 'activelr-service[lightbench,peers]'")
        from benchmarks.lightbench.run import run_all

        run_all(asked.file, asked.problems)
        return
    results = [result for result in read(asked.file) if result.problem in asked.problems]
    if not results:
        parser.error(f"{asked.file}: no runs to score; `run` makes them")
    print("\n".join(score_lines(results)))


if __name__ == "__main__":
    main()
