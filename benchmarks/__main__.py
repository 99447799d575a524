"""``python -m benchmarks [--save] [NAME ...]``: every figure, or those of the named benchmarks, beside the baseline's.

The baseline is one run, in ``baseline.json``, on the machine that is named there. ``--save`` replaces what was measured.
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
    for name in asked.names or BENCHMARKS:
        print(f"\n{name}: {BENCHMARKS[name].__doc__}", flush=True)
        figures = BENCHMARKS[name].measure()
        print("\n".join(compare(figures, baseline["figures"].get(name, {}))), flush=True)
        if asked.save:
            baseline["machine"] = machine()
            baseline["figures"][name] = {label: float(f"{value:.4g}") for label, value in figures.items()}
            BASELINE.write_text(json.dumps(baseline, indent=1) + "\n")


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
