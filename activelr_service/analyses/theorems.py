"""Theorems 4.1 and 5.1, checked on random convex problems.

*Theorem 4.1* compares the gradient summed over an epoch of steps with the one summed without steps: do they have the same
sign? The theorem is about one parameter, and about learning rates below the one at which the steps diverge: here 2 over the
largest curvature of a batch. Its proof needs more: the steps must lower the loss of *every* batch (inequality 13; it is
enough that they lower the sum over batches). With several parameters it bounds the inner product of the two sums, and not
the sign of each coordinate. The table tells how often each statement holds, for least squares in several batches.

*Theorem 5.1*: is one epoch of ActiveSGD at least as good as one of SGD on a convex function? The bound
f(S) - f(A) >= g(A)_{e+2} (alpha' - alpha) g_{e+1} (inequality 27) follows from convexity and always holds. ActiveSGD is
better if the right side is not negative. For that the next gradient must keep its sign: g_{e+2} g_{e+1} must have the sign
of g_{e+1} g_e. It does not where a larger step jumps over the optimum.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GREEN, _, BLUE, VERMILION = matplotlib.color_sequences["okabe_ito"][3:7]

TRIALS_4_1, BATCHES, BATCH_SIZE = 300, 10, 4
TRIALS_5_1 = 2000
DIMENSIONS = (1, 10)
DISTANCES = {"far from the optimum": 10.0, "near the optimum": 0.1}
# Learning rates, as fractions of the one at which the steps of a batch (4.1) or of SGD (5.1) diverge.
RATIOS_4_1 = (0.01, 0.1, 0.3, 0.6, 0.9)
RATIOS_5_1 = (0.05, 0.2, 0.35, 0.44, 0.47, 0.49, 0.52, 0.6, 0.7, 0.8, 0.9)
GROWTH, DECAY = 1.1, 0.9  # factors of the learning rate: the first update of a gain of 1
MEASURES_4_1 = {
    "same_sign": "coordinates with the same sign",
    "inner_product": "inner product not negative",
    "every_batch_falls": "assumption (13): every batch's loss falls",
    "sum_falls": "the sum of the losses falls",
    "bound_holds": "bound (17) holds",
}
MEASURES_5_1 = {
    "bound_holds": "bound (27) holds",
    "not_negative": "its right side is not negative",
    "better": "ActiveSGD is as good or better",
}
STYLES_4_1 = {"same_sign": (BLUE, "-"), "inner_product": (GREEN, "--"), "every_batch_falls": (VERMILION, "-")}
STYLES_5_1 = {"bound_holds": (BLUE, "-"), "not_negative": (VERMILION, "-"), "better": (GREEN, "--")}
Rows = list[dict[str, Any]]


def compute_4_1() -> Rows:
    """A row for each number of parameters, distance and learning rate: fractions of 300 random problems.

    ``same_sign`` is a fraction of the coordinates.
    """
    return [
        {"dimensions": dimensions, "start": start, "ratio": ratio}
        | _fractions(TRIALS_4_1, partial(_trial_4_1, dimensions=dimensions, distance=distance, ratio=ratio))
        for dimensions in DIMENSIONS
        for start, distance in DISTANCES.items()
        for ratio in RATIOS_4_1
    ]


def compute_5_1() -> Rows:
    """A row for each number of parameters and learning rate: fractions of 2,000 random convex quadratics."""
    return [
        {"dimensions": dimensions, "ratio": ratio}
        | _fractions(TRIALS_5_1, partial(_trial_5_1, dimensions=dimensions, ratio=ratio))
        for dimensions in DIMENSIONS
        for ratio in RATIOS_5_1
    ]


def _fractions(trials: int, trial: Callable[[np.random.Generator], dict[str, Any]]) -> dict[str, float]:
    rng = np.random.default_rng(0)
    results = [trial(rng) for _ in range(trials)]
    return {name: float(np.mean([result[name] for result in results])) for name in results[0]}


def _trial_4_1(rng: np.random.Generator, dimensions: int, distance: float, ratio: float) -> dict[str, Any]:
    features = rng.normal(size=(BATCHES, BATCH_SIZE, dimensions))
    targets = rng.normal(size=(BATCHES, BATCH_SIZE))  # only noise: the batches have different optima
    flat = features.reshape(-1, dimensions)
    optimum = np.linalg.lstsq(flat, targets.ravel(), rcond=None)[0]
    direction = rng.normal(size=dimensions)
    start = optimum + distance * direction / np.linalg.norm(direction)
    curvature = max(np.linalg.eigvalsh(batch.T @ batch / BATCH_SIZE).max() for batch in features)
    lr = ratio * 2 / curvature

    def gradient(batch: int, weights: np.ndarray) -> np.ndarray:
        return features[batch].T @ (features[batch] @ weights - targets[batch]) / BATCH_SIZE

    def losses(weights: np.ndarray) -> np.ndarray:
        return ((features @ weights - targets) ** 2).mean(axis=1) / 2

    weights, with_steps = start, np.zeros(dimensions)
    for batch in range(BATCHES):
        step = gradient(batch, weights)
        with_steps, weights = with_steps + step, weights - lr * step
    without_steps = sum(gradient(batch, start) for batch in range(BATCHES))
    fall = losses(start) - losses(weights)
    return {
        "same_sign": np.mean(np.sign(with_steps) * np.sign(without_steps) >= 0),
        "inner_product": with_steps @ without_steps >= 0,
        "every_batch_falls": (fall >= 0).all(),
        "sum_falls": fall.sum() >= 0,
        "bound_holds": fall.sum() <= lr * with_steps @ without_steps + 1e-9,
    }


def _trial_5_1(rng: np.random.Generator, dimensions: int, ratio: float) -> dict[str, bool]:
    factors = rng.normal(size=(dimensions, dimensions))
    hessian = factors @ factors.T / dimensions
    lr = ratio * 2 / np.linalg.eigvalsh(hessian).max()
    previous = rng.normal(size=dimensions)
    point = previous - lr * hessian @ previous  # an epoch of SGD: the rule compares its sign with that of the next one
    before, gradient = hessian @ previous, hessian @ point
    rates = lr * np.where(before * gradient > 0, GROWTH, DECAY)
    sgd, active = point - lr * gradient, point - rates * gradient

    def value(weights: np.ndarray) -> float:
        return float(weights @ hessian @ weights / 2)

    gain = value(sgd) - value(active)
    bound = float((hessian @ active) @ ((rates - lr) * gradient))
    tolerance = 1e-12 * value(previous)
    return {"bound_holds": gain >= bound - tolerance, "not_negative": bound >= 0, "better": gain >= -tolerance}


def summarize_4_1(table: Rows) -> list[str]:
    text = f"{TRIALS_4_1} least-squares problems in {BATCHES} batches"
    lines = [f"fractions of {text}; learning rates as fractions of the diverging one", ""]
    for dimensions, start in ((dimensions, start) for dimensions in DIMENSIONS for start in DISTANCES):
        rows = [row for row in table if row["dimensions"] == dimensions and row["start"] == start]
        lines += _block(f"{_parameters(dimensions)}, {start}", rows, MEASURES_4_1, 46)
    bound = min(row["bound_holds"] for row in table)
    text = "Where the loss does not fall, as near the optimum, it proves nothing, and the signs can differ."
    return [*lines, f"Bound (17) needs convexity only and holds in {bound:.0%} of all problems. {text}"]


def summarize_5_1(table: Rows) -> list[str]:
    text = f"fractions of {TRIALS_5_1:,} convex quadratics; learning rates as fractions of the diverging one"
    lines = [text, ""]
    for dimensions in DIMENSIONS:
        rows = [row for row in table if row["dimensions"] == dimensions]
        lines += _block(_parameters(dimensions), rows, MEASURES_5_1, 36)
    bound, least = (min(row[name] for row in table) for name in ("bound_holds", "better"))
    text = "Its right side is negative where the next gradient changes its sign."
    worse = f"ActiveSGD is then worse, in up to {1 - least:.0%} of the problems at one learning rate."
    return [*lines, f"Bound (27) holds in {bound:.0%} of all problems. {text} {worse}"]


def _block(title: str, rows: Rows, measures: dict[str, str], width: int) -> list[str]:
    """The lines of a table with a column for each learning rate."""
    head = title.ljust(width) + "".join(f"{row['ratio']:7g}" for row in rows)
    return [
        head,
        *(f"  {text:{width - 2}}" + "".join(f"{row[name]:7.0%}" for row in rows) for name, text in measures.items()),
    ]


def _parameters(dimensions: int) -> str:
    return f"{dimensions} parameter{'s' * (dimensions > 1)}"


def draw_4_1(table: Rows) -> Figure:
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    cells = [(dimensions, start) for dimensions in DIMENSIONS for start in DISTANCES]
    for axis, (dimensions, start) in zip(figure.subplots(2, 2, sharey=True).flat, cells, strict=True):
        rows = [row for row in table if row["dimensions"] == dimensions and row["start"] == start]
        _draw_panel(axis, rows, MEASURES_4_1, STYLES_4_1, f"{_parameters(dimensions)}, {start}")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle("Theorem 4.1: the sign of the summed gradient, with and without steps")
    return figure


def draw_5_1(table: Rows) -> Figure:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axis, dimensions in zip(figure.subplots(1, 2, sharey=True), DIMENSIONS, strict=True):
        rows = [row for row in table if row["dimensions"] == dimensions]
        _draw_panel(axis, rows, MEASURES_5_1, STYLES_5_1, _parameters(dimensions))
    axis.legend(frameon=False, loc="lower left")
    figure.suptitle("Theorem 5.1: one epoch of ActiveSGD and one of SGD")
    return figure


def _draw_panel(
    axis: Axes, rows: Rows, measures: dict[str, str], styles: dict[str, tuple[str, str]], title: str
) -> None:
    for name, (color, style) in styles.items():
        percent = [100 * row[name] for row in rows]
        axis.plot([row["ratio"] for row in rows], percent, style, color=color, marker="o", label=measures[name])
    axis.set(title=title, xlabel="learning rate / diverging learning rate", ylim=(-4, 104), ylabel="% of problems")
    axis.grid(alpha=0.3)
