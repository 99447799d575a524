"""The files of a report."""

from pathlib import Path

import matplotlib
from pandas import DataFrame

from activelr_service.report.comparisons import paired_tests, search_costs
from activelr_service.report.figures import draw
from activelr_service.report.intervals import with_intervals
from activelr_service.report.metrics import AXES, summarise, value_means
from activelr_service.report.normal_form import normal_form
from activelr_service.report.page import Results, render
from activelr_service.report.targets import costs_to_target, profile_scores, time_to_target
from activelr_service.report.text import has_axis
from activelr_service.report.trials import trials_of

DPI = 130


def write_report(table: DataFrame, folder: Path, title: str) -> list[Path]:
    """Write the report of a table in normal form to ``folder``, which may exist, and return the paths of its files.

    ``results.parquet`` and ``.csv``: the table. ``values.csv``: mean scores at each value of an axis. ``summary.csv``: a
    row for each workload, optimizer and axis. ``pairs.csv``, ``targets.csv``, ``random_search.csv`` and ``profiles.csv``:
    the comparisons. ``figures/*.png`` and ``.svg``. ``report.html``: all of it on one page that needs nothing else.

    Raises ``CommandError`` as ``normal_form`` does.
    """
    table = normal_form(table, "the table", "study")
    results = analyse(table)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    paths = [folder / "results.parquet", folder / "results.csv"]
    table.to_parquet(paths[0], index=False)
    table.to_csv(paths[1], index=False)
    for name, rows in results.tables().items():
        paths.append(folder / f"{name}.csv")
        rows.to_csv(paths[-1], index=False)
    for picture in results.pictures:
        for end in ("png", "svg"):
            paths.append(folder / "figures" / f"{picture.name}.{end}")
            # A fixed salt and no date: the same table gives the same files.
            with matplotlib.rc_context({"svg.hashsalt": "activelr"}):
                picture.figure.savefig(paths[-1], dpi=DPI, metadata={"Date": None} if end == "svg" else None)
    paths.append(folder / "report.html")
    paths[-1].write_text(render(results, title, folder / "figures"), encoding="utf-8")
    return paths


def analyse(table: DataFrame) -> Results:
    """Everything that a report says about a table in normal form."""
    trials = trials_of(table)
    means = {axis: value_means(trials, axis) for axis in AXES}
    means = {axis: rows for axis, rows in means.items() if has_axis(rows, axis)}
    costs = costs_to_target(table, trials)
    return Results(
        table=table,
        trials=trials,
        means=means,
        summaries={axis: with_intervals(summarise(trials, axis), trials, axis) for axis in means},
        pairs=paired_tests(trials),
        targets=time_to_target(costs, trials),
        searches=search_costs(trials),
        profiles=profile_scores(costs),
        pictures=draw(table),
    )
