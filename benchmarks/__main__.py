"""``python -m benchmarks [--save] [NAME ...]``: every figure, or those of the named benchmarks, beside the baseline's.

The baseline is one run, in ``baseline.json``, on the machine that is named there. ``--save`` replaces what was measured. At
the end stands what is worse than the baseline: ratios and bytes, which another machine should have too; times and rates only
where the machine is the baseline's.
"""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from activelr_service.optim.fused import describe_step
from benchmarks import bookkeeping, epoch, loaders, options, start, step, study, within

BENCHMARKS = {
    module.__name__.rpartition(".")[2]: module
    for module in (step, epoch, bookkeeping, within, start, options, loaders, study)
}
BASELINE = Path(__file__).with_name("baseline.json")

TOLERANCE = 0.15  # a figure that is worse by less is noise
RATIO = ", times "  # in the label of a figure that was measured beside another
HIGHER_IS_BETTER = ("loaders", "study")  # benchmarks whose figures are rates

Figures = dict[str, float]


def main() -> None:
    """Measure, print each figure as soon as its benchmark has ended, and save them if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--save", action="store_true", help="make what is measured now the baseline")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    baseline: dict[str, Any] = {"machine": "", "figures": {}}
    if BASELINE.exists():
        baseline = json.loads(BASELINE.read_text())
    print(f"optimizer step: {describe_step()}")
    print(f"now on {machine()}\nbaseline on {baseline['machine'] or 'no machine: it is empty'}")
    is_same_machine = baseline["machine"] == machine()
    worse: list[str] = []
    measured = compared = 0
    for name in asked.names or BENCHMARKS:
        print(f"\n{name}: {BENCHMARKS[name].__doc__}", flush=True)
        figures, before = BENCHMARKS[name].measure(), baseline["figures"].get(name, {})
        print("\n".join(compare(figures, before)), flush=True)
        before = {label: value for label, value in before.items() if is_same_machine or is_portable(label)}
        measured += len(figures)
        compared += len(figures.keys() & before.keys())
        worse += [f"{name}: {line}" for line in fell_back(figures, before, name in HIGHER_IS_BETTER)]
        if asked.save:
            baseline["machine"] = machine()
            baseline["figures"][name] = {label: float(f"{value:.4g}") for label, value in figures.items()}
            BASELINE.write_text(json.dumps(baseline, indent=1) + "\n")
    print("\n".join(["", *conclude(worse, compared, measured)]))


def conclude(worse: list[str], compared: int, measured: int) -> list[str]:
    """The last lines: what fell back, or that nothing did, and how many figures had nothing to be compared with."""
    found = f"{len(worse)} fell back by more than {TOLERANCE:.0%}:" if worse else f"none fell back by {TOLERANCE:.0%}"
    rest = "the others are not in it, or are times of another machine"
    return [f"{compared} of {measured} figures were compared with the baseline ({rest}): {found}", *worse]


def is_portable(label: str) -> bool:
    """Whether a figure can be compared with that of another machine."""
    return RATIO in label or label.endswith(", state")


def fell_back(figures: Figures, before: Figures, higher_is_better: bool = False) -> list[str]:
    """The figures that are worse than before, each with both values and by how much."""
    lines = []
    for label in figures.keys() & before.keys():
        now, then = figures[label], before[label]
        loss = (then / now if higher_is_better else now / then) - 1 if now and then else 0.0
        if loss > TOLERANCE:
            lines.append(f"{label}: {now:.4g}, in the baseline {then:.4g}: {loss:.0%} worse")
    return sorted(lines)


def compare(figures: Figures, before: Figures) -> list[str]:
    """One line for each figure: now, in the baseline, and the ratio of the two."""
    lines = [f"  {'':58}{'now':>10}{'baseline':>10}{'ratio':>7}"]
    for label, value in figures.items():
        rest = f"{before[label]:10.4g}{value / before[label]:7.2f}" if before.get(label) else f"{'-':>10}{'-':>7}"
        lines.append(f"  {label:58}{value:10.4g}{rest}")
    return lines


def machine() -> str:
    """The machine in words."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0))
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{cores} CPU cores ({platform.machine()}), {device}, {versions}"


if __name__ == "__main__":
    main()
