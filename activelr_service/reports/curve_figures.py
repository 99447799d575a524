"""Figures of the score after each epoch, like Figures 4, 5, 7, 8 and 9 of the paper."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame, Series

from activelr_service.reports.drawing import Picture, Style, metric_axis, styles
from activelr_service.reports.labels import held_text, ordered, pairs, setting
from activelr_service.reports.metrics import axis_trials
from activelr_service.reports.trials import NOT_TRAINED

COLUMNS = 3

OTHERS = "other optimizers"


def curves_of(table: DataFrame, trials: DataFrame) -> DataFrame:
    """(epochs, trials): the score of each trial after each epoch, from epoch 1 on.

    A trial that diverged continues with the score of its untrained model, a shorter trial with its last score.
    """
    rows = table[(table["epoch"] >= 1) & np.isfinite(table["score"])]
    names = trials.set_index("trial")
    curves = rows[rows["trial"].isin(names.index)].pivot(index="epoch", columns="trial", values="score")
    curves = curves.reindex(columns=names.index)
    ended = curves.bfill().isna()
    lost = names["status"].isin(NOT_TRAINED)
    curves = curves.ffill()
    for trial in names.index[lost]:
        curves.loc[ended[trial], trial] = names.loc[trial, "untrained_score"]
    return curves


def curves_figure(table: DataFrame, trials: DataFrame) -> Iterator[Picture]:
    """Mean and deviation over the learning rates: a panel for each ActiveLR variant with its baseline."""
    trials = axis_trials(trials, "initial_lr")
    if trials.empty:
        return
    curves, looks = curves_of(table, trials), styles(trials["optimizer"])
    panels = _panels(trials)
    figure, plots = _grid(len(panels))
    for plot, (title, labels) in zip(plots, panels, strict=False):
        for label in labels:
            _band(plot, _by(curves, trials, label, "initial_lr"), label, looks[label])
        _finish(plot, trials, title)
    paired = [plot for plot, (title, _) in zip(plots, panels, strict=False) if title != OTHERS]
    _share_scale(
        paired or plots[: len(panels)]
    )  # the other optimizers keep their own scale, as their scores may be far from these
    held = held_text(trials.assign(held=trials["batch_size"]), "initial_lr")
    figure.suptitle(f"{trials['workload'].iloc[0]}: mean over initial learning rates {held}".rstrip())
    caption = "Score after each epoch, mean over the initial learning rates. The band is one standard deviation over"
    caption = f"{caption} the learning rates, cut at the lowest and the highest score"
    yield Picture("curves", f"{caption}. In a narrow band the learning rate matters little.", figure)


def batch_size_figure(table: DataFrame, trials: DataFrame) -> Iterator[Picture]:
    """A line for each batch size, and a panel for each optimizer that was run with more than one batch size."""
    trials = axis_trials(trials, "batch_size")
    several = trials.groupby("optimizer")["batch_size"].nunique() if len(trials) else Series(dtype=int)
    labels = [label for label in ordered(several.index) if several[label] > 1]
    if not labels:
        return
    curves = curves_of(table, trials)
    sizes = sorted(trials["batch_size"].dropna().unique())
    colors = dict(zip(sizes, colormaps["viridis"](np.linspace(0, 0.85, len(sizes))), strict=True))
    figure, plots = _grid(len(labels), columns=4 if len(labels) > 6 else 2)
    for plot, label in zip(plots, labels, strict=False):
        for size, curve in _by(curves, trials, label, "batch_size").items():
            plot.plot(curve, color=colors[size], label=setting(size), linewidth=1.6)
        rate = trials.loc[trials["optimizer"] == label, "initial_lr"].iloc[0]
        _finish(plot, trials, f"{label}, lr {setting(rate)}" if pd.notna(rate) else label, has_legend=False)
    _share_scale(plots[: len(labels)])
    handles = {line.get_label(): line for plot in plots[: len(labels)] for line in plot.lines}
    names = [
        setting(size) for size in sizes if setting(size) in handles
    ]  # a batch size may belong only to optimizers without a panel
    figure.legend(
        [handles[name] for name in names], names, title="batch size", loc="outside right upper", frameon=False
    )
    figure.suptitle(f"{trials['workload'].iloc[0]}: score after each epoch, by batch size")
    caption = (
        "Score after each epoch, mean over seeds, a line for each batch size. Where the lines are close, the batch size"
    )
    yield Picture("curves_by_batch_size", f"{caption} matters little.", figure)


def _panels(trials: DataFrame) -> list[tuple[str, list[str]]]:
    labels = ordered(trials["optimizer"])
    found = pairs(labels)
    panels = [
        (f"{found[label]}\n{label}" if len(label) > 20 else f"{found[label]} and {label}", [found[label], label])
        for label in labels
        if label in found
    ]
    partners = {label for _, pair in panels for label in pair}
    alone = [label for label in labels if label not in partners]
    return [*panels, (OTHERS if panels else "", alone)] if alone else panels


def _by(curves: DataFrame, trials: DataFrame, label: str, axis: str) -> DataFrame:
    """(epochs, values): the mean scores of one optimizer over seeds, at each value of the axis."""
    own = trials[trials["optimizer"] == label].set_index("trial")[axis].fillna(0.0)
    return curves[own.index].T.groupby(own).mean(skipna=False).T


def _band(plot: Axes, means: DataFrame, label: str, look: Style) -> None:
    mean, deviation = means.mean(axis=1, skipna=False), means.std(axis=1, ddof=0, skipna=False)
    every = max(len(mean) // 8, 1)
    plot.plot(mean, label=label, linewidth=1.8, markersize=5, markevery=every, **look._asdict())
    shade = 0.25 if look.linestyle == "-" else 0.1
    low = np.maximum(
        mean - deviation, means.min(axis=1)
    )  # so a band shows no accuracy above 1 and no perplexity below 0
    high = np.minimum(mean + deviation, means.max(axis=1))
    plot.fill_between(mean.index, low, high, color=look.color, alpha=shade, linewidth=0)
    for edge in (low, high):
        plot.plot(edge, color=look.color, linewidth=0.6, linestyle=look.linestyle, alpha=0.6)


def _grid(panels: int, columns: int = COLUMNS) -> tuple[Figure, list[Axes]]:
    columns = min(panels, columns)
    rows = -(-panels // columns)
    figure = Figure(figsize=(4.2 * columns + 0.6, 3.3 * rows + 0.5), layout="constrained")
    plots = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for plot in plots[panels:]:
        plot.set_axis_off()
    return figure, plots


def _finish(plot: Axes, trials: DataFrame, title: str, has_legend: bool = True) -> None:
    metric_axis(plot, trials)
    plot.set_xlabel("epoch")
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.set_title(title, fontsize=10)
    if has_legend:  # below the panel, where it cannot cover the data
        columns = 1 if max(map(len, plot.get_legend_handles_labels()[1])) > 24 else 2
        plot.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns, frameon=False, fontsize=8)


def _share_scale(plots: list[Axes]) -> None:
    """Give all panels the same vertical axis, so that they can be compared."""
    scale = "log" if any(plot.get_yscale() == "log" for plot in plots) else "linear"
    limits = [plot.get_ylim() for plot in plots if plot.lines]
    for plot in plots:
        if plot.get_yscale() != scale:
            plot.set_yscale(scale)
            plot.yaxis.set_major_formatter("{x:g}")
        plot.label_outer()
        plot.tick_params(labelbottom=True)
        plot.set_xlabel("epoch")
        plot.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
