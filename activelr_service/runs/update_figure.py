"""A picture of what the robust rule did: how far each group of tensors stepped, and what it read."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from activelr_service.runs.record import Record, update_groups, update_series

PANELS = {
    "update_ratio": "step, share of the tensor's size",
    "effective_lr": "effective learning rate",
    "sign_agreement": "share of agreeing signs",
    "clip_fraction": "share of steps cut by the cap",
}
SHARES = ("sign_agreement", "clip_fraction")


def draw_updates(history: list[Record], title: str) -> Any:
    """Four panels over epochs, a line a group of tensors, from the input (light) to the output (dark)."""
    groups = update_groups(history)
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.6), layout="constrained", sharex=True)
    colors = plt.get_cmap("viridis")(np.linspace(0.92, 0.05, len(groups)))
    for axis, (field, label) in zip(axes.flat, PANELS.items(), strict=True):
        for group, color in zip(groups, colors, strict=True):
            points = update_series(history, field, group)
            epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
            axis.plot(epochs, values, color=color, label=group, marker="o", markersize=2.5, linewidth=1.3)
        _set_scale(axis, field)
        axis.set_ylabel(label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    figure.align_ylabels()
    figure.suptitle(f"{title}: what the robust rule did")
    return figure


def _set_scale(axis: Any, field: str) -> None:
    if field in SHARES:
        axis.set_ylim(-0.03, 1.03)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        return
    if not any(value > 0 for line in axis.lines for value in line.get_ydata()):
        return
    axis.set_yscale("log")
    if field == "update_ratio":
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
