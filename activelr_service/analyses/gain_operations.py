"""Figure 13 and appendix A.3: which pairs of operations keep a gain in range for 10,000 epochs.

In each epoch the gain is decreased with probability 1/2, and increased otherwise. The rule of the paper multiplies by 0.9
and adds 0.1. It has a stationary distribution: m = (0.9 m + m + 0.1) / 2 gives the mean 1, and
s = (0.81 s + s + 0.2 m + 0.01) / 2 gives the second moment 0.105 / 0.095. So the standard deviation is sqrt(1/9.5) = 0.324.
The paper has 1.0 and 0.3.
"""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

BLUE = matplotlib.color_sequences["okabe_ito"][5]

EPOCHS, CHAINS, EVERY = 10_000, 400, 50
LOW, HIGH = 0.9, 0.1  # alpha_low and alpha_high of the paper
Operation = Callable[[np.ndarray], np.ndarray]

# The first pair is that of the paper. The others subtract 0.1 instead of multiplying, or multiply instead of adding.
PAIRS: dict[str, tuple[Operation, Operation]] = {
    "multiply by 0.9, add 0.1": (lambda gain: gain * LOW, lambda gain: gain + HIGH),
    "subtract 0.1, add 0.1": (lambda gain: gain - HIGH, lambda gain: gain + HIGH),
    "subtract 0.1, multiply by 1.1": (lambda gain: gain - HIGH, lambda gain: gain * (1 + HIGH)),
    "multiply by 0.9, multiply by 1.1": (lambda gain: gain * LOW, lambda gain: gain * (1 + HIGH)),
}


def compute() -> list[dict[str, Any]]:
    """A row for each pair and every 50 epochs, over 400 independent chains that start at 1.

    It has the mean, the deviation, the 5 %, 50 % and 95 % quantiles, and the fractions of the chains that are at most 0
    (``not_positive``), smaller than 1e-6 in magnitude (``vanished``), and above 1,000.
    """
    return [row for pair, operations in PAIRS.items() for row in _simulate(pair, *operations)]


def _simulate(pair: str, decrease: Operation, increase: Operation) -> list[dict[str, Any]]:
    rng, gain, rows = np.random.default_rng(0), np.ones(CHAINS), []
    for epoch in range(1, EPOCHS + 1):
        with np.errstate(over="ignore"):
            gain = np.where(rng.random(CHAINS) < 0.5, decrease(gain), increase(gain))
        if epoch % EVERY == 0:
            rows.append({"pair": pair, "epoch": epoch, **_describe(gain)})
    return rows


def _describe(gain: np.ndarray) -> dict[str, float]:
    q05, q50, q95 = np.quantile(gain, [0.05, 0.5, 0.95])
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = gain.mean(), gain.std()
    fractions = {"not_positive": gain <= 0, "vanished": np.abs(gain) < 1e-6, "above_1000": gain > 1000}
    return {
        "mean": float(mean),
        "deviation": float(deviation),
        "q05": float(q05),
        "q50": float(q50),
        "q95": float(q95),
        **{name: float(hit.mean()) for name, hit in fractions.items()},
    }


def summarize(table: list[dict[str, Any]]) -> list[str]:
    lines = [f"after {EPOCHS:,} epochs, {CHAINS} chains:   median     <= 0   < 1e-6   > 1000"]
    for pair in PAIRS:
        last = [row for row in table if row["pair"] == pair][-1]
        fractions = "".join(f"{last[name]:9.0%}" for name in ("not_positive", "vanished", "above_1000"))
        lines.append(f"  {pair:34}{last['q50']:9.3g}{fractions}")
    settled = [row for row in table if row["pair"] == next(iter(PAIRS)) and row["epoch"] > EPOCHS // 2]
    mean, deviation = (np.mean([row[name] for row in settled]) for name in ("mean", "deviation"))
    return [
        *lines,
        f"multiply-add: mean {mean:.3f}, deviation {deviation:.3f} (exactly: 1 and 0.324; the paper: 1.0, 0.3)",
    ]


def draw(table: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    for axis, pair in zip(figure.subplots(2, 2).flat, PAIRS, strict=True):
        rows = [row for row in table if row["pair"] == pair]
        epochs = [row["epoch"] for row in rows]
        low, middle, high = (np.array([row[name] for row in rows]) for name in ("q05", "q50", "q95"))
        axis.fill_between(epochs, low, high, color=BLUE, alpha=0.25, label="5 % to 95 %")
        axis.plot(epochs, middle, color=BLUE, label="median")
        axis.axhline(0, color="0.4", linewidth=0.8)
        if max(high.max(), -low.min()) > 1e3:
            axis.set_yscale("symlog", linthresh=1)
            axis.set_yticks([-1e200, -1e100, 0, 1e100, 1e200], minor=False)
            axis.minorticks_off()
        axis.set(title=pair, xlabel="epoch", ylabel="gain")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, loc="upper left")
    figure.suptitle("Figure 13: a gain over 10,000 epochs, for four pairs of operations")
    return figure
