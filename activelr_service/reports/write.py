"""The two outputs of a report: files in a folder, and a summary for the terminal."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib
from pandas import DataFrame

from activelr_service.reports.figures import draw
from activelr_service.reports.labels import (
    AXIS_NAMES,
    caveats,
    direction,
    held_text,
    metric_name,
    scientific,
    setting,
    short,
)
from activelr_service.reports.metrics import AXES, grid, has_axis, summarize, value_means
from activelr_service.reports.normal_form import normal_form
from activelr_service.reports.page import Results, render
from activelr_service.reports.statistics import paired_tests, search_costs, with_intervals
from activelr_service.reports.targets import costs_to_target, profile_scores, time_to_target
from activelr_service.reports.trials import trials_of

DPI = 130


def write_report(table: DataFrame, folder: Path, title: str) -> list[Path]:
    """Write the report of a table in normal form to ``folder`` and return the paths of its files.

    - ``results.parquet`` and ``.csv``: the table;
    - ``values.csv``: mean scores at each value of an axis; ``summary.csv``: a row for each workload, optimizer and axis;
    - ``pairs.csv``, ``targets.csv``, ``random_search.csv`` and ``profiles.csv``: the comparisons of optimizers;
    - ``figures/*.png`` and ``.svg``;
    - ``report.html``: tables and figures on one page. It needs no other file.

    The folder may exist. Raises ``CommandError`` as ``normal_form`` does.
    """
    table = normal_form(table, "the table", "study")
    results = compute_results(table)
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
            # With a fixed salt and no date, the same table gives the same files.
            with matplotlib.rc_context({"svg.hashsalt": "activelr"}):
                picture.figure.savefig(paths[-1], dpi=DPI, metadata={"Date": None} if end == "svg" else None)
    paths.append(folder / "report.html")
    paths[-1].write_text(render(results, title, folder / "figures"), encoding="utf-8")
    return paths


def compute_results(table: DataFrame) -> Results:
    """Compute all numbers and figures of a report from a table in normal form."""
    trials = trials_of(table)
    means = {axis: value_means(trials, axis) for axis in AXES}
    means = {axis: rows for axis, rows in means.items() if has_axis(rows, axis)}
    costs = costs_to_target(table, trials)
    return Results(
        table=table,
        trials=trials,
        means=means,
        summaries={axis: with_intervals(summarize(trials, axis), trials, axis) for axis in means},
        pairs=paired_tests(trials),
        targets=time_to_target(costs, trials),
        searches=search_costs(trials),
        profiles=profile_scores(costs),
        pictures=draw(table),
    )


WIDTH, LABEL, CELL = 120, 28, 7
MOST_VALUES = 40  # of an axis in the terminal; the report has all
HEADS = {"mean": "mean", "best": "best", "worst": "worst", "range": "range", "sensitivity": "sens", "regret": "regret"}
Column = tuple[str, list[str]]


def summary_lines(table: DataFrame) -> list[str]:
    """The summary for the terminal: a block of lines for each workload and axis of a table in normal form.

    A block has the mean score at each value of the axis, if there are at most 40, and the numbers of ``metrics.summarize``.
    A line has at most 120 characters. Raises ``CommandError`` as ``normal_form`` does.
    """
    trials = trials_of(normal_form(table, "the table", "study"))
    lines: list[str] = []
    for axis in AXES:
        means = value_means(trials, axis)
        if has_axis(means, axis):
            for workload, rows in summarize(trials, axis).groupby("workload", sort=False):
                lines += [*_block(rows, means[means["workload"] == workload], axis), ""]
    failed = int((trials["status"] == "failed").sum())
    if failed:
        lines.append(f"{failed} of {len(trials)} trials failed and are left out")
    return lines


def _block(rows: DataFrame, means: DataFrame, axis: str) -> Iterator[str]:
    first, held = rows.iloc[0], held_text(rows, axis)
    metric = f"{metric_name(first['metric'])} ({direction(first['higher_is_better'])})"
    end = f": {metric}, mean over seeds by {AXIS_NAMES[axis]}{held and ', '}{held}"
    yield _cut(_cut(first["workload"], max(WIDTH - len(end), LABEL)) + end, WIDTH)
    at_values = [(_narrow(value), [*map(short, column)]) for value, column in grid(means).items()]
    if len(at_values) > MOST_VALUES:  # a random search, with a value for each trial
        at_values = []
    numbers = [(head, [*map(short, rows[name])]) for name, head in HEADS.items()]
    numbers.append(("div", [f"{share:.0%}" for share in rows["divergence"]]))
    for columns in _fitting(at_values, numbers):
        yield _line("", [head for head, _ in columns])
        for place, label in enumerate(rows["optimizer"]):
            yield _line(label, [cells[place] for _, cells in columns])
    yield from (_cut(f"note: {caveat}", WIDTH) for caveat in caveats(means, axis))


def _fitting(at_values: list[Column], numbers: list[Column]) -> Iterator[list[Column]]:
    """The columns in as many blocks as the width needs. The columns of ``numbers`` stay together in the last block."""
    room = (WIDTH - LABEL) // CELL
    while at_values and len(at_values) + len(numbers) > room:
        yield at_values[:room]
        at_values = at_values[room:]
    yield at_values + numbers


def _narrow(value: float) -> str:
    """A setting that fits into a cell: 3.2e-4 if 0.000316 is too long."""
    text = setting(value)
    return text if len(text) < CELL else scientific(value, CELL - 1)


def _line(label: str, cells: list[str]) -> str:
    return _cut(label, LABEL).ljust(LABEL) + "".join(f"{cell:>{CELL}}" for cell in cells)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
