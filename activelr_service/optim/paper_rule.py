r"""The rule of the ActiveLR paper: a gain per parameter, moved at the end of every epoch by the signs of gradient sums.

A step moves every parameter :math:`i` along the direction :math:`d` of the base optimizer:

.. math::
    \theta_i \leftarrow (1 - lr \cdot weight\_decay)\, \theta_i - lr \cdot gain_i \cdot d_i, \qquad
    grad\_sum_i \leftarrow grad\_sum_i + g_i

At the end of an epoch, with the sums of this epoch and of the one before (Algorithm 1 of the paper, in gain form):

.. math::
    gain_i \leftarrow \begin{cases}
        gain_i + gain\_increment & \text{if } \operatorname{sign}(grad\_sum_i)\,
        \operatorname{sign}(prev\_grad\_sum_i) > 0 \\
        gain_i \cdot gain\_decay & \text{otherwise}
    \end{cases}
"""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from activelr_service.optim import fused
from activelr_service.optim.numbers import NumberTables
from activelr_service.optim.sums import Group, State

DEFAULTS = {"gain_increment": 0.1, "gain_decay": 0.9, "hold_on_zero": False}
DEFAULT_LR = 1e-3
COUNTS = ("grew", "non_finite")  # elements of each parameter, at the last end of an epoch
NON_FINITE = 2  # what prev_sign keeps of an element whose sum was not finite

FUSED_DTYPES = {"grad_sum": torch.float32, "prev_sign": torch.int8, "gain": torch.float32}  # that the kernel takes


class PaperRule:
    """The paper's rule as an object, in the verbs of :class:`~activelr_service.optim.rule.Rule`.

    State of a parameter, in its shape:

    - ``gain``, float32. It starts at 1.
    - ``grad_sum``, float32.
    - ``prev_sign``, int8, from the end of the first epoch on: the signs of the sum before, which are all that the rule reads
      of it. It is 2 where that sum was not finite.

    And two 0-dim float32 counts of elements at the last end of an epoch: ``grew`` and ``non_finite``.
    """

    name = "paper"
    uses_lr = True
    has_epochs = True
    state_names: ClassVar[tuple[str, ...]] = ("grad_sum", "prev_sign", "gain", *COUNTS)
    total_steps: int | None = None  # this rule needs neither the length of the run
    progress: float | None = None  # nor its progress

    def __init__(self, steps_per_epoch: int | None = None) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._counts = NumberTables(*COUNTS)

    @property
    def ends_with_epochs(self) -> bool:
        """Whether the user's ``end_epoch()`` ends the sums; otherwise a number of steps does."""
        return self.steps_per_epoch is None

    def begin_run(self) -> Group:
        """The counters that every parameter group carries, at the start of a run."""
        return {"steps_since_epoch_end": 0}

    def init_state(self, param: Tensor) -> State:
        """The state of one parameter before its first step."""
        zeros = torch.zeros_like(param, dtype=torch.float32)
        return {"gain": torch.ones_like(zeros), "grad_sum": zeros}

    def dtype_of(self, name: str, param: Tensor) -> torch.dtype:
        """The dtype of what it keeps of a parameter under this name."""
        return torch.int8 if name == "prev_sign" else torch.float32

    def upgrade_state(self, state: State) -> None:
        """Rewrite, in place, the state of a parameter as an older version saved it."""
        if "gain_counts" in state:
            state["grew"], state["non_finite"] = state.pop("gain_counts").unbind()
        if "prev_grad_sum" in state:
            state["prev_sign"] = signs_of(state.pop("prev_grad_sum"))

    def decay_factors(self, params: list[Tensor], group: Group) -> list[float]:
        """What decoupled weight decay multiplies each tensor by, whatever its gains."""
        return [1 - float(group["lr"]) * group["weight_decay"]] * len(params)

    def move(self, params: list[Tensor], updates: list[Tensor], states: list[State], group: Group) -> None:
        """Take one step along ``updates``, which are overwritten."""
        torch._foreach_mul_(updates, [state["gain"] for state in states])
        torch._foreach_add_(params, updates, alpha=-float(group["lr"]))

    def fused_options(self, states: list[State], group: Group) -> dict[str, Any]:
        """What the compiled step needs of the rule: see :func:`activelr_service.optim.fused.take_step`."""
        return {"lr": float(group["lr"])}

    def forget_update_rms(self, states: list[State]) -> None:
        """Nothing: this rule does not measure directions."""

    def count_step(self, group: Group) -> None:
        """Count a step that was taken."""
        group["steps_since_epoch_end"] += 1

    def steps_in_sum(self, group: Group) -> int:
        """How many steps the sums hold."""
        steps: int = group["steps_since_epoch_end"]
        return steps

    def is_due(self, group: Group) -> bool:
        """Whether a number of steps was given, and the sums hold as many."""
        return self.steps_per_epoch is not None and group["steps_since_epoch_end"] >= self.steps_per_epoch

    def end_sums(self, states: list[State], group: Group) -> None:
        """Move the gains of parameters of one device on their (reduced) sums, and begin new ones. A parameter whose first
        epoch this is only begins."""
        first = [state for state in states if "prev_sign" not in state]
        others = [state for state in states if "prev_sign" in state]
        for state in first:
            state["prev_sign"] = signs_of(state["grad_sum"])
            state["grad_sum"].zero_()
        if others and all(fused.can_end(state, FUSED_DTYPES) for state in others):
            options = {name: group[name] for name in DEFAULTS}
            counts = fused.end_sums(others, "prev_sign", **options).float().unbind(1)
            self._counts.of(others).write(dict(zip(COUNTS, counts, strict=False)))
        else:
            for state in others:
                self._end_sum(state, group)

    def _end_sum(self, state: State, group: Group) -> None:
        update = update_gain(
            state["gain"], state["grad_sum"], state["prev_sign"], **{name: group[name] for name in DEFAULTS}
        )
        state["gain"].copy_(update.gain)
        state["grew"], state["non_finite"] = update.grew.float(), update.non_finite.float()
        state["prev_sign"].copy_(signs_of(state["grad_sum"]))
        state["grad_sum"].zero_()

    def begin_sum(self, group: Group) -> None:
        """Count the steps of the sums from here on."""
        group["steps_since_epoch_end"] = 0


class GainUpdate(NamedTuple):
    """What one tensor's gains became.

    ``gain`` has the shape of the parameter (float32); ``grew`` and ``non_finite`` are 0-dim int64 counts of elements.
    They stay on the device, so that nothing waits for the host.
    """

    gain: Tensor
    grew: Tensor
    non_finite: Tensor


def signs_of(grad_sum: Tensor) -> Tensor:
    """The signs of a sum, int8 in its shape: -1, 0, 1, and 2 where it is not finite."""
    return torch.where(grad_sum.isfinite(), grad_sum.sign(), float(NON_FINITE)).to(torch.int8)


def update_gain(
    gain: Tensor,
    grad_sum: Tensor,
    prev_sign: Tensor,
    *,
    gain_increment: float = 0.1,
    gain_decay: float = 0.9,
    hold_on_zero: bool = False,
) -> GainUpdate:
    """Grow the gains whose gradient sum kept its sign, and shrink the others (Algorithm 1 of the paper, in gain form).

    All tensors are of one shape; ``gain`` and ``grad_sum`` are float32, ``prev_sign`` is as :func:`signs_of` makes it. A
    product of exactly zero counts as a change of sign, as in the paper; ``hold_on_zero=True`` leaves such a gain as it is.
    Where a sum is not finite the gain stays, and ``non_finite`` counts it.
    """
    agreement = grad_sum.sign() * prev_sign
    finite = grad_sum.isfinite() & (prev_sign != NON_FINITE)
    grew = (agreement > 0) & finite
    moves = finite & (agreement != 0) if hold_on_zero else finite
    moved = torch.where(grew, gain + gain_increment, gain * gain_decay)
    return GainUpdate(torch.where(moves, moved, gain), grew.sum(), (~finite).sum())
