"""The summary of a study in the terminal."""

from collections.abc import Iterator

import pandas as pd
from pandas import DataFrame

from activelr_service.report.metrics import AXES, summarise, value_means
from activelr_service.report.normal_form import normal_form
from activelr_service.report.trials import trials_of
from activelr_service.report.wording import AXIS_NAMES, caveats, direction, held_text, scientific, setting, short

WIDTH, LABEL, CELL = 120, 28, 7
HEADS = {"mean": "mean", "best": "best", "worst": "worst", "range": "range", "sensitivity": "sens", "regret": "regret"}
Column = tuple[str, list[str]]


def summary_lines(table: DataFrame) -> list[str]:
    """A block of lines, of at most 120 characters, for each workload and axis of a table in normal form: the mean score
    at each value of the axis, and what ``metrics.summarise`` says.

    Raises ``CommandError`` as ``normal_form`` does.
    """
    trials = trials_of(normal_form(table, "the table", "study"))
    lines: list[str] = []
    for axis in AXES:
        means = value_means(trials, axis)
        if has_axis(means, axis):
            for workload, rows in summarise(trials, axis).groupby("workload", sort=False):
                lines += [*_block(rows, means[means["workload"] == workload], axis), ""]
    failed = int((trials["status"] == "failed").sum())
    if failed:
        lines.append(f"{failed} of {len(trials)} trials failed and are left out")
    return lines


def has_axis(means: DataFrame, axis: str) -> bool:
    """Whether there is something to say about an axis, from ``value_means``: of batch sizes, only if one was varied."""
    return not means.empty and (axis == "initial_lr" or bool(means.duplicated(["workload", "optimizer"]).any()))


def grid(means: DataFrame) -> DataFrame:
    """(optimizers, values): the mean scores of one workload, at the values at which an optimizer with several was run."""
    several = means[means.duplicated("optimizer", keep=False)]
    values = sorted(several["value"].dropna().unique())
    table = means[means["value"].isin(values)].pivot(index="optimizer", columns="value", values="score")
    return table.reindex(index=pd.unique(means["optimizer"]), columns=values)


def _block(rows: DataFrame, means: DataFrame, axis: str) -> Iterator[str]:
    first, held = rows.iloc[0], held_text(rows, axis)
    metric = f"{first['metric']} ({direction(first['higher_is_better'])})"
    end = f": {metric}, mean over seeds by {AXIS_NAMES[axis]}{held and ', '}{held}"
    yield _cut(_cut(first["workload"], max(WIDTH - len(end), LABEL)) + end, WIDTH)
    at_values = [(_narrow(value), [*map(short, column)]) for value, column in grid(means).items()]
    numbers = [(head, [*map(short, rows[name])]) for name, head in HEADS.items()]
    numbers.append(("div", [f"{share:.0%}" for share in rows["divergence"]]))
    for columns in _fitting(at_values, numbers):
        yield _line("", [head for head, _ in columns])
        for place, label in enumerate(rows["optimizer"]):
            yield _line(label, [cells[place] for _, cells in columns])
    yield from (_cut(f"note: {caveat}", WIDTH) for caveat in caveats(means, axis))


def _fitting(at_values: list[Column], numbers: list[Column]) -> Iterator[list[Column]]:
    """The columns, in as many blocks as they need to fit; the numbers stay together, so that each is seen with all."""
    room = (WIDTH - LABEL) // CELL
    while at_values and len(at_values) + len(numbers) > room:
        yield at_values[:room]
        at_values = at_values[room:]
    yield at_values + numbers


def _narrow(value: float) -> str:
    """A setting in a cell: 3.2e-4 where 0.000316 is too long for it."""
    text = setting(value)
    return text if len(text) < CELL else scientific(value, CELL - 1)


def _line(label: str, cells: list[str]) -> str:
    return _cut(label, LABEL).ljust(LABEL) + "".join(f"{cell:>{CELL}}" for cell in cells)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
