"""Figure 1: one weight whose best value is 2, where the sign of the gradient does not change, and where it does.

The loss is (weight - 2)^2 and every step is an epoch. From 0 the small learning rate 0.01 leaves the sign as it is: the gain
grows. The learning rate 0.95 jumps over the optimum in every step: the gain shrinks, and with it the jumps.
"""

from typing import Any

import torch
from matplotlib.figure import Figure

from activelr_service.optim import ActiveSGD

OPTIMUM, START, STEPS = 2.0, 0.0, 30
CASES = {"the sign does not change": 0.01, "the sign changes": 0.95}
COLORS = {"SGD": "#D55E00", "ActiveSGD": "#0072B2"}


def compute() -> list[dict[str, Any]]:
    """One row per case, optimizer and step: the weight, and the gain that will move it next."""
    return [row for case, lr in CASES.items() for name in COLORS for row in _descend(case, lr, name)]


def _descend(case: str, lr: float, name: str) -> list[dict[str, Any]]:
    weight = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    increment = 0.1 if name == "ActiveSGD" else 0.0
    decay = 0.9 if name == "ActiveSGD" else 1.0
    optimizer = ActiveSGD([weight], rule="paper", lr=lr, gain_increment=increment, gain_decay=decay, steps_per_epoch=1)
    rows = [{"case": case, "optimizer": name, "step": 0, "weight": START, "gain": 1.0}]
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        (weight - OPTIMUM).square().backward()
        optimizer.step()
        gain = optimizer.state[weight]["gain"].item()
        rows.append({"case": case, "optimizer": name, "step": step, "weight": weight.item(), "gain": gain})
    return rows


def summarize(table: list[dict[str, Any]]) -> list[str]:
    lines = [f"distance to the optimum after {STEPS} steps:"]
    for case, lr in CASES.items():
        last = {row["optimizer"]: row for row in table if row["case"] == case and row["step"] == STEPS}
        gaps = {name: abs(row["weight"] - OPTIMUM) for name, row in last.items()}
        gain = last["ActiveSGD"]["gain"]
        lines.append(f"  {case} (lr {lr}): SGD {gaps['SGD']:.2g}, ActiveSGD {gaps['ActiveSGD']:.2g}, gain {gain:.3g}")
    return lines


def draw(table: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, height_ratios=(2, 1))
    for column, (case, lr) in enumerate(CASES.items()):
        for name, color in COLORS.items():
            rows = [row for row in table if row["case"] == case and row["optimizer"] == name]
            steps = [row["step"] for row in rows]
            axes[0, column].plot(
                steps, [row["weight"] for row in rows], color=color, label=name, marker="o", markersize=3
            )
            axes[1, column].plot(steps, [row["gain"] for row in rows], color=color)
        axes[0, column].axhline(OPTIMUM, color="0.4", linestyle=":", label="optimum")
        axes[0, column].set(title=f"{case} (lr {lr})", ylabel="weight")
        axes[0, column].legend(frameon=False, loc="lower right")
        axes[1, column].set(xlabel="step", ylabel="gain", yscale="log")
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    figure.suptitle("Figure 1: one weight, every step an epoch")
    return figure
