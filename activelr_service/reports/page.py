"""The page of a report: one HTML file with all tables and figures. It needs no network and no JavaScript."""

import base64
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from pandas import DataFrame

from activelr_service.reports.drawing import Picture
from activelr_service.reports.labels import (
    AXIS_NAMES,
    caveats,
    direction,
    held_text,
    metric_name,
    ordered,
    setting,
    short,
)
from activelr_service.reports.metrics import grid
from activelr_service.reports.normal_form import STATUSES


class Results(NamedTuple):
    """All numbers and figures of a report. The keys of ``means`` and ``summaries`` are the axes."""

    table: DataFrame
    trials: DataFrame
    means: dict[str, DataFrame]
    summaries: dict[str, DataFrame]
    pairs: DataFrame
    targets: DataFrame
    searches: DataFrame
    profiles: DataFrame
    pictures: list[Picture]

    def tables(self) -> dict[str, DataFrame]:
        """The tables by the names of their files. Empty tables are left out."""
        values = [rows.assign(axis=axis) for axis, rows in self.means.items()]
        found = {
            "summary": pd.concat(list(self.summaries.values())) if self.summaries else DataFrame(),
            "values": pd.concat(values) if values else DataFrame(),
            "pairs": self.pairs,
            "targets": self.targets,
            "random_search": self.searches,
            "profiles": self.profiles,
        }
        return {name: rows for name, rows in found.items() if len(rows)}


class Block(NamedTuple):
    """A table of the page. All cells are text, and the first column names the row."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str] = []  # noqa: RUF012 (never changed)


def render(results: Results, title: str, figures: Path) -> str:
    """The HTML of the page. It contains the .png files of the folder ``figures``. All text of the table is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        resources.files("activelr_service.reports").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    images = [base64.b64encode((figures / f"{picture.name}.png").read_bytes()).decode() for picture in results.pictures]
    return template.render(
        title=title,
        facts=_facts(results.trials),
        summaries=list(_summaries(results)),
        comparisons=[block for block in _comparisons(results) if block.rows],
        pictures=list(zip(results.pictures, images, strict=True)),
        unfinished=_unfinished(results.trials),
    )


def _facts(trials: DataFrame) -> list[tuple[str, str]]:
    counts = trials["status"].value_counts()
    statuses = [f"{counts[status]:,} {status.replace('_', ' ')}" for status in STATUSES if status in counts]
    values = {axis: sorted(trials[axis].dropna().unique()) for axis in AXIS_NAMES}
    several = {
        "Workloads": [
            f"{row.workload}: {metric_name(row.metric)}" for row in trials.drop_duplicates("workload").itertuples()
        ],
        "Optimizers": ordered(trials["optimizer"]),
        **{f"{AXIS_NAMES[axis].capitalize()}s": [setting(value) for value in found] for axis, found in values.items()},
        "Seeds": [str(seed) for seed in sorted(trials["seed"].unique())],
        "Trials": [f"{len(trials):,}", *statuses],
    }
    return [(name, ", ".join(texts) or "not given") for name, texts in several.items()]


def _summaries(results: Results) -> Iterator[tuple[str, list[Block]]]:
    """The tables of each workload: for each axis the summary, and the means from which it is computed."""
    for workload in results.trials["workload"].drop_duplicates():
        blocks: list[Block] = []
        for axis, summary in results.summaries.items():
            rows, means = (table[table["workload"] == workload] for table in (summary, results.means[axis]))
            if len(rows) and (axis == "initial_lr" or means.duplicated("optimizer").any()):
                blocks += _of_axis(rows, means, axis)
        yield workload, blocks


def _of_axis(rows: DataFrame, means: DataFrame, axis: str) -> Iterator[Block]:
    first, name = rows.iloc[0], AXIS_NAMES[axis]
    metric = f"{metric_name(first['metric'])}, {direction(first['higher_is_better'])}"
    width = "decades" if axis == "initial_lr" else "doublings"
    head = ["optimizer", "mean", "deviation", "worst", "range", "best at", "best", "sensitivity", "regret"]
    head += [f"basin 1 %, {width}", f"basin 5 %, {width}", "diverged"]
    with_loss = bool(rows["loss_best"].notna().any()) and "loss" not in str(first["metric"])
    head += ["best loss", "loss sensitivity", "loss regret"] if with_loss else []
    title = ", ".join(filter(None, [f"By {name}", held_text(rows, axis)]))
    cells = [_summary_cells(row, with_loss) for row in rows.to_dict("records")]
    yield Block(f"{title} ({metric})", head, cells, caveats(means, axis))
    table = grid(means)
    if table.shape[1]:
        cells = [[str(label), *map(short, values)] for label, values in zip(table.index, table.to_numpy(), strict=True)]
        yield Block(f"Mean over seeds at each {name}", ["optimizer", *map(setting, table.columns)], cells)


def _summary_cells(row: dict[str, Any], with_loss: bool) -> list[str]:
    cells = [row["optimizer"], _with_interval(row, "mean"), short(row["deviation"]), short(row["worst"])]
    # An optimizer that is equally bad everywhere has a low sensitivity, so best value and regret stand beside it.
    cells += [_with_interval(row, "range"), setting(row["best_at"]), short(row["best"])]
    cells += [_with_interval(row, "sensitivity"), short(row["regret"]), short(row["basin_1"]), short(row["basin_5"])]
    cells.append(f"{row['diverged']} of {row['trials']}")
    return cells + [short(row[f"loss_{name}"]) for name in ("best", "sensitivity", "regret") if with_loss]


def _with_interval(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return short(row[name]) + ("" if pd.isna(low) else f" [{short(low)}, {short(high)}]")


def _comparisons(results: Results) -> Iterator[Block]:
    head = ["workload", "optimizer", "baseline", "pairs", "mean difference", "pairs won", "p"]
    rows = [
        [row.workload, row.optimizer, row.baseline, f"{row.pairs}", short(row.difference), f"{row.wins}", short(row.p)]
        for row in results.pairs.itertuples()
    ]
    yield Block(
        "Each ActiveLR variant against its baseline, in pairs of trials (positive: ActiveLR is better)", head, rows
    )
    head = ["workload", "optimizer", "target score", "trials", "reached", "epochs", "samples", "seconds"]
    rows = [
        [row.workload, row.optimizer, short(row.target), f"{row.trials}", f"{row.reached:.0%}"]
        + [_amount(value) for value in (row.epochs, row.samples, row.seconds)]
        for row in results.targets.itertuples()
    ]
    yield Block("Cost to reach the target score, median over all trials", head, rows)
    best = [name for name in results.searches if name.startswith("best_of_")]
    head = ["workload", "optimizer", *(name.replace("_", " ") for name in best)]
    rows = [
        [row["workload"], row["optimizer"], *(short(row[name]) for name in best)]
        for row in results.searches.to_dict("records")
    ]
    yield Block("Expected best score of a random search over the learning rates", head, rows)
    rows = [[row.optimizer, short(row.profile_score)] for row in results.profiles.itertuples()]
    yield Block("Benchmark score over all workloads", ["optimizer", "score (0 to 1)"], rows)


def _amount(value: float) -> str:
    return "missed" if value == float("inf") else "-" if pd.isna(value) else f"{value:,.6g}"


def _unfinished(trials: DataFrame) -> list[list[str]]:
    rows = trials[trials["status"] != "finished"].sort_values(["status", "workload", "optimizer"], kind="stable")
    return [
        [row.trial, row.status.replace("_", " "), row.workload, row.optimizer, setting(row.initial_lr)]
        + [setting(row.batch_size), f"{row.seed}", f"{row.epochs}", row.reason]
        for row in rows.itertuples()
    ]
