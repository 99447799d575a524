"""What all figures of a report share: colors, line styles, axes and legends."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from activelr_service.reports.labels import direction, family_of, is_active, metric_name, ordered
from activelr_service.reports.metrics import Floats

BLACK, ORANGE, SKY, GREEN, _, BLUE, VERMILION, PURPLE = matplotlib.color_sequences["okabe_ito"]
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)  # without yellow: it is too pale
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*")
WIDE_SPAN = 5


class Picture(NamedTuple):
    """A figure, the name of its files without the extension, and a caption that tells how to read it."""

    name: str
    caption: str
    figure: Figure


class Style(NamedTuple):
    """How the line of an optimizer is drawn. A pair has one color and marker; the ActiveLR variant is solid and filled."""

    color: str
    marker: str
    linestyle: str
    markerfacecolor: str


def file_name(text: str) -> str:
    """The text as a file name: an underscore replaces all that is not a letter, a digit, a dot or a dash."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "workload"


def metric_axis(plot: Axes, rows: DataFrame) -> None:
    """Label the vertical axis with the metric of the rows, make it logarithmic for a wide range, and draw a grid."""
    first = rows.iloc[0]
    plot.set_ylabel(f"{metric_name(first['metric'])}\n({direction(first['higher_is_better'])})")
    values = [np.asarray(line.get_ydata(), dtype=float) for line in plot.lines]
    if values and is_wide(np.concatenate(values), first["higher_is_better"]):
        plot.set_yscale("log")
        plot.yaxis.set_major_formatter("{x:g}")
    plot.grid(alpha=0.3)


def is_wide(values: Floats, higher_is_better: bool) -> bool:
    """Whether the scale is logarithmic: for a loss or a perplexity whose largest value is over 5 times the smallest."""
    values = values[np.isfinite(values)]
    return not higher_is_better and len(values) > 0 and bool(0 < values.min() * WIDE_SPAN < values.max())


def legend_beside(figure: Figure, plot: Axes) -> None:
    """Draw the legend to the right of the figure, where it cannot cover the data."""
    entries = zip(*plot.get_legend_handles_labels(), strict=True)
    # Matplotlib puts lines with error bars last.
    handles, labels = zip(*sorted(entries, key=lambda entry: isinstance(entry[0], Line2D)), strict=True)
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8, handlelength=3.2)


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """A style for each label. Up to 77 pairs and single optimizers differ in color or marker."""
    families = list(dict.fromkeys(family_of(label) for label in ordered(labels)))
    places = {family: place for place, family in enumerate(families)}
    return {label: _style(places[family_of(label)], is_active(label)) for label in ordered(labels)}


def _style(place: int, active: bool) -> Style:
    color, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
    return Style(color, marker, "-", color) if active else Style(color, marker, "--", "white")
