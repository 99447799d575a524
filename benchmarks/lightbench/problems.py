"""Problems of LightBench (https://github.com/HomebrewML/LightBench) on a CPU.

The problems, their difficulties and their conditions to win are LightBench's. Its own loop needs a GPU, and its search
fetches samplers over the network, so what a module hands to that loop is caught. What it puts on ``cuda`` stays on the CPU.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

DIFFICULTY = "easy"
# Those of the 51 of its own runner that run on a CPU and take about a millisecond a step or less there, but for
# gradient_delay: it goes back through weights that a step in place has changed since.
PROBLEMS = [
    "beale",
    "rosenbrock",
    "rastrigin",
    "quadratic_varying_scale",
    "quadratic_varying_target",
    "saddle_point",
    "discontinuous_gradient",
    "wide_linear",
    "minimax",
    "plateau_navigation",
    "scale_invariant",
    "momentum_utilization",
    "batch_size_scaling",
    "layer_wise_scale",
    "parameter_scale",
    "dynamic_landscape",
    "generalization_summod",
    "generalization_weighted_summod",
    "quadratic_flip",
    "quadratic_outliers",
    "quadratic_sparse",
    "absolute_varying_scale",
    "vanishing_gradient",
    "ill_conditioned",
    "ill_conditioned_mismatched",
    "gradient_noise_scale_instantaneous_brown",
    "gradient_noise_scale_temporal_brown",
    "gradient_noise_scale_white",
    "gradient_noise_scale_heavy_tailed",
    "constrained_optimization_relu",
    "constrained_optimization_log",
    "non_markovian",
]


@dataclass
class Problem:
    """What a module of LightBench hands to its ``trial``; ``data`` gives an input and a target, or is None."""

    model: Any
    data: Callable[[], tuple[Any, Any]] | None
    loss_fn: Callable[..., torch.Tensor] | None
    win_condition: Callable[[Any, float], tuple[bool, dict[str, Any]]]

    def loss(self) -> torch.Tensor:
        inputs, targets = self.data() if self.data else (None, None)
        outputs = self.model() if inputs is None else self.model(inputs)
        return self.loss_fn(outputs, targets) if self.loss_fn else outputs


class CudaIsCpu(TorchFunctionMode):
    """Tensors that are asked for on ``cuda`` are made on the CPU, and those that shall move there stay."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        named = {name: self.on_cpu(value) for name, value in (kwargs or {}).items()}
        return func(*map(self.on_cpu, args), **named)

    @staticmethod
    def on_cpu(value: Any) -> Any:
        is_cuda = str(value).startswith("cuda") if isinstance(value, (str, torch.device)) else False
        return torch.device("cpu") if is_cuda else value


@contextmanager
def caught_trial(module: Any) -> Iterator[list[Problem]]:
    """Fill a list with what the module gives to ``trial``, instead of training."""
    caught: list[Problem] = []

    def trial(
        model: Any, data: Any, loss_fn: Any, win_condition: Any, *rest: Any, dtype: Any = None, **other: Any
    ) -> None:
        dtype = dtype[0] if isinstance(dtype, list) else dtype
        model = model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype) if dtype else model
        caught.append(Problem(model, data, loss_fn, win_condition))

    original, module.trial = module.trial, trial
    try:
        yield caught
    finally:
        module.trial = original


def build(name: str, seed: int) -> Problem:
    """A problem of LightBench as its command builds it, at the difficulty if it has several."""
    module = importlib.import_module(f"lightbench.{name}")
    defaults = {
        key: getattr(p.default, "default", p.default) for key, p in inspect.signature(module.main).parameters.items()
    }
    torch.manual_seed(seed)
    with caught_trial(module) as caught:
        try:
            module.main(**{**defaults, "config": DIFFICULTY})
        except importlib.import_module("lightbench.utils").SkipConfig:
            module.main(**{**defaults, "config": "trivial"})
    return caught[0]
