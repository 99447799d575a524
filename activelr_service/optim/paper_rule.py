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

from typing import NamedTuple

import torch
from torch import Tensor

from activelr_service.optim.sums import Group, State

DEFAULTS = {"gain_increment": 0.1, "gain_decay": 0.9, "hold_on_zero": False}
DEFAULT_LR = 1e-3


class PaperRule:
    """The paper's rule as an object, in the verbs of :class:`~activelr_service.optim.rule.Rule`.

    State of a parameter: ``gain``, float32 in the parameter's shape, which starts at 1; and ``grew`` and
    ``non_finite``, 0-dim float32 counts of elements at the last end of an epoch.
    """

    name = "paper"
    uses_lr = True
    has_epochs = True
    state_keys: tuple[str, ...] = ("gain", "grew", "non_finite")
    total_steps: int | None = None  # this rule needs neither the length of the run
    progress: float | None = None  # nor its progress

    def __init__(self, steps_per_epoch: int | None = None) -> None:
        self.steps_per_epoch = steps_per_epoch

    @property
    def ends_with_epochs(self) -> bool:
        """Whether the user's ``end_epoch()`` ends the sums; otherwise a number of steps does."""
        return self.steps_per_epoch is None

    def begin_run(self) -> Group:
        """The counters that every parameter group carries, at the start of a run."""
        return {"steps_since_epoch_end": 0}

    def init_state(self, param: Tensor) -> State:
        """The state of one parameter before its first step."""
        return {"gain": torch.ones_like(param, dtype=torch.float32)}

    def upgrade_state(self, state: State) -> None:
        """Rewrite, in place, the state of a parameter as an older version saved it."""
        if "gain_counts" in state:
            state["grew"], state["non_finite"] = state.pop("gain_counts").unbind()

    def decay_weights(self, params: list[Tensor], group: Group) -> None:
        """Shrink the weights by ``lr * weight_decay``, whatever their gain."""
        torch._foreach_mul_(params, 1 - float(group["lr"]) * group["weight_decay"])

    def move(self, params: list[Tensor], updates: list[Tensor], states: list[State], group: Group) -> None:
        """Take one step along ``updates``, which are overwritten."""
        torch._foreach_mul_(updates, [state["gain"] for state in states])
        torch._foreach_add_(params, updates, alpha=-float(group["lr"]))

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

    def end_sum(self, state: State, group: Group) -> None:
        """Move the gains of one parameter on its (reduced) sum, if there is an epoch before this one."""
        if "prev_grad_sum" not in state:
            return
        update = update_gain(
            state["gain"],
            state["grad_sum"],
            state["prev_grad_sum"],
            gain_increment=group["gain_increment"],
            gain_decay=group["gain_decay"],
            hold_on_zero=group["hold_on_zero"],
        )
        state["gain"].copy_(update.gain)
        state["grew"], state["non_finite"] = update.grew.float(), update.non_finite.float()

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


def update_gain(
    gain: Tensor,
    grad_sum: Tensor,
    prev_grad_sum: Tensor,
    *,
    gain_increment: float = 0.1,
    gain_decay: float = 0.9,
    hold_on_zero: bool = False,
) -> GainUpdate:
    """Grow the gains whose gradient sum kept its sign, and shrink the others (Algorithm 1 of the paper, in gain form).

    All tensors are float32 of one shape. The signs are multiplied, and not the sums: a product of small sums would
    underflow to zero. A product of exactly zero counts as a change of sign, as in the paper; ``hold_on_zero=True``
    leaves such a gain as it is. Where a sum is not finite the gain stays, and ``non_finite`` counts it.
    """
    agreement = grad_sum.sign() * prev_grad_sum.sign()
    finite = grad_sum.isfinite() & prev_grad_sum.isfinite()
    grew = (agreement > 0) & finite
    moves = finite & (agreement != 0) if hold_on_zero else finite
    moved = torch.where(grew, gain + gain_increment, gain * gain_decay)
    return GainUpdate(torch.where(moves, moved, gain), grew.sum(), (~finite).sum())
