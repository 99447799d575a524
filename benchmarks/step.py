"""An optimizer step at the size of ResNet-50, against torch's AdamW, and the memory of its state."""

import time
from statistics import median

import torch
from torchvision.models import resnet50

from activelr_service.optim import ActiveAdamW, ActiveBelief, ActiveRAdam, ActiveSGD

ROUNDS = 9
OPTIMIZERS = {
    "torch AdamW fused": lambda params: torch.optim.AdamW(params, fused=True),
    "torch AdamW foreach": lambda params: torch.optim.AdamW(params, foreach=True),
    "ActiveAdamW": lambda params: ActiveAdamW(params, total_steps=100_000),
    "ActiveAdamW, paper's rule": lambda params: ActiveAdamW(params, rule="paper"),
    "ActiveSGD, paper's rule": lambda params: ActiveSGD(params, rule="paper", momentum=0.9),
    "ActiveRAdam, paper's rule": lambda params: ActiveRAdam(params, rule="paper"),
    "ActiveBelief, paper's rule": lambda params: ActiveBelief(params, rule="paper"),
}


def main() -> None:
    """Rounds of one step each, in turn; the state is counted after two epoch ends."""
    params = resnet_sized_params()
    count = sum(param.numel() for param in params)
    optimizers = {name: build(params) for name, build in OPTIMIZERS.items()}
    for optimizer in optimizers.values():
        warm_up(optimizer)
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(ROUNDS):
        for name, optimizer in optimizers.items():
            times[name].append(timed(optimizer.step))
    print(f"optimizer step, {count / 1e6:.1f} million float32 parameters, median of {ROUNDS}")
    print(f"{'':26}{'ms':>8}{'x fused':>9}{'x foreach':>11}{'state B/param':>15}")
    fused, foreach = (median(times[f"torch AdamW {kind}"]) for kind in ("fused", "foreach"))
    for name, optimizer in optimizers.items():
        taken = median(times[name])
        state = state_bytes(optimizer) / count
        print(f"{name:26}{1000 * taken:8.0f}{taken / fused:9.2f}{taken / foreach:11.2f}{state:15.1f}")
    ends = [timed(optimizers["ActiveAdamW, paper's rule"].end_sums) for _ in range(3)]
    print(f"the end of an epoch under the paper's rule, once an epoch: {1000 * median(ends):.0f} ms")


def resnet_sized_params() -> list[torch.nn.Parameter]:
    params = [torch.nn.Parameter(param.detach()) for param in resnet50().parameters()]
    for param in params:
        param.grad = torch.randn_like(param)
    return params


def warm_up(optimizer: torch.optim.Optimizer) -> None:
    """Allocate all state: two epochs of one step."""
    for _ in range(2):
        optimizer.step()
        getattr(optimizer, "end_sums", lambda: None)()


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    tensors = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in tensors if isinstance(value, torch.Tensor))


def timed(function) -> float:
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
