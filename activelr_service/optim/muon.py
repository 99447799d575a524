"""ActiveMuon: orthogonalized momentum for matrices, the direction of Adam for all else."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from activelr_service.optim.adamw import adam_direction, adam_kernel_direction, adam_state
from activelr_service.optim.arguments import documented
from activelr_service.optim.base import ActiveOptimizer
from activelr_service.optim.constants import RobustConstants
from activelr_service.optim.places import Direction
from activelr_service.optim.sums import Group, State

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the iteration, from Jordan et al. 2024: the steepest at zero
ITERATIONS = 5  # singular values end between about 0.7 and 1.2
LARGEST_STACKED = 2**18  # elements: the products of larger matrices gain nothing by being taken together
ADAM_RMS = 0.2  # of a usual step of Adam at learning rate 1 (Liu et al. 2025, arXiv 2502.16982)


@documented
class ActiveMuon(ActiveOptimizer):
    r"""Muon (Jordan et al. 2024), with gains in place of the learning rates to choose: neither one for matrices nor one for
    vectors.

    The direction of a matrix of r rows and c columns, along which the rule takes the step:

    .. math::
        momentum\_buffer &\leftarrow momentum \cdot momentum\_buffer + (1 - momentum)\, g \\
        d &= 0.2 \sqrt{\max(r, c)}\; orthogonalized(momentum \cdot momentum\_buffer + (1 - momentum)\, g)

    :func:`orthogonalize` has what that is. The kernel of a convolution is a matrix with a row for each output channel, and
    so is every tensor of more than two dimensions. The factor gives a step the size of one of Adam; under the robust rule
    it cancels. Vectors, tensors with one row or one column, and all parameters of groups with ``orthogonalize=False`` take
    the direction of Adam: see :class:`~activelr_service.optim.ActiveAdamW`.

    The table of an embedding is a matrix by its shape alone: each of its rows belongs to one token. Parameters do not say
    what they are, but modules do: :func:`muon_groups` puts the tables of a model into a group of their own.

    Under the paper's rule, with all gains at 1 and matrices alone, it equals :class:`torch.optim.Muon` with
    ``adjust_lr_fn="match_rms_adamw"``, up to the precision of the iteration.

    Args:
        params (iterable): parameters, or dicts that define parameter groups, as :func:`muon_groups` makes them.
        momentum (float): decay rate of the mean of the gradients of a matrix (default: 0.95).
        betas (tuple[float, float]): Adam's decay rates of the first and second moment (default: (0.9, 0.999)).
        eps (float): what is added to Adam's denominator (default: 1e-8).
        weight_decay (float): decoupled weight decay, which no gain multiplies (default: 1e-2).
        orthogonalize (bool): False takes Adam's direction for matrices, too; meant for a group (default: True).
    """

    direction_name = "muon"
    direction_keys, torch_option = ("momentum_buffer", "step", "exp_avg", "exp_avg_sq"), "ns_steps"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        orthogonalize: bool = True,
        *,
        maximize: bool = False,
        rule: str = "robust",
        total_steps: int | None = None,
        constants: RobustConstants | None = None,
        gain_increment: float | None = None,
        gain_decay: float | None = None,
        hold_on_zero: bool | None = None,
        steps_per_epoch: int | None = None,
        fused: bool | None = None,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        options = {
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "orthogonalize": orthogonalize,
            "maximize": maximize,
            "decoupled_weight_decay": True,
        }
        super().__init__(
            params,
            options,
            rule,
            fused,
            lr=lr,
            total_steps=total_steps,
            constants=constants,
            gain_increment=gain_increment,
            gain_decay=gain_decay,
            hold_on_zero=hold_on_zero,
            steps_per_epoch=steps_per_epoch,
        )

    def _init_direction(self, param: Tensor, group: Group) -> State:
        if group["orthogonalize"] and min(_sides(param)) > 1:
            return {"momentum_buffer": torch.zeros_like(param)}
        return adam_state(param, group)

    def _can_fuse(self, params: list[Tensor], grads: list[Tensor], states: list[State], group: Group) -> list[bool]:
        fits = super()._can_fuse(params, grads, states, group)
        return [fit and not _is_matrix(state) for fit, state in zip(fits, states, strict=True)]

    def _direction(self, grads: list[Tensor], states: list[State], group: Group) -> list[Tensor]:
        updates: dict[int, Tensor] = {}
        for is_matrix, direction in ((True, muon_direction), (False, self._adam_direction)):
            own = [number for number, state in enumerate(states) if _is_matrix(state) == is_matrix]
            if own:
                found = direction([grads[i] for i in own], [states[i] for i in own], group)
                updates.update(zip(own, found, strict=True))
        return [updates[number] for number in range(len(grads))]

    def _adam_direction(self, grads: list[Tensor], states: list[State], group: Group) -> list[Tensor]:
        return adam_direction(grads, states, self._count_step(states), group)

    def _fused_direction(self, states: list[State], group: Group) -> Direction:
        return adam_kernel_direction(self._count_step(states), group)


def tables_of(model: nn.Module) -> set[int]:
    """The ids of the weights of ``nn.Embedding`` and ``nn.EmbeddingBag``: matrices whose rows belong to one token each. A
    last layer that shares its weights with one (tied weights) is a table."""
    return {id(each.weight) for each in model.modules() if isinstance(each, nn.Embedding | nn.EmbeddingBag)}


def muon_groups(model: nn.Module, only_trained: bool = False) -> list[Group]:
    """The parameters of a model as two groups for :class:`ActiveMuon`: all others, and the tables of its embeddings, which
    take the direction of Adam. Where there are no such tables, one group.

    Tables are found by their modules. One that a model keeps as a bare parameter needs a group with ``orthogonalize=False``
    from you. ``only_trained`` leaves out what requires no gradients.
    """
    tables = tables_of(model)
    params = [param for param in model.parameters() if param.requires_grad or not only_trained]
    groups: list[Group] = [
        {"params": [param for param in params if id(param) not in tables]},
        {"params": [param for param in params if id(param) in tables], "orthogonalize": False},
    ]
    return [group for group in groups if group["params"]]


def muon_direction(grads: list[Tensor], states: list[State], group: Group) -> list[Tensor]:
    """The step of matrices at learning rate 1: a fresh tensor for each gradient. ``group`` has ``momentum``."""
    momentum = group["momentum"]
    buffers = [state["momentum_buffer"] for state in states]
    torch._foreach_lerp_(buffers, grads, 1 - momentum)
    ahead = torch._foreach_lerp(grads, buffers, momentum)  # Nesterov's: one step further than the buffer
    flat = orthogonalize([each.reshape(_sides(each)) for each in ahead])
    sizes = [ADAM_RMS * math.sqrt(max(each.shape)) for each in flat]
    torch._foreach_mul_(flat, sizes)
    return [update.view_as(each) for update, each in zip(flat, ahead, strict=True)]


def orthogonalize(matrices: list[Tensor]) -> list[Tensor]:
    r"""Matrices of one device with their singular values brought close to 1: :math:`U V^T` of :math:`U S V^T`, roughly.

    Five steps of a Newton-Schulz iteration, :math:`X \leftarrow a X + (b X X^T + c\, (X X^T)^2) X`, from X of norm 1. The
    scale of a matrix cancels, and one of zeros stays so. The products are taken in bfloat16 on a GPU, as in
    :class:`torch.optim.Muon`, and in float32 on the CPU, where that is faster. Those of matrices of one shape are taken
    together. Returns fresh tensors of the same shapes and dtypes.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, matrix in enumerate(matrices):
        alone = number if matrix.numel() > LARGEST_STACKED else -1
        alike.setdefault((*matrix.shape, alone), []).append(number)
    found: dict[int, Tensor] = {}
    for numbers in alike.values():
        stack = _orthogonalize_stack(torch.stack([matrices[number].float() for number in numbers]))
        found.update(zip(numbers, stack.unbind(), strict=True))
    return [found[number].to(matrix.dtype) for number, matrix in enumerate(matrices)]


def _orthogonalize_stack(x: Tensor) -> Tensor:
    """The same of a stack (n, rows, columns), float32."""
    x = x / x.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)  # squares of small numbers vanish
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp_min(1.0)
    is_tall = x.shape[1] > x.shape[2]
    x = (x.mT if is_tall else x).to(torch.bfloat16 if x.is_cuda else torch.float32)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).float().contiguous()


def _sides(tensor: Tensor) -> tuple[int, int]:
    """The rows and columns of a tensor as a matrix; (1, 1) of a vector."""
    return (tensor.shape[0], math.prod(tensor.shape[1:])) if tensor.dim() > 1 else (1, 1)


def _is_matrix(state: State) -> bool:
    return "momentum_buffer" in state
