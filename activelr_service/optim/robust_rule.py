"""The robust rule: a gain per tensor, set by a control loop on the agreement of successive gradient sums.

It needs no learning rate. :mod:`activelr_service.optim.robust_formulas` has its formulas and the reasons for them. Here they
meet the state of an optimizer: what is kept of a tensor, when a window ends, and what it changes.
"""

import torch
from torch import Tensor

from activelr_service.optim.constants import RobustConstants
from activelr_service.optim.robust_formulas import (
    agreement_of,
    bound_gain,
    next_window_end,
    scale_updates,
    update_gain,
    weight_decay_factor,
    weight_rms_of,
)
from activelr_service.optim.sums import Group, State

INITIAL_UPDATE_RATIO = 0.06  # the gain of a tensor before its first step
STEP_KEYS = ("update_rms", "clip_coef", "steps_clipped", "effective_lr", "update_ratio")  # each step sets these
PACKED = ("weight_rms", "update_rms", "elements_seen", "clip_coef", "steps_clipped", "effective_lr", "update_ratio")


class RobustRule:
    """The robust rule as an object, in the verbs of :class:`~activelr_service.optim.rule.Rule`.

    State of a tensor, 0-dim float32 each:

    - ``gain``, ``weight_rms``, ``update_rms``, and ``elements_seen``: how many of its elements gradients have reached.
    - Of the last step: ``clip_coef``, ``effective_lr`` (what multiplied the direction) and ``update_ratio`` (how far the
      step went, as a share of ``weight_rms``).
    - Of this window: ``steps_clipped``, the steps that the cap cut.
    - Of the last window: ``cosine``, ``sign_agreement`` (share of equal signs), ``clip_fraction`` (share of steps that the
      cap cut), ``grew`` and ``non_finite`` (0 or 1 each).
    """

    name = "robust"
    uses_lr = False
    has_epochs = False
    ends_with_epochs = False
    state_keys: tuple[str, ...] = ("gain", *PACKED, "cosine", "sign_agreement", "clip_fraction", "grew", "non_finite")

    def __init__(
        self,
        total_steps: int | None = None,
        constants: RobustConstants | None = None,
        initial_update_ratio: float = INITIAL_UPDATE_RATIO,
    ) -> None:
        self.total_steps = total_steps
        self.constants = constants or RobustConstants()
        self.initial_update_ratio = initial_update_ratio
        self.progress: float | None = None

    def begin_run(self) -> Group:
        """The counters that every parameter group carries, at the start of a run."""
        return {"steps_done": 0, "window_begin": 0, "window_end": next_window_end(0, self.constants)}

    def init_state(self, param: Tensor) -> State:
        """The state of one tensor before its first step."""
        weight_rms = weight_rms_of(param.detach())
        seen = torch.count_nonzero(param.grad).float() if param.grad is not None else weight_rms.new_zeros(())
        return {
            "gain": torch.full((), self.initial_update_ratio, dtype=torch.float32, device=param.device),
            "weight_rms": weight_rms,
            "elements_seen": torch.where(seen > 0, seen, float(max(1, param.numel()))),
            **{key: torch.zeros_like(weight_rms) for key in STEP_KEYS},
            "clip_coef": torch.ones_like(weight_rms),
        }

    def upgrade_state(self, state: State) -> None:
        """Rewrite, in place, the state of a tensor as an older version saved it: several quantities in one tensor."""
        if "pace" in state:
            packed = state.pop("pace")
            packed = torch.nn.functional.pad(packed, (0, len(PACKED) - len(packed)))  # the oldest had six
            state.update(zip(PACKED, packed.unbind(), strict=True))
        if "window" in state:
            names = ("cosine", "sign_agreement", "clip_fraction")
            state.update(zip(names, state.pop("window").unbind(), strict=True))
        if "gain_counts" in state:
            state["grew"], state["non_finite"] = state.pop("gain_counts").unbind()

    def decay_weights(self, params: list[Tensor], group: Group) -> None:
        """Shrink the weights by a share of the run's weight decay; vectors (biases, norms) stay as they are."""
        matrices = [param for param in params if param.dim() > 1]
        if matrices:
            factor = weight_decay_factor(group["steps_done"], self._progress_after(group))
            torch._foreach_mul_(matrices, 1 - factor * group["weight_decay"])

    def move(self, params: list[Tensor], updates: list[Tensor], states: list[State], group: Group) -> None:
        """Take one step along ``updates``."""
        stacked = {name: torch.stack([state[name] for state in states]) for name in ("gain", *PACKED[:5])}
        step, progress = group["steps_done"], self._progress_after(group)
        for name, values in scale_updates(updates, stacked, step, progress, self.constants).items():
            for state, value in zip(states, values.unbind(), strict=True):
                state[name] = value
        for param, update, state in zip(params, updates, states, strict=True):
            param.addcmul_(update, state["effective_lr"], value=-1.0)  # no foreach function broadcasts a 0-dim tensor

    def forget_update_rms(self, states: list[State]) -> None:
        """Measure the directions of these tensors anew: their scale changes with this step."""
        for state in states:
            state["update_rms"] = torch.zeros_like(state["update_rms"])

    def count_step(self, group: Group) -> None:
        """Count a step that was taken."""
        group["steps_done"] += 1

    def steps_in_sum(self, group: Group) -> int:
        """How many steps the sums of this window hold."""
        steps: int = group["steps_done"] - group["window_begin"]
        return steps

    def is_due(self, group: Group) -> bool:
        """Whether the window is over. It depends on the number of steps alone, so all ranks agree."""
        is_over: bool = group["steps_done"] >= group["window_end"]
        return is_over

    def end_sum(self, state: State, group: Group) -> None:
        """Move the gain of one tensor on its (reduced) sum, if there is a window before this one."""
        steps = self.steps_in_sum(group)
        if "prev_grad_sum" in state:
            agreement = agreement_of(state["grad_sum"], state["prev_grad_sum"])
            gain = update_gain(state["gain"], state["clip_coef"], agreement, steps, self.constants)
            state["grew"] = (gain > state["gain"]).float()
            state["non_finite"] = (~state["grad_sum"].isfinite().all()).float()
            state["gain"], state["update_rms"] = bound_gain(gain, state["update_rms"])
            state["cosine"], state["sign_agreement"] = agreement.cosine, agreement.sign_agreement
            state["clip_fraction"] = state["steps_clipped"] / max(1, steps)
        state["elements_seen"] = torch.maximum(state["elements_seen"], torch.count_nonzero(state["grad_sum"]))
        state["steps_clipped"] = torch.zeros_like(state["steps_clipped"])

    def begin_sum(self, group: Group) -> None:
        """Begin the next window."""
        group["window_begin"] = group["steps_done"]
        group["window_end"] = next_window_end(group["steps_done"], self.constants)

    def _progress_after(self, group: Group) -> float:
        """The share of the run that is behind after the coming step, in (0, 1]."""
        if self.progress is not None:
            return check_progress(self.progress)
        if self.total_steps is None:
            raise RuntimeError(
                "the robust rule needs total_steps, the number of steps of the whole run, or optimizer.progress, set before "
                'every step; rule="paper" needs neither'
            )
        return min(1.0, (group["steps_done"] + 1) / self.total_steps)


def check_progress(progress: float) -> float:
    """The progress. Raises ``ValueError`` if it is not in (0, 1]: at 0 no step would move anything."""
    if not 0 < progress <= 1:
        raise ValueError(
            f"progress must be the share of the run that is behind after the coming step, in (0, 1], got {progress}; "
            "of step number n, counted from 0, it is (n + 1) / total_steps"
        )
    return progress
