"""``activelr compare``: several runs in a table and a picture."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from activelr_service.errors import CommandError
from activelr_service.runs.compare import describe_result, differing_settings, doubts, labels_of
from activelr_service.runs.console import duration
from activelr_service.runs.journal import read_journal
from activelr_service.runs.run import Run, find_run, output_root

COLUMNS = ("run", "status", "model", "data", "best", "at epoch", "last", "test", "epochs", "steps", "time", "samples/s")
WIDTH = 250  # columns of a table that is written to a file or a pipe


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", help="NAME, NAME/NUMBER or a run folder, of each.")
    ],
    output_dir: Annotated[str, typer.Option("--output-dir", help="The folder that holds the runs.")] = "outputs",
    output: Annotated[Path, typer.Option("--output", help="The picture to write, a .png file.")] = Path("compare.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
) -> None:
    """Compare runs: a table of what they reached and of the settings that differ, and a picture of their curves.

    Example: activelr compare digits/001 digits/002 --output digits.png
    """
    found = list(dict.fromkeys(find_run(output_root(output_dir), name) for name in runs))
    if len(found) < 2:
        raise CommandError(f"needs two different runs or more to compare, got {', '.join(runs)}")
    if output.suffix.lower() != ".png":
        raise CommandError(f"--output must be a .png file, got {output}")
    results, settings = [describe_result(run) for run in found], differing_settings(found)
    notes = doubts(found, results)
    picture = _draw(found, results, output)
    if as_json:
        rows = [{"run": label, **result} for label, result in zip(labels_of(found), results, strict=True)]
        differ = {key: dict(zip(labels_of(found), values, strict=True)) for key, values in settings.items()}
        print(json.dumps({"runs": rows, "settings": differ, "notes": notes, "picture": picture}, indent=1))
        return
    _print_tables(found, results, settings)
    for line in notes:
        print(f"note: {line}")
    if picture:
        print(f"picture: {picture}")


def _draw(runs: list[Run], results: list[dict[str, Any]], output: Path) -> str | None:
    """Draw the runs that have epochs; returns the path of the picture, None if there is nothing to draw."""
    named = [(label, run, result) for label, run, result in zip(labels_of(runs), runs, results, strict=True)]
    histories = {label: read_journal(run.journal) for label, run, result in named if result["epochs"]}
    if not histories:
        return None
    from activelr_service.runs.compare_figure import draw_comparison

    by_step = any(run.job().duration.unit != "epochs" for run in runs)
    scores = {label: result["score"] for label, _, result in named}
    try:
        draw_comparison(output, histories, scores, by_step=by_step)
    except OSError as error:
        raise CommandError(f"the picture {output} cannot be written: {error.strerror}") from error
    return str(output.resolve())


def _print_tables(runs: list[Run], results: list[dict[str, Any]], settings: dict[str, list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    rows = [_cells(label, result) for label, result in zip(labels_of(runs), results, strict=True)]
    used = [index for index in range(len(COLUMNS)) if any(row[index] for row in rows)]
    table = Table(*(COLUMNS[index] for index in used), box=None)
    for row in rows:
        table.add_row(*(Text(row[index]) for index in used))
    console.print(table)
    if settings:
        console.print()
        differ = Table("settings that differ", *labels_of(runs), box=None)
        for key, values in settings.items():
            differ.add_row(Text(key), *map(Text, values))
        console.print(differ)


def _cells(label: str, result: dict[str, Any]) -> list[str]:
    def score(key: str) -> str:
        return "" if result[key] is None else f"{result[key]:.4f}"

    speed = result["samples_per_second"]
    best = f"{result['score']} {score('best')}" if result["best"] is not None else ""
    return [
        label,
        result["status"],
        result["model"],
        Path(result["data"]).name,
        best,
        "" if result["best_epoch"] is None else str(result["best_epoch"]),
        score("last"),
        score("test"),
        str(result["epochs"]),
        f"{result['steps']:,}",
        duration(result["seconds"]),
        "" if speed is None else f"{speed:,.0f}",
    ]
