"""Theorem 5.1, numerically: is one epoch of ActiveSGD at least as good as one of SGD on a convex function?

The bound f(S) - f(A) >= g(A)_{e+2} (alpha' - alpha) g_{e+1} (inequality 27) is that of convexity and holds always. That
its right side is not negative, which makes ActiveSGD the better one, needs that the next gradient keeps the sign that
decided: g_{e+2} g_{e+1} has the sign of g_{e+1} g_e. Where a larger step jumps over the optimum, it has not.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

TRIALS = 2000
DIMENSIONS = (1, 10)
RATIOS = (0.05, 0.2, 0.35, 0.44, 0.47, 0.49, 0.52, 0.6, 0.7, 0.8, 0.9)  # of the learning rate at which SGD diverges
GROWTH, DECAY = 1.1, 0.9  # of the learning rate: the rule's first move from a gain of 1
MEASURES = {
    "bound_holds": "(27) holds",
    "not_negative": "its right side is not negative",
    "better": "ActiveSGD is as good or better",
}


def compute() -> list[dict[str, Any]]:
    """One row per number of parameters and learning rate: shares over 2,000 random convex quadratics."""
    return [
        {"dimensions": dimensions, "ratio": ratio, **_shares(dimensions, ratio)}
        for dimensions in DIMENSIONS
        for ratio in RATIOS
    ]


def _shares(dimensions: int, ratio: float) -> dict[str, float]:
    rng = np.random.default_rng(0)
    results = [_trial(rng, dimensions, ratio) for _ in range(TRIALS)]
    return {name: float(np.mean([result[name] for result in results])) for name in MEASURES}


def _trial(rng: np.random.Generator, dimensions: int, ratio: float) -> dict[str, bool]:
    factors = rng.normal(size=(dimensions, dimensions))
    hessian = factors @ factors.T / dimensions
    lr = ratio * 2 / np.linalg.eigvalsh(hessian).max()
    previous = rng.normal(size=dimensions)
    point = previous - lr * hessian @ previous  # an epoch of SGD before, which the sign is compared with
    before, gradient = hessian @ previous, hessian @ point
    rates = lr * np.where(before * gradient > 0, GROWTH, DECAY)
    vanilla, active = point - lr * gradient, point - rates * gradient

    def value(weights: np.ndarray) -> float:
        return float(weights @ hessian @ weights / 2)

    gain = value(vanilla) - value(active)
    bound = float((hessian @ active) @ ((rates - lr) * gradient))
    tolerance = 1e-12 * value(previous)
    return {"bound_holds": gain >= bound - tolerance, "not_negative": bound >= 0, "better": gain >= -tolerance}


def summarize(table: list[dict[str, Any]]) -> list[str]:
    lines = [f"shares of {TRIALS:,} convex quadratics; lr as a share of the diverging one", ""]
    for dimensions in DIMENSIONS:
        rows = [row for row in table if row["dimensions"] == dimensions]
        plural = "parameter" + "s" * (dimensions > 1)
        lines.append(f"{dimensions} {plural}".ljust(36) + "".join(f"{row['ratio']:7g}" for row in rows))
        lines += [f"  {text:34}" + "".join(f"{row[name]:7.0%}" for row in rows) for name, text in MEASURES.items()]
    bound = min(row["bound_holds"] for row in table)
    least = min(row["better"] for row in table)
    worse = f"ActiveSGD is then worse, in up to {1 - least:.0%} of the problems at one learning rate"
    return [
        *lines,
        f"(27) holds in {bound:.0%} of all; its right side is negative where the next gradient turns: {worse}",
    ]


def draw(table: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    colors = dict(zip(MEASURES, ("#0072B2", "#D55E00", "#009E73"), strict=True))
    for axis, dimensions in zip(figure.subplots(1, 2, sharey=True), DIMENSIONS, strict=True):
        rows = [row for row in table if row["dimensions"] == dimensions]
        for name, text in MEASURES.items():
            shares = [100 * row[name] for row in rows]
            style = "--" if name == "better" else "-"
            axis.plot([row["ratio"] for row in rows], shares, style, color=colors[name], marker="o", label=text)
        axis.set(title=f"{dimensions} parameter{'s' * (dimensions > 1)}", xlabel="learning rate / the diverging one")
        axis.set(ylim=(-4, 104), ylabel="% of problems")
        axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="lower left")
    figure.suptitle("Theorem 5.1: one epoch of ActiveSGD against one of SGD")
    return figure
