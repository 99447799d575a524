"""The analyses of the paper, repeated: each gives a table, a summary and a figure."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from activelr_service.analyses import carbon, descents, gain_operations, theorems

Table = list[dict[str, Any]]


class Analysis(NamedTuple):
    """``compute`` gives the table, ``summarize`` lines of text from it, and ``draw`` its figure."""

    compute: Callable[[], Table]
    summarize: Callable[[Table], list[str]]
    draw: Callable[[Table], Figure]


ANALYSES = {
    "toy-functions": Analysis(descents.compute_toys, descents.summarize_toys, descents.draw_toys),
    "sign-cases": Analysis(descents.compute_signs, descents.summarize_signs, descents.draw_signs),
    "gain-operations": Analysis(gain_operations.compute, gain_operations.summarize, gain_operations.draw),
    "theorem-4-1": Analysis(theorems.compute_4_1, theorems.summarize_4_1, theorems.draw_4_1),
    "theorem-5-1": Analysis(theorems.compute_5_1, theorems.summarize_5_1, theorems.draw_5_1),
    "carbon": Analysis(carbon.compute, carbon.summarize, carbon.draw),
}


def write_analysis(name: str, folder: Path) -> tuple[list[str], list[Path]]:
    """Compute an analysis and write ``NAME.csv`` and ``NAME.png``. Returns the lines of its summary, and the paths."""
    analysis = ANALYSES[name]
    table = analysis.compute()
    return analysis.summarize(table), write_table(name, folder, table, analysis.draw(table))


def write_table(name: str, folder: Path, table: Table, figure: Figure) -> list[Path]:
    """Write a table and its figure as ``NAME.csv`` and ``NAME.png``. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.csv", folder / f"{name}.png"]
    with paths[0].open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    figure.savefig(paths[1], dpi=130)
    return paths
