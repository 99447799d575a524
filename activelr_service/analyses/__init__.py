"""The paper's analyses: each is a file with ``compute`` (a table), ``summarize`` (lines to read) and ``draw`` (a figure)."""

import csv
from pathlib import Path
from types import ModuleType
from typing import Any

from matplotlib.figure import Figure

from activelr_service.analyses import carbon, gain_operations, sign_cases, theorem_4_1, theorem_5_1, toy_functions

ANALYSES: dict[str, ModuleType] = {
    "toy-functions": toy_functions,
    "sign-cases": sign_cases,
    "gain-operations": gain_operations,
    "theorem-4-1": theorem_4_1,
    "theorem-5-1": theorem_5_1,
    "carbon": carbon,
}


def write_analysis(name: str, folder: Path) -> tuple[list[str], list[Path]]:
    """Compute an analysis and write ``NAME.csv`` and ``NAME.png``; returns the lines to read and the paths."""
    analysis = ANALYSES[name]
    table = analysis.compute()
    return analysis.summarize(table), write_table(name, folder, table, analysis.draw(table))


def write_table(name: str, folder: Path, table: list[dict[str, Any]], figure: Figure) -> list[Path]:
    """Write a table and its figure as ``NAME.csv`` and ``NAME.png``; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.csv", folder / f"{name}.png"]
    with paths[0].open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    figure.savefig(paths[1], dpi=130)
    return paths
