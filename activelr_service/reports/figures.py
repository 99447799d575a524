"""The figures of a report. A figure is drawn only if the table has the data for it."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, NullFormatter
from pandas import DataFrame

from activelr_service.reports.curve_figures import batch_size_figure, curves_figure
from activelr_service.reports.drawing import Picture, file_name, is_wide, legend_beside, metric_axis, styles
from activelr_service.reports.labels import AXIS_NAMES, metric_name, ordered, setting, short
from activelr_service.reports.metrics import AXES, value_means
from activelr_service.reports.statistics import search_costs
from activelr_service.reports.targets import LARGEST_RATIO, costs_to_target, profile, ratios, with_curves
from activelr_service.reports.trials import counted, trials_of

SEARCHES = tuple(range(1, 9))


def draw(table: DataFrame) -> list[Picture]:
    """Draw the figures of a table in normal form: first those of each workload, then the one over all workloads.

    - the score after each epoch, for each baseline and its ActiveLR variant (Figures 5, 7, 8 and 9 of the paper) and for
      each batch size (Figure 4), if a trial has more than one epoch;
    - the score by initial learning rate (Figures 6, 10, 11 and 12) or by batch size, if an optimizer has several;
    - a heat map of the score by both;
    - the expected best score of a random search;
    - performance profiles, if there are at least two problems (see ``targets.ratios``).
    """
    trials = trials_of(table)
    pictures: list[Picture] = []
    for place, (workload, group) in enumerate(trials.groupby("workload")):
        name = file_name(str(workload))
        if any(picture.name.startswith(f"{name}_") for picture in pictures):
            name = f"{name}_{place}"  # two names of workloads may give the same name of a file
        own = _of_workload(table[table["workload"] == workload], group)
        pictures += [picture._replace(name=f"{name}_{picture.name}") for picture in own]
    found = ratios(costs_to_target(table, trials))
    if found.shape[1] >= 2:
        pictures.append(_profiles(found))
    return pictures


def _of_workload(table: DataFrame, trials: DataFrame) -> Iterator[Picture]:
    if with_curves(table):
        yield from curves_figure(table, trials)
    for axis in AXES:
        yield from _by_value(trials, axis)
    if with_curves(table):
        yield from batch_size_figure(table, trials)
    yield from _heat_map(trials)
    yield from _searches(trials)


def _by_value(trials: DataFrame, axis: str) -> Iterator[Picture]:
    """The mean score at each value of an axis, a line for each optimizer."""
    means = value_means(trials, axis)
    if not means.duplicated("optimizer").any() or means["score"].isna().all():
        return
    figure = Figure(figsize=(8.6, 5), layout="constrained")
    plot = figure.subplots()
    for label, style in styles(trials["optimizer"]).items():
        rows = means[(means["optimizer"] == label) & means["score"].notna()]
        if len(rows) > 1:
            bars = {"yerr": rows["deviation"].fillna(0), "capsize": 2, "linewidth": 1.8, "markersize": 6}
            plot.errorbar(rows["value"], rows["score"], label=label, **bars, **style._asdict())
        elif len(rows) == 1:
            value, score = rows.iloc[0][["value", "score"]]
            at = f" at {AXIS_NAMES[axis]} {setting(value)}" if pd.notna(value) else ""
            at += ", diverged" if rows["diverged"].iloc[0] else ""
            plot.axhline(score, linewidth=1, color=style.color, linestyle=":", label=f"{label}{at}")
    several = means[means.duplicated("optimizer", keep=False)]
    lost = several[(several["diverged"] > 0) & several["score"].notna()]
    if len(lost):
        plot.plot(
            lost["value"], lost["score"], "kx", markersize=9, markeredgewidth=2, label="a trial diverged", zorder=5
        )
    _log_axis(plot, axis, several["value"].dropna().unique())
    metric_axis(plot, means)
    plot.set(xlabel=AXIS_NAMES[axis], title=f"{trials['workload'].iloc[0]}: score by {AXIS_NAMES[axis]}")
    legend_beside(figure, plot)
    caption = f"Mean score over seeds at each {AXIS_NAMES[axis]}, with bars of one standard deviation. A flat line is a"
    yield Picture(
        f"by_{axis}",
        f"{caption} robust optimizer. Solid lines: ActiveLR variants. Dashed lines: other optimizers. Dotted lines:"
        " optimizers that were run at one value only.",
        figure,
    )


def _log_axis(plot: Axes, axis: str, values: np.ndarray) -> None:
    plot.set_xscale("log", base=10 if axis == "initial_lr" else 2)
    if axis == "batch_size":
        plot.set_xticks(values, [setting(value) for value in values])
    else:
        plot.xaxis.set_major_locator(LogLocator(10, numticks=20))
    plot.xaxis.set_minor_formatter(NullFormatter())


def _heat_map(trials: DataFrame) -> Iterator[Picture]:
    """The mean score over seeds by learning rate and batch size.

    A panel for each optimizer that has at least two learning rates with at least two batch sizes each.
    """
    means = counted(trials).groupby(["optimizer", "batch_size", "initial_lr"])["score"].mean(skipna=False)
    tables = {
        label: means[label].unstack().sort_index(axis=1) for label in ordered(trials["optimizer"]) if label in means
    }
    tables = {label: table for label, table in tables.items() if (table.notna().sum() > 1).sum() > 1}
    if not tables or means.notna().sum() == 0:
        return
    columns = min(len(tables), 4)
    rows = -(-len(tables) // columns)
    wide, high = max(max(table.shape[1] for table in tables.values()) * 0.62, 3), 2.6
    figure = Figure(figsize=(columns * wide + 1, rows * high + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    higher = bool(trials["higher_is_better"].iloc[0])
    scale = LogNorm if is_wide(means.to_numpy(), higher) else Normalize
    norm = scale(means.min(), means.max())
    for panel, (label, table) in zip(panels, tables.items(), strict=False):
        image = _cells(panel, table, norm, "viridis" if higher else "viridis_r")
        panel.set_title(label, fontsize=9)
    for panel in panels[len(tables) :]:
        panel.set_axis_off()
    figure.colorbar(image, ax=panels, label=metric_name(trials["metric"].iloc[0]), shrink=0.8)
    figure.supxlabel("initial learning rate", fontsize=10)
    figure.supylabel("batch size", fontsize=10)
    figure.suptitle(f"{trials['workload'].iloc[0]}: score by initial learning rate and batch size")
    caption = (
        "Mean score over seeds; a brighter color is better. An optimizer whose panel is bright everywhere needs no"
    )
    yield Picture("heat_map", f"{caption} tuning. White: not run, or the score is unknown.", figure)


def _cells(panel: Axes, table: DataFrame, norm: Normalize, colors: str) -> AxesImage:
    """Draw a table of scores as colors with numbers."""
    image = panel.imshow(table, cmap=colors, norm=norm, aspect="auto")
    panel.set_xticks(range(table.shape[1]), [setting(value) for value in table.columns], fontsize=7, rotation=45)
    panel.set_yticks(range(table.shape[0]), [setting(value) for value in table.index], fontsize=7)
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        if not np.isnan(value):
            is_bright = sum(image.cmap(image.norm(value))[:3]) > 1.4
            panel.text(column, row, short(value, 5), ha="center", va="center", fontsize=7, color="kw"[not is_bright])
    return image


def _searches(trials: DataFrame) -> Iterator[Picture]:
    """The expected best score of a random search, by the number of learning rates that it tries."""
    costs = search_costs(trials, SEARCHES)
    if costs.empty or costs["learning_rates"].max() < 2 or costs["best_of_1"].isna().all():
        return
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    plot = figure.subplots()
    for label, style in styles(trials["optimizer"]).items():
        rows = costs[costs["optimizer"] == label]
        if len(rows):
            plot.plot(SEARCHES, rows.iloc[0, -len(SEARCHES) :], label=label, linewidth=1.8, **style._asdict())
    metric_axis(plot, trials)
    plot.set(xlabel="number of learning rates tried")
    plot.set_title(f"{trials['workload'].iloc[0]}: expected best score of a random search")
    legend_beside(figure, plot)
    caption = (
        "Expected best score of a random search that tries so many of these learning rates. An optimizer whose line"
    )
    yield Picture("random_search", f"{caption} starts well and is flat needs no search.", figure)


def _profiles(found: DataFrame) -> Picture:
    """The performance profile of each optimizer over all problems."""
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    plot = figure.subplots()
    taus = np.linspace(1, LARGEST_RATIO, 601)
    for place, (label, style) in enumerate(styles(found.index).items()):
        shares = profile(found.loc[label].to_numpy(dtype=float), taus)
        shifted = shares + (place - len(found) / 2) * 0.004  # else a line would hide an equal one
        plot.plot(taus, shifted, label=label, linewidth=1.8, markevery=(place * 7, 100), **style._asdict())
    plot.set(
        xlabel="epochs to the target / epochs of the fastest optimizer",
        ylabel="fraction of problems solved",
        ylim=(-0.05, 1.05),
    )
    plot.set_title(f"Performance profiles over {found.shape[1]} problems (a workload at a learning rate)")
    plot.grid(alpha=0.3)
    legend_beside(figure, plot)
    caption = (
        "Fraction of the problems in which an optimizer reaches the target score within the epochs of the fastest one"
    )
    return Picture("performance_profiles", f"{caption}, times the number on the horizontal axis.", figure)
