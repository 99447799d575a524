"""Figures of a run: its learning curves, its steps or gains, and the norms of its gradients."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from activelr_service.runs.record import GRAD_NORM_PREFIX, Record, gain_edges, update_groups
from activelr_service.runs.update_figure import draw_updates

BLUE, VERMILION = matplotlib.color_sequences["okabe_ito"][5:7]  # color-blind readers can tell them apart
TRAIN_COLOR, VAL_COLOR = BLUE, VERMILION
SECOND_METRICS = ("accuracy", "map_50", "perplexity")
OTHER_SHARES = ("top5_accuracy", "balanced_accuracy", "macro_f1", "auroc", "map", "r2")
SHARES = ("accuracy", "map_50", *OTHER_SHARES)  # at most 1, higher is better


def draw_figures(folder: Path, history: list[Record], title: str, metric: str | None = None) -> list[Path]:
    """Write ``learning_curves.png``, ``updates.png`` (robust rule) or ``gain_histogram.png`` (paper's), and
    ``gradient_norms.png`` and ``.csv`` if there are any. The learning curves have one of ``metric``, too.

    Returns their paths.
    """
    folder.mkdir(exist_ok=True)
    pictures: dict[str, Any] = {"learning_curves.png": partial(_learning_curves, metric=metric)}
    if update_groups(history):
        pictures["updates.png"] = draw_updates
    elif any(sum(record.gain_histogram) for record in history):
        pictures["gain_histogram.png"] = _gain_histogram
    if _layers(history):
        pictures["gradient_norms.png"] = _gradient_norms
        _write_gradient_norms(folder / "gradient_norms.csv", history)
    for name, draw in pictures.items():
        figure = draw(history, title)
        figure.savefig(folder / name, dpi=130)
        plt.close(figure)
    return [folder / name for name in pictures]


def _learning_curves(history: list[Record], title: str, metric: str | None) -> Any:
    names = dict.fromkeys((*SECOND_METRICS, *([] if metric in (None, "loss") else [metric])))
    second = [name for name in names if any(f"val/{name}" in record.metrics for record in history)]
    panels = ["loss", *second]
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 3.8), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], panels, strict=True):
        for part, color in (("train", TRAIN_COLOR), ("val", VAL_COLOR)):
            points = [(r.epoch, r.metrics[f"{part}/{name}"]) for r in history if f"{part}/{name}" in r.metrics]
            if points:
                label = "training" if part == "train" else "validation"
                axis.plot(*zip(*points, strict=True), color=color, label=label, marker="o", markersize=3)
        values = [value for line in axis.lines for value in np.asarray(line.get_ydata())]
        if name not in SHARES and values and min(values) > 0:
            axis.set_yscale("log")
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        if values:
            axis.legend(frameon=False, loc="upper right" if name not in SHARES else "lower right")
        else:
            axis.text(0.5, 0.5, "not finite in any epoch", ha="center", va="center", transform=axis.transAxes)
    figure.suptitle(title)
    return figure


def _gain_histogram(history: list[Record], title: str) -> Any:
    """One column for each epoch: the share of parameters by gain as color, with the mean and two quantiles."""
    known = [record for record in history if record.gain_histogram]
    epochs = [record.epoch for record in known]
    counts = np.array([record.gain_histogram for record in known], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    used = np.flatnonzero(shares.sum(axis=0))
    edges = np.array(gain_edges())
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    columns = np.append(np.array(epochs) - 0.5, epochs[-1] + 0.5)
    masked = np.ma.masked_equal(shares.T, 0)
    mesh = axis.pcolormesh(columns, edges, masked, cmap="Blues", norm=LogNorm(1e-4, 1))
    figure.colorbar(mesh, label="share of parameters")
    for name, style in (("mean", "-"), ("q05", ":"), ("q95", ":")):
        values = [record.metrics.get(f"optim/gain_{name}", np.nan) for record in known]
        label = {"mean": "mean", "q05": "5 % and 95 % quantile", "q95": None}[name]
        axis.plot(epochs, values, style, color=VAL_COLOR, label=label)
    axis.set_yscale("log")
    axis.set_ylim(edges[max(used[0] - 2, 0)], edges[min(used[-1] + 3, len(edges) - 1)])
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set(xlabel="epoch", ylabel="gain", title=f"{title}: gains over epochs")
    axis.legend(frameon=False, loc="lower left")
    return figure


def _layers(history: list[Record]) -> list[str]:
    """The layers whose gradient norms were logged, from the first to the last."""
    names = dict.fromkeys(name for record in history for name in record.metrics if name.startswith(GRAD_NORM_PREFIX))
    return [name.removeprefix(GRAD_NORM_PREFIX) for name in names]


def _write_gradient_norms(path: Path, history: list[Record]) -> None:
    layers = _layers(history)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *layers])
        for record in history:
            writer.writerow([record.epoch, *(record.metrics.get(GRAD_NORM_PREFIX + layer) for layer in layers)])


def _gradient_norms(history: list[Record], title: str) -> Any:
    """Figure 2 of the paper: one line for each layer, the last in its own color, beside the training loss."""
    layers, epochs = _layers(history), [record.epoch for record in history]
    figure, (axis, loss_axis) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=(1.6, 1))
    colors = plt.get_cmap("viridis")(np.linspace(0.95, 0.1, len(layers)))
    for layer, color in zip(layers, colors, strict=True):
        is_last = layer == layers[-1]
        norms = [record.metrics.get(GRAD_NORM_PREFIX + layer, np.nan) for record in history]
        axis.plot(epochs, norms, color=VAL_COLOR if is_last else color, linewidth=2.5 if is_last else 1.2)
    scale = plt.cm.ScalarMappable(plt.Normalize(1, len(layers)), "viridis_r")
    figure.colorbar(scale, ax=axis, label="layer, from input to output", ticks=MaxNLocator(integer=True))
    axis.plot([], [], color=VAL_COLOR, linewidth=2.5, label=f"last layer, {layers[-1]}")
    axis.legend(frameon=False, loc="upper right")
    axis.set(xlabel="epoch", ylabel="mean L1 norm of the gradient")
    if any(record.metrics.get(GRAD_NORM_PREFIX + layer, 0) > 0 for record in history for layer in layers):
        axis.set_yscale("log")
    loss_axis.plot(epochs, [record.metrics.get("train/loss", np.nan) for record in history], color=TRAIN_COLOR)
    loss_axis.set(xlabel="epoch", ylabel="training loss")
    for each in (axis, loss_axis):
        each.grid(alpha=0.3)
        each.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(f"{title}: gradient norms over epochs")
    return figure
