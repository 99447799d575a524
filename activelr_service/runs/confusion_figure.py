"""The confusion matrix as a picture and as a table."""

import csv
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.font_manager import findfont, get_font

MOST_NUMBERED, MOST_NAMED = 25, 100  # classes: with a number in each cell; with each name at the axes
LONGEST_NAME, MISTAKES_SHOWN = 24, 3
DPI = 130


def write_confusion(folder: Path, counts: np.ndarray, names: Sequence[str], title: str) -> list[Path]:
    """Write ``confusion.png`` and ``confusion.csv``; returns their paths.

    ``counts`` are int32 (true classes, predicted classes), ``names`` those of the classes.
    """
    folder.mkdir(exist_ok=True)
    picture, table = folder / "confusion.png", folder / "confusion.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["true class", *names])
        writer.writerows([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
    figure = _draw(counts, names, title)
    figure.savefig(picture, dpi=DPI)
    plt.close(figure)
    return [picture, table]


def _draw(counts: np.ndarray, names: Sequence[str], title: str) -> Any:
    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.55 * size, 3.0, 9.0)) if size <= MOST_NUMBERED else float(np.clip(0.17 * size, 8.0, 15.0))
    figure, axis = plt.subplots(figsize=(side + 2.8, side + 2.2), layout="constrained")
    scale = PowerNorm(1 if size <= MOST_NUMBERED else 0.5, 0, 1)  # without numbers, rare mistakes must be seen as well
    image = axis.imshow(shares, cmap="Blues", norm=scale, interpolation="nearest")
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    if size <= MOST_NUMBERED:
        _write_numbers(axis, counts, shares)
    _name_classes(axis, names)
    axis.set(xlabel="predicted class", ylabel="true class")
    lines = [wrapped for line in [title, *_summary(counts, names)] for wrapped in wrap(line, round(9 * (side + 2.8)))]
    figure.suptitle("\n".join(lines), fontsize=11, parse_math=False)
    return figure


def _write_numbers(axis: Any, counts: np.ndarray, shares: np.ndarray) -> None:
    cell_points = 72 * axis.figure.get_figwidth() / (1.5 * len(counts))
    font = min(11.0, cell_points / (0.75 * len(str(counts.max()))))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(count), ha="center", va="center", color=color, fontsize=font)


def _name_classes(axis: Any, names: Sequence[str]) -> None:
    size = len(names)
    shown = range(0, size, -(-size // MOST_NAMED))  # with very many classes only every second or third has its name
    labels = [_label(names[number], number) for number in shown]
    font = 9 if size <= MOST_NUMBERED else 7
    turned = 0 if max(map(len, labels)) * size <= 40 else 90
    axis.set_xticks(shown, labels, rotation=turned, fontsize=font)
    axis.set_yticks(shown, labels, fontsize=font)
    for label in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        label.set_parse_math(False)  # a dollar sign in a name begins no formula


def _label(name: str, number: int) -> str:
    """The name, shortened in its middle; the number of the class if the font cannot draw the name."""
    name = " ".join(name.split())
    font = get_font(findfont("DejaVu Sans"))
    if not name or not all(font.get_char_index(ord(sign)) for sign in name):
        return f"#{number}"
    return name if len(name) <= LONGEST_NAME else f"{name[:14]}…{name[-9:]}"


def _summary(counts: np.ndarray, names: Sequence[str]) -> list[str]:
    """How many samples are right, the most frequent mistakes if the cells have no numbers, and where missing names are."""
    labels = [_label(name, number) for number, name in enumerate(names)]
    lines = [f"{np.trace(counts):,} of {counts.sum():,} right, {len(counts):,} classes"]
    mistakes = counts - np.diag(np.diag(counts))
    if len(counts) > MOST_NUMBERED and mistakes.any():
        worst = np.argsort(-mistakes, axis=None, kind="stable")[:MISTAKES_SHOWN]
        pairs = [divmod(int(index), len(counts)) for index in worst if mistakes.flat[index]]
        shown = [f"{labels[true]} as {labels[guess]} ({mistakes[true, guess]:,})" for true, guess in pairs]
        lines.append(f"most frequent mistakes: {', '.join(shown)}")
    if any(label == f"#{number}" != name for number, (label, name) in enumerate(zip(labels, names, strict=True))):
        lines.append("confusion.csv has the names of the classes whose numbers are shown")
    return lines
