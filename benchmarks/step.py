"""milliseconds of an optimizer step at the size of ResNet-50, the ratio to fused AdamW, and bytes of state a parameter"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torchvision.models import resnet50

from activelr_service.optim import ActiveAdamW, ActiveBelief, ActiveMuon, ActiveRAdam, ActiveSGD, RobustConstants

ROUNDS = 9
FAR = 10**9  # steps
TWO_PASSES = RobustConstants(hold=0.0)  # what a step costs whose size could not be known before
MANY = (2_000, 10_000)  # tensors
SMALL = 100  # elements of each
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LARGE = (40, 25_000_000)  # on a GPU: so many tensors of so many elements, 1e9 parameters
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "torch AdamW fused": lambda params: torch.optim.AdamW(params, fused=True),
    "torch AdamW foreach": lambda params: torch.optim.AdamW(params, foreach=True),
    "ActiveAdamW": lambda params: ActiveAdamW(params, total_steps=100_000),
    "ActiveAdamW, two passes": lambda params: ActiveAdamW(params, total_steps=100_000, constants=TWO_PASSES),
    "ActiveSGD": lambda params: ActiveSGD(params, total_steps=100_000, momentum=0.9),
    "ActiveMuon": lambda params: ActiveMuon(params, total_steps=100_000),
    "ActiveAdamW, list form": lambda params: ActiveAdamW(params, total_steps=100_000, fused=False),
    "ActiveAdamW, paper's rule": lambda params: ActiveAdamW(params, rule="paper"),
    "ActiveAdamW, paper's rule, list form": lambda params: ActiveAdamW(params, rule="paper", fused=False),
    "ActiveSGD, paper's rule": lambda params: ActiveSGD(params, rule="paper", momentum=0.9),
    "ActiveRAdam, paper's rule": lambda params: ActiveRAdam(params, rule="paper"),
    "ActiveBelief, paper's rule": lambda params: ActiveBelief(params, rule="paper"),
}


def measure() -> dict[str, float]:
    """Rounds of one step each, in turn; the median. The state is counted after two ends of an epoch."""
    params = resnet_sized_params()
    count = sum(param.numel() for param in params)
    optimizers = {name: build(params) for name, build in OPTIMIZERS.items()}
    times = rounds(optimizers)
    figures = {name: 1000 * median(taken) for name, taken in times.items()}
    fused = figures["torch AdamW fused"]
    figures |= {
        f"{name}, times fused AdamW": value / fused for name, value in figures.items() if name != "torch AdamW fused"
    }
    for name, label in (("ActiveAdamW", "a window"), ("ActiveAdamW, paper's rule", "an epoch, paper's rule")):
        figures[f"the end of {label}"] = 1000 * median(timed(optimizers[name].end_sums) for _ in range(3))
        figures[f"the end of {label}, times fused AdamW"] = figures[f"the end of {label}"] / fused
    figures |= {f"{name}, state": state_bytes(optimizer) / count for name, optimizer in optimizers.items()}
    if DEVICE == "cuda":
        figures |= gpu_figures(optimizers)
    del optimizers, params
    for count in MANY:
        figures |= alike_tensors(count, SMALL)
    return figures | (alike_tensors(*LARGE) if DEVICE == "cuda" else {})


def alike_tensors(count: int, size: int) -> dict[str, float]:
    """Milliseconds of a step and of the end of the sums with so many tensors of so many elements. Small ones show what a
    tensor costs, whatever its size. Steps are taken in turn."""
    params = [torch.nn.Parameter(torch.randn(size, device=DEVICE)) for _ in range(count)]
    for param in params:
        param.grad = torch.randn_like(param)
    label = f"{count:,} tensors" if size == SMALL else f"{count * size:.0e} parameters"
    names = ("torch AdamW fused", "ActiveAdamW", "ActiveAdamW, paper's rule")
    optimizers = {name: OPTIMIZERS[name](params) for name in names}
    times = rounds(optimizers)
    figures = {f"{name}, {label}": 1000 * median(taken) for name, taken in times.items()}
    fused = figures[f"torch AdamW fused, {label}"]
    for name in names[1:]:
        figures[f"{name}, {label}, times fused AdamW"] = figures[f"{name}, {label}"] / fused
        end = 1000 * median(timed(optimizers[name].end_sums) for _ in range(3))
        figures[f"{name}, {label}, the end of the sums, times fused AdamW"] = end / fused
    return figures


def gpu_figures(optimizers: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of a step on the GPU alone: the host has launched it while the GPU was busy with something else. This is
    what a step costs where training keeps the GPU busy."""
    matrix = torch.randn(8192, 8192, device=DEVICE)
    figures: dict[str, float] = {}
    for name, optimizer in optimizers.items():
        if "Muon" in name or "list" in name:  # their host takes longer than the GPU is kept busy
            continue
        times = []
        for _ in range(ROUNDS):
            torch.cuda.synchronize()
            for _ in range(3):
                matrix @ matrix
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            optimizer.step()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
        figures[f"{name}, GPU alone"] = median(times)
    fused = figures["torch AdamW fused, GPU alone"]
    ratios = {f"{name}, times fused AdamW": time / fused for name, time in figures.items() if "torch" not in name}
    return figures | ratios


def rounds(optimizers: dict[str, Any]) -> dict[str, list[float]]:
    """Seconds of one step each, in turn, after a warm-up."""
    for optimizer in optimizers.values():
        warm_up(optimizer)
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(ROUNDS):
        for name, optimizer in optimizers.items():
            times[name].append(timed(optimizer.step))
    return times


def resnet_sized_params() -> list[torch.nn.Parameter]:
    params = [torch.nn.Parameter(param.detach().to(DEVICE)) for param in resnet50().parameters()]
    for param in params:
        param.grad = torch.randn_like(param)
    return params


def warm_up(optimizer: torch.optim.Optimizer) -> None:
    """Allocate all state: two epochs of one step. No window ends in the steps that follow: its end is measured apart."""
    for _ in range(2):
        optimizer.step()
        getattr(optimizer, "end_sums", lambda: None)()
    for group in optimizer.param_groups:
        if "window_end" in group:
            group["window_end"] = FAR
    optimizer.step()


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    tensors = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in tensors if isinstance(value, torch.Tensor))


def timed(function: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
