"""Figure 3: three functions on which Adam gets stuck, in the paper's account.

The paper prints (b) only; (a) and (c) are the simplest functions with the properties that it states: (x - 3)^3, flat at 3
and falling without end, and x^2 + y^4/4 - y^2/2, a saddle at (0, 0) between minima at (0, 1) and (0, -1). Every step is an
epoch. "Algorithm 1 as printed" adds 0.1 to the learning rate itself: a gain increment of 0.1 / lr.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from activelr_service.optim import ActiveAdamW

COLORS = {"Adam": "#D55E00", "ActiveAdamW": "#0072B2", "Algorithm 1 as printed": "#009E73"}
FALLEN = -1e4  # of functions without a lower bound: the descent is over


class Toy(NamedTuple):
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
CRITICAL_POINTS = ((-4.0, 6.0), (0.0, -2.0), (1.0, -1.5))  # of (b); the paper calls all three local minima


def compute() -> list[dict[str, Any]]:
    """One row per function, optimizer and step: the point (y is empty for (a)) and the value there."""
    return [row for toy in TOYS for optimizer in COLORS for row in _descend(toy, optimizer)]


def _descend(name: str, optimizer_name: str) -> list[dict[str, Any]]:
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
    """What (b) has at a critical point, from the gradient and the eigenvalues of its Hessian."""
    function, point = TOYS["b: -x^3 - x^2 y + y^2 + 4y + 1680"].function, torch.tensor([x, y], dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(function, point)
    if gradient.abs().max() > 1e-9:
        return "not critical"
    eigenvalues = torch.linalg.eigvalsh(torch.autograd.functional.hessian(function, point))
    return "a minimum" if (eigenvalues > 0).all() else "a saddle point"


def summarize(table: list[dict[str, Any]]) -> list[str]:
    lines = []
    for name, toy in TOYS.items():
        lines.append(f"{name}, from {toy.start}, lr {toy.lr}:")
        for optimizer in COLORS:
            last = [row for row in table if row["function"] == name and row["optimizer"] == optimizer][-1]
            place = f"({last['x']:.3g}" + (f", {last['y']:.3g})" if last["y"] != "" else ")")
            lines.append(f"  {optimizer:24} after {last['step']:4} steps at {place}, value {last['value']:.6g}")
    found = ", ".join(f"({x:g}, {y:g}) is {classify(x, y)}" for x, y in CRITICAL_POINTS)
    lines += [f"critical points of (b), which the paper calls local minima: {found}"]
    steps = ", ".join(f"{optimizer} {_steps_to_minimum(table, optimizer)}" for optimizer in COLORS)
    return [*lines, f"steps to the minimum of (c) (value below -0.24; the paper: ActiveAdam 12): {steps}"]


def _steps_to_minimum(table: list[dict[str, Any]], optimizer: str) -> Any:
    rows = [row for row in table if row["function"].startswith("c") and row["optimizer"] == optimizer]
    return next((row["step"] for row in rows if row["value"] < -0.24), f"more than {rows[-1]['step']}")


def draw(table: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    for axis, name in zip(figure.subplots(1, 3), TOYS, strict=True):
        for optimizer, color in COLORS.items():
            rows = [row for row in table if row["function"] == name and row["optimizer"] == optimizer]
            axis.plot([row["step"] for row in rows], [row["value"] for row in rows], color=color, label=optimizer)
        if name.startswith("b"):
            axis.set(xlim=(-5, 250), ylim=(1600, 1720))
        if name.startswith("a"):
            axis.set_ylim(-20, 9)
        axis.set(title=name, xlabel="step", ylabel="value")
        axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="upper right")
    figure.suptitle("Figure 3: descents, every step an epoch")
    return figure
