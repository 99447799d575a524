"""One picture of several runs: their validation scores and their training losses, a color for each run."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from activelr_service.runs.record import Record

COLORS = matplotlib.color_sequences["petroff10"]  # color-blind readers can tell them apart
STYLES = ("-", "--", ":")  # of the first ten runs, of the next ten, and so on


def draw_comparison(path: Path, histories: dict[str, list[Record]], scores: dict[str, str], *, by_step: bool) -> None:
    """Write a picture with a panel for each score and one for the training loss.

    ``histories`` are the records of each run by its label, ``scores`` the name of the metric that measures it.
    ``by_step``: over optimizer steps in place of epochs. Raises ``OSError`` if the file cannot be written.
    """
    panels = [*dict.fromkeys(scores.values()), "train/loss"]
    rows = -(-len(histories) // 3)
    size = (6.2 * len(panels), 4.2 + 0.25 * rows)
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], panels, strict=True):
        for index, (label, history) in enumerate(histories.items()):
            if name in (scores[label], "train/loss"):
                color, style = COLORS[index % len(COLORS)], STYLES[index // len(COLORS) % len(STYLES)]
                _draw_run(axis, history, name, by_step, {"color": color, "linestyle": style, "label": label})
        _finish_panel(axis, name, by_step)
    handles = {line.get_label(): line for axis in axes[0] for line in axis.lines if line.get_label() in histories}
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=min(3, len(handles)), frameon=False
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_run(axis: Any, history: list[Record], name: str, by_step: bool, look: dict[str, Any]) -> None:
    known = [record for record in history if name in record.metrics]
    places = [record.global_step if by_step else record.epoch for record in known]
    values = [record.metrics[name] for record in known]
    marker = "o" if len(known) == 1 else None  # a line of one point cannot be seen
    axis.plot(places, values, linewidth=1.6, marker=marker, markersize=4, **look)


def _finish_panel(axis: Any, name: str, by_step: bool) -> None:
    values = [value for line in axis.lines for value in line.get_ydata()]
    is_loss = "loss" in name or "perplexity" in name
    if is_loss and values and min(values) > 0 and max(values) > 5 * min(values):
        axis.set_yscale("log")
    part, _, metric = name.partition("/")
    axis.set(xlabel="optimizer step" if by_step else "epoch")
    axis.set_title(f"{'training' if part == 'train' else 'validation'} {metric.replace('_', ' ')}")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    if not values:
        axis.text(0.5, 0.5, "not finite in any epoch", ha="center", va="center", transform=axis.transAxes)
