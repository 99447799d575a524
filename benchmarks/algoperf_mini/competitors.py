"""Optimizers at fixed, published points, as submissions with AlgoPerf's functions.

Where a schedule is named, it is a linear warm-up and a cosine to zero at ``step_hint``.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from activelr_service.optim import ActiveMuon, muon_groups
from benchmarks.algoperf import submission as active_adamw
from benchmarks.algoperf_mini import spec

Built = tuple[list[Optimizer], list[LRScheduler]]


class NadamW(Optimizer):
    """Adam with Nesterov's look-ahead in the first moment and decoupled weight decay (Choi et al. 2019, table 1)."""

    def __init__(self, params: Iterable[Any], lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": 1e-8, "step": 0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            grads = [param.grad for param in params]
            for param in params:
                self.state[param].setdefault("m", torch.zeros_like(param))
                self.state[param].setdefault("v", torch.zeros_like(param))
            ms, vs = ([self.state[param][name] for param in params] for name in "mv")
            (beta1, beta2), lr = group["betas"], group["lr"]
            group["step"] += 1
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
            torch._foreach_lerp_(ms, grads, 1 - beta1)
            torch._foreach_mul_(vs, beta2)
            torch._foreach_addcmul_(vs, grads, grads, 1 - beta2)
            ahead = torch._foreach_lerp(ms, grads, 1 - beta1)
            roots = torch._foreach_sqrt(vs)
            torch._foreach_div_(roots, math.sqrt(1 - beta2 ** group["step"]))
            torch._foreach_add_(roots, group["eps"])
            torch._foreach_addcdiv_(params, ahead, roots, -lr / (1 - beta1 ** group["step"]))


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: float) -> LRScheduler:
    """A linear rise over a share of the steps, then a cosine to zero."""
    rise = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))

    return LambdaLR(optimizer, factor)


def build_nadamw(
    model: torch.nn.Module,
    steps: int,
    lr: float,
    one_minus_beta1: float,
    beta2: float,
    weight_decay: float,
    warmup: float,
) -> Built:
    optimizer = NadamW(model.parameters(), lr, (1 - one_minus_beta1, beta2), weight_decay)
    return [optimizer], [warmup_cosine(optimizer, steps, warmup)]


POINT = {  # of AlgoPerf's own baseline in the self-tuning ruleset
    "lr": 0.0017486387539278373,
    "one_minus_beta1": 0.06733926164,
    "beta2": 0.9955159689799007,
    "weight_decay": 0.08121616522670176,
    "warmup": 0.02,
}


def build_fixed(model: torch.nn.Module, steps: int) -> Built:
    return build_nadamw(model, steps, **POINT)


def build_fixed_10x(model: torch.nn.Module, steps: int) -> Built:
    return build_nadamw(model, steps, **{**POINT, "lr": 10 * POINT["lr"]})


def build_schedule_free(model: torch.nn.Module, steps: int) -> Built:
    """The point of the submission that won the self-tuning ruleset of AlgoPerf 0.5."""
    from schedulefree import AdamWScheduleFree

    betas, decay = (0.9, POINT["beta2"]), POINT["weight_decay"]
    rise = max(1, round(0.02 * steps))
    return [AdamWScheduleFree(model.parameters(), 0.0025, betas, weight_decay=decay, warmup_steps=rise, r=0.75)], []


def build_adamw(model: torch.nn.Module, steps: int) -> Built:
    return [torch.optim.AdamW(model.parameters())], []


def build_muon(model: torch.nn.Module, steps: int) -> Built:
    """The point of a published AlgoPerf submission of Muon: one rate for both optimizers, no decay, 5 % of warm-up.

    Embeddings, positions and the last layer are not matrices to Muon. Neither are the weights of convolutions, which
    ``torch.optim.Muon`` does not take.
    """
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, param in model.named_parameters():
        is_matrix = param.ndim == 2 and not any(word in name for word in ("embed", "positions", "head"))
        (matrices if is_matrix else rest).append(param)
    optimizers: list[Optimizer] = [torch.optim.AdamW(rest, lr=0.01, weight_decay=0.0)]
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, lr=0.01, weight_decay=0.0, momentum=0.9))
    return optimizers, [warmup_cosine(optimizer, steps, 0.05) for optimizer in optimizers]


def build_active_muon(model: torch.nn.Module, steps: int) -> Built:
    return [ActiveMuon(muon_groups(model), total_steps=steps)], []


def build_prodigy(model: torch.nn.Module, steps: int) -> Built:
    """Its defaults, with the cosine that its authors advise."""
    from prodigyopt import Prodigy

    optimizer = Prodigy(model.parameters())
    return [optimizer], [warmup_cosine(optimizer, steps, 0.0)]


@dataclass
class TorchSubmission:
    """AlgoPerf's functions around torch optimizers.

    Attributes:
        build: makes the optimizers and their schedulers of a model for a number of steps.
        has_end: whether a schedule ends at ``step_hint``; others go on to the end of the budget.
    """

    build: Callable[[torch.nn.Module, int], Built]
    has_end: bool = True

    def init_optimizer_state(
        self, workload: spec.Workload, model_params: torch.nn.Module, model_state: Any, hyperparameters: Any, rng: int
    ) -> spec.OptimizerState:
        optimizers, schedulers = self.build(model_params, workload.step_hint)
        return {"optimizers": optimizers, "schedulers": schedulers}

    def update_params(
        self,
        workload: spec.Workload,
        current_param_container: torch.nn.Module,
        current_params_types: Any,
        model_state: Any,
        hyperparameters: Any,
        batch: spec.Batch,
        loss_type: spec.LossType,
        optimizer_state: spec.OptimizerState,
        eval_results: list[tuple[int, float]],
        global_step: int,
        rng: int,
        train_state: dict[str, Any] | None = None,
    ) -> spec.UpdateReturn:
        if global_step >= (workload.step_hint if self.has_end else workload.max_steps):
            raise spec.TrainingCompleteError
        model = current_param_container
        set_mode(optimizer_state, "train")
        logits, _ = workload.model_fn(model, batch, model_state, spec.ForwardPassMode.TRAIN, rng, True, 0.0)
        losses = workload.loss_fn(batch["targets"], logits)
        model.zero_grad()
        active_adamw.mean_loss(losses).backward()
        for each in (*optimizer_state["optimizers"], *optimizer_state["schedulers"]):
            each.step()
        return optimizer_state, model, model_state

    def prepare_for_eval(
        self, workload: spec.Workload, current_param_container: torch.nn.Module, *rest: Any
    ) -> spec.UpdateReturn:
        """``rest`` begins with the types and the state of the model; the state of the optimizer is its fifth."""
        optimizer_state = rest[4]
        set_mode(optimizer_state, "eval")
        return optimizer_state, current_param_container, rest[1]

    def data_selection(self, workload: spec.Workload, input_queue: Iterator[spec.Batch], *rest: Any) -> spec.Batch:
        return next(input_queue)


def set_mode(optimizer_state: spec.OptimizerState, mode: str) -> None:
    """Schedule-Free trains other weights than it evaluates."""
    for optimizer in optimizer_state["optimizers"]:
        if hasattr(optimizer, mode):
            getattr(optimizer, mode)()


COMPETITORS: dict[str, Any] = {
    "active_adamw": active_adamw,
    "active_muon": TorchSubmission(build_active_muon),
    "nadamw": TorchSubmission(build_fixed),
    "nadamw_10x": TorchSubmission(build_fixed_10x),
    "schedule_free": TorchSubmission(build_schedule_free, has_end=False),
    "adamw": TorchSubmission(build_adamw, has_end=False),
    "muon": TorchSubmission(build_muon),
    "prodigy": TorchSubmission(build_prodigy),
}
