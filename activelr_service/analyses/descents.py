"""Figures 1 and 3: descents of one or two weights. Every step is an epoch.

*Figure 1*, "sign cases": one weight with the loss (weight - 2)^2, from 0. With the learning rate 0.01 the gradient keeps
its sign, so the gain grows. With the learning rate 0.95 each step jumps over the optimum, so the gain and the jumps shrink.

*Figure 3*, "toy functions": three functions on which, as the paper says, Adam does not reach a minimum. The paper prints
only (b). (a) and (c) are here the simplest functions with the properties that it describes: (x - 3)^3, which is flat at 3
and falls without end, and x^2 + y^4/4 - y^2/2, which has a saddle at (0, 0) between minima at (0, 1) and (0, -1). "Algorithm
1 as printed" adds 0.1 to the learning rate itself: this is a gain increment of 0.1 / lr.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from activelr_service.optim import ActiveAdamW, ActiveSGD

GREEN, _, BLUE, VERMILION = matplotlib.color_sequences["okabe_ito"][3:7]

OPTIMUM, START, STEPS = 2.0, 0.0, 30
CASES = {"the sign does not change": 0.01, "the sign changes": 0.95}
COLORS_SIGNS = {"SGD": VERMILION, "ActiveSGD": BLUE}


def compute_signs() -> list[dict[str, Any]]:
    """A row for each case, optimizer and step: the weight, and the gain of its next step."""
    return [row for case, lr in CASES.items() for name in COLORS_SIGNS for row in _descend_signs(case, lr, name)]


def _descend_signs(case: str, lr: float, name: str) -> list[dict[str, Any]]:
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


def summarize_signs(table: list[dict[str, Any]]) -> list[str]:
    lines = [f"distance to the optimum after {STEPS} steps:"]
    for case, lr in CASES.items():
        last = {row["optimizer"]: row for row in table if row["case"] == case and row["step"] == STEPS}
        gaps = {name: abs(row["weight"] - OPTIMUM) for name, row in last.items()}
        gain = last["ActiveSGD"]["gain"]
        lines.append(f"  {case} (lr {lr}): SGD {gaps['SGD']:.2g}, ActiveSGD {gaps['ActiveSGD']:.2g}, gain {gain:.3g}")
    return lines


def draw_signs(table: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, height_ratios=(2, 1))
    for column, (case, lr) in enumerate(CASES.items()):
        for name, color in COLORS_SIGNS.items():
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
    figure.suptitle("Figure 1: descents of one weight (every step is an epoch)")
    return figure


COLORS_TOYS = {"Adam": VERMILION, "ActiveAdamW": BLUE, "Algorithm 1 as printed": GREEN}
FALLEN = -1e4  # a descent ends below this value: the function may have no lower bound


class Toy(NamedTuple):
    """A function, the start and the learning rate of its descents, and the largest number of steps."""

    function: Callable[[Tensor], Tensor]
    start: tuple[float, ...]
    lr: float
    steps: int


TOYS = {
    "a: (x - 3)^3": Toy(lambda p: (p[0] - 3) ** 3, (5.0,), 0.02, 400),
    "b: -x^3 - x^2 y + y^2 + 4y + 1680": Toy(
        lambda p: -(p[0] ** 3) - p[0] ** 2 * p[1] + p[1] ** 2 + 4 * p[1] + 1680, (-4.01, 6.0), 0.02, 1500
    ),
    "c: x^2 + y^4/4 - y^2/2": Toy(lambda p: p[0] ** 2 + p[1] ** 4 / 4 - p[1] ** 2 / 2, (0.5, 1e-3), 0.01, 150),
}
CRITICAL_POINTS = ((-4.0, 6.0), (0.0, -2.0), (1.0, -1.5))  # of (b). The paper calls all three local minima


def compute_toys() -> list[dict[str, Any]]:
    """A row for each function, optimizer and step: the point (y is empty for (a)) and its value."""
    return [row for toy in TOYS for optimizer in COLORS_TOYS for row in _descend_toys(toy, optimizer)]


def _descend_toys(name: str, optimizer_name: str) -> list[dict[str, Any]]:
    toy = TOYS[name]
    point = torch.nn.Parameter(torch.tensor(toy.start, dtype=torch.float64))
    optimizer = _build(optimizer_name, point, toy.lr)
    rows = []
    for step in range(toy.steps + 1):
        value = toy.function(point)
        x, y = (*point.tolist(), "")[:2]
        rows.append(
            {"function": name, "optimizer": optimizer_name, "step": step, "x": x, "y": y, "value": value.item()}
        )
        if value < FALLEN:
            break
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return rows


def _build(name: str, point: torch.nn.Parameter, lr: float) -> torch.optim.Optimizer:
    if name == "Adam":
        return torch.optim.Adam([point], lr=lr)
    increment = 0.1 if name == "ActiveAdamW" else 0.1 / lr
    return ActiveAdamW([point], rule="paper", lr=lr, weight_decay=0.0, gain_increment=increment, steps_per_epoch=1)


def classify(x: float, y: float) -> str:
    """The kind of a critical point of (b), from the gradient and the eigenvalues of the Hessian."""
    function, point = TOYS["b: -x^3 - x^2 y + y^2 + 4y + 1680"].function, torch.tensor([x, y], dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(function, point)
    if gradient.abs().max() > 1e-9:
        return "not critical"
    eigenvalues = torch.linalg.eigvalsh(torch.autograd.functional.hessian(function, point))
    return "a minimum" if (eigenvalues > 0).all() else "a saddle point"


def summarize_toys(table: list[dict[str, Any]]) -> list[str]:
    lines = []
    for name, toy in TOYS.items():
        lines.append(f"{name}, from {toy.start}, lr {toy.lr}:")
        for optimizer in COLORS_TOYS:
            last = [row for row in table if row["function"] == name and row["optimizer"] == optimizer][-1]
            place = f"({last['x']:.3g}" + (f", {last['y']:.3g})" if last["y"] != "" else ")")
            lines.append(f"  {optimizer:24} after {last['step']:4} steps at {place}, value {last['value']:.6g}")
    found = ", ".join(f"({x:g}, {y:g}) is {classify(x, y)}" for x, y in CRITICAL_POINTS)
    lines += [f"critical points of (b), which the paper calls local minima: {found}"]
    steps = ", ".join(f"{optimizer} {_steps_to_minimum(table, optimizer)}" for optimizer in COLORS_TOYS)
    return [*lines, f"steps to the minimum of (c) (value below -0.24; the paper: ActiveAdam 12): {steps}"]


def _steps_to_minimum(table: list[dict[str, Any]], optimizer: str) -> Any:
    rows = [row for row in table if row["function"].startswith("c") and row["optimizer"] == optimizer]
    return next((row["step"] for row in rows if row["value"] < -0.24), f"more than {rows[-1]['step']}")


def draw_toys(table: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    for axis, name in zip(figure.subplots(1, 3), TOYS, strict=True):
        for optimizer, color in COLORS_TOYS.items():
            rows = [row for row in table if row["function"] == name and row["optimizer"] == optimizer]
            axis.plot([row["step"] for row in rows], [row["value"] for row in rows], color=color, label=optimizer)
        if name.startswith("b"):
            axis.set(xlim=(-5, 250), ylim=(1600, 1720))
        if name.startswith("a"):
            axis.set_ylim(-20, 9)
        axis.set(title=name, xlabel="step", ylabel="value")
        axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="upper right")
    figure.suptitle("Figure 3: descents of three functions (every step is an epoch)")
    return figure
