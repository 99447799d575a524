"""Pictures of a run: its learning curves, and how its gains spread out."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator, NullFormatter

from activelr_service.record import Record, gain_edges

TRAIN_COLOR, VAL_COLOR = "#0072B2", "#D55E00"  # Okabe & Ito, told apart by colour-blind readers
SHARES = ("accuracy", "map_50")  # from 0 to 1, higher is better
SECOND_METRICS = (*SHARES, "perplexity")


def draw_figures(folder: Path, history: list[Record], title: str) -> list[Path]:
    """Write ``learning_curves.png`` and ``gain_histogram.png``; returns their paths."""
    folder.mkdir(exist_ok=True)
    pictures = {"learning_curves.png": _learning_curves, "gain_histogram.png": _gain_histogram}
    for name, draw in pictures.items():
        figure = draw(history, title)
        figure.savefig(folder / name, dpi=130)
        plt.close(figure)
    return [folder / name for name in pictures]


def _learning_curves(history: list[Record], title: str) -> Any:
    second = [name for name in SECOND_METRICS if any(f"val/{name}" in record.metrics for record in history)]
    panels = ["loss", *second]
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 3.8), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], panels, strict=True):
        for part, color in (("train", TRAIN_COLOR), ("val", VAL_COLOR)):
            points = [(r.epoch, r.metrics[f"{part}/{name}"]) for r in history if f"{part}/{name}" in r.metrics]
            if points:
                label = "training" if part == "train" else "held out"
                axis.plot(*zip(*points, strict=True), color=color, label=label, marker="o", markersize=3)
        if name not in SHARES and all(value > 0 for line in axis.lines for value in np.asarray(line.get_ydata())):
            axis.set_yscale("log")
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, loc="upper right" if name not in SHARES else "lower right")
    figure.suptitle(title)
    return figure


def _gain_histogram(history: list[Record], title: str) -> Any:
    """A column an epoch, the share of parameters by gain as colour, with the mean and the 5 % and 95 % quantiles."""
    epochs = [record.epoch for record in history]
    counts = np.array([record.gain_histogram for record in history], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    used = np.flatnonzero(shares.sum(axis=0))
    edges = np.array(gain_edges())
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    columns = np.append(np.array(epochs) - 0.5, epochs[-1] + 0.5)
    masked = np.ma.masked_equal(shares.T, 0)
    mesh = axis.pcolormesh(columns, edges, masked, cmap="Blues", norm=LogNorm(1e-4, 1))
    figure.colorbar(mesh, label="share of parameters")
    for name, style in (("mean", "-"), ("q05", ":"), ("q95", ":")):
        values = [record.metrics[f"optim/gain_{name}"] for record in history]
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
