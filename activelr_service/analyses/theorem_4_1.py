"""Theorem 4.1, numerically: has the gradient summed over an epoch of steps the sign of the one summed without steps?

Least squares in K batches. The theorem speaks of one parameter and a learning rate below the one at which the steps
diverge, here 2 over the largest curvature of a batch. Its proof needs more: that the steps of the epoch lower the loss of
*every* batch (inequality 13; that they lower the sum over batches would do), and with several parameters it bounds the
inner product of the two sums, not the sign of each coordinate. The table says how often each holds.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

TRIALS, BATCHES, ROWS = 300, 10, 4
DIMENSIONS = (1, 10)
DISTANCES = {"far from the optimum": 10.0, "near the optimum": 0.1}
RATIOS = (0.01, 0.1, 0.3, 0.6, 0.9)  # of the learning rate at which a batch's steps diverge
MEASURES = {
    "same_sign": "coordinates with the same sign",
    "inner_product": "inner product not negative",
    "every_batch_falls": "assumption (13): every batch's loss falls",
    "sum_falls": "the sum of the losses falls",
    "bound_holds": "bound (17) holds",
}


def compute() -> list[dict[str, Any]]:
    """One row per number of parameters, distance and learning rate: shares over 300 random problems (of coordinates, for
    the first)."""
    return [
        {"dimensions": dimensions, "start": start, "ratio": ratio, **_shares(dimensions, distance, ratio)}
        for dimensions in DIMENSIONS
        for start, distance in DISTANCES.items()
        for ratio in RATIOS
    ]


def _shares(dimensions: int, distance: float, ratio: float) -> dict[str, float]:
    rng = np.random.default_rng(0)
    results = [_trial(rng, dimensions, distance, ratio) for _ in range(TRIALS)]
    return {name: float(np.mean([result[name] for result in results])) for name in MEASURES}


def _trial(rng: np.random.Generator, dimensions: int, distance: float, ratio: float) -> dict[str, float]:
    features = rng.normal(size=(BATCHES, ROWS, dimensions))
    targets = rng.normal(size=(BATCHES, ROWS))  # noise only: the batches disagree about the optimum
    flat = features.reshape(-1, dimensions)
    optimum = np.linalg.lstsq(flat, targets.ravel(), rcond=None)[0]
    direction = rng.normal(size=dimensions)
    start = optimum + distance * direction / np.linalg.norm(direction)
    curvature = max(np.linalg.eigvalsh(batch.T @ batch / ROWS).max() for batch in features)
    lr = ratio * 2 / curvature

    def gradient(batch: int, weights: np.ndarray) -> np.ndarray:
        return features[batch].T @ (features[batch] @ weights - targets[batch]) / ROWS

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


def summarize(table: list[dict[str, Any]]) -> list[str]:
    lines = [f"shares of {TRIALS} least squares problems, {BATCHES} batches; lr as a share of the diverging one", ""]
    for dimensions, start in ((dimensions, start) for dimensions in DIMENSIONS for start in DISTANCES):
        rows = [row for row in table if row["dimensions"] == dimensions and row["start"] == start]
        plural = "parameter" + "s" * (dimensions > 1)
        lines.append(f"{dimensions} {plural}, {start}".ljust(46) + "".join(f"{row['ratio']:7g}" for row in rows))
        lines += [f"  {text:44}" + "".join(f"{row[name]:7.0%}" for row in rows) for name, text in MEASURES.items()]
    bound = min(row["bound_holds"] for row in table)
    silent = "where the loss does not fall, as near the optimum, it says nothing and signs differ"
    return [*lines, f"the bound (17), which needs convexity only, holds in {bound:.0%} of all; {silent}"]


def draw(table: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    styles = {"same_sign": ("#0072B2", "-"), "inner_product": ("#009E73", "--"), "every_batch_falls": ("#D55E00", "-")}
    cells = [(dimensions, start) for dimensions in DIMENSIONS for start in DISTANCES]
    for axis, (dimensions, start) in zip(figure.subplots(2, 2, sharey=True).flat, cells, strict=True):
        rows = [row for row in table if row["dimensions"] == dimensions and row["start"] == start]
        for name, (color, style) in styles.items():
            shares = [100 * row[name] for row in rows]
            axis.plot([row["ratio"] for row in rows], shares, style, color=color, marker="o", label=MEASURES[name])
        axis.set(
            title=f"{dimensions} parameter{'s' * (dimensions > 1)}, {start}", ylim=(-4, 104), ylabel="% of problems"
        )
        axis.set_xlabel("learning rate / the diverging one")
        axis.grid(alpha=0.3)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle("Theorem 4.1: the sign of the summed gradient, with steps and without")
    return figure
