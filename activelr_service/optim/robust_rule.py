"""The robust rule: a gain per tensor, set by a control loop on the agreement of successive gradient sums.

It needs no learning rate. :mod:`activelr_service.optim.robust_formulas` has its formulas and the reasons for them. Here they
meet the state of an optimizer: what is kept of a tensor, when a window ends, and what it changes.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from activelr_service.optim import fused
from activelr_service.optim.constants import RobustConstants
from activelr_service.optim.numbers import NumberTables
from activelr_service.optim.robust_formulas import (
    UPDATE_RMS_FALL,
    Agreement,
    agreement_of,
    bound_gain,
    lr_decay_factor,
    max_update_ratio,
    next_window_end,
    scale_updates,
    update_gain,
    weight_decay_factor,
    weight_rms_of,
)
from activelr_service.optim.sums import Group, State, dither_of

INITIAL_UPDATE_RATIO = 0.06  # the gain of a tensor before its first step
NUMBERS = (  # of each tensor
    *("gain", "weight_rms", "update_rms", "last_rms", "elements_seen", "clip_coef", "steps_clipped"),
    *("effective_lr", "update_ratio"),
)
SUMS = ("grad_sum", "prev_grad_sum")
WINDOW = ("cosine", "sign_agreement", "clip_fraction", "grew", "non_finite")  # of each tensor, of its last window
# One tensor held them in older versions; the oldest lacks the last.
PACKED = ("weight_rms", "update_rms", "elements_seen", "clip_coef", "steps_clipped", "effective_lr", "update_ratio")


class RobustRule:
    """The robust rule as an object, in the verbs of :class:`~activelr_service.optim.rule.Rule`.

    State of a tensor: ``grad_sum`` and ``prev_grad_sum`` in its shape, bfloat16 from 1,024 elements on and float32 below,
    and 0-dim float32 numbers:

    - ``gain``, ``weight_rms``, ``update_rms``, ``last_rms`` (the RMS of the last direction), and ``elements_seen``: how many
      of its elements gradients have reached.
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
    state_names: ClassVar[tuple[str, ...]] = (*SUMS, *NUMBERS, *WINDOW)

    def __init__(
        self,
        total_steps: int | None = None,
        constants: RobustConstants | None = None,
        initial_update_ratio: float = INITIAL_UPDATE_RATIO,
        is_normalized: bool = False,
    ) -> None:
        self.total_steps = total_steps
        self.constants = constants or RobustConstants()
        self.initial_update_ratio = initial_update_ratio
        self.hold = self.constants.hold if is_normalized else 0.0
        self.progress: float | None = None
        self._tables, self._windows = NumberTables(*NUMBERS), NumberTables(*WINDOW)

    def begin_run(self) -> Group:
        """The counters that every parameter group carries, at the start of a run."""
        return {"steps_done": 0, "window_begin": 0, "window_end": next_window_end(0, self.constants)}

    def init_state(self, param: Tensor) -> State:
        """The state of one tensor before its first step."""
        weight_rms = weight_rms_of(param.detach())
        seen = torch.count_nonzero(param.grad).float() if param.grad is not None else weight_rms.new_zeros(())
        numbers = dict(zip(NUMBERS, weight_rms.new_zeros(len(NUMBERS)).unbind(), strict=True))
        return numbers | {
            "grad_sum": torch.zeros_like(param, dtype=self.dtype_of("grad_sum", param)),
            "gain": torch.full_like(weight_rms, self.initial_update_ratio),
            "weight_rms": weight_rms,
            "elements_seen": torch.where(seen > 0, seen, float(max(1, param.numel()))),
            "clip_coef": torch.ones_like(weight_rms),
        }

    def dtype_of(self, name: str, param: Tensor) -> torch.dtype:
        """The dtype of what it keeps of a parameter under this name."""
        is_half = name in SUMS and param.numel() >= self.constants.bfloat16_sums_from
        return torch.bfloat16 if is_half else torch.float32

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
        if "gain" in state:
            state.setdefault("last_rms", torch.zeros_like(state["gain"]))

    def decay_factors(self, params: list[Tensor], group: Group) -> list[float]:
        """What decoupled weight decay multiplies each tensor by: vectors (biases, norms) stay as they are."""
        factor = 1 - weight_decay_factor(group["steps_done"], self._progress_after(group)) * group["weight_decay"]
        return [factor if param.dim() > 1 else 1.0 for param in params]

    def move(self, params: list[Tensor], updates: list[Tensor], states: list[State], group: Group) -> None:
        """Take one step along ``updates``."""
        table = self._tables.of(states)
        step, progress = group["steps_done"], self._progress_after(group)
        scaled = scale_updates(updates, table.columns, step, progress, self.constants, self.hold)
        table.write(scaled)
        for param, update, effective_lr in zip(params, updates, scaled["effective_lr"].unbind(), strict=True):
            param.addcmul_(update, effective_lr, value=-1.0)  # no foreach function broadcasts a 0-dim tensor

    def fused_options(self, states: list[State], group: Group) -> dict[str, Any]:
        """What the compiled step needs of the rule: see :func:`activelr_service.optim.fused.take_step`."""
        step, progress = group["steps_done"], self._progress_after(group)
        return {
            "numbers": self._tables.of(states).columns,
            "max_update_ratio": max_update_ratio(step, progress, self.constants),
            "lr_decay": lr_decay_factor(step, progress, self.constants),
            "fall": UPDATE_RMS_FALL,
            "hold": self.hold,
            "dither": dither_of(step),
        }

    def forget_update_rms(self, states: list[State]) -> None:
        """Measure the directions of these tensors anew: their scale changes with this step."""
        for state in states:
            state["update_rms"].zero_()
            state["last_rms"].zero_()

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

    def end_sums(self, states: list[State], group: Group) -> None:
        """Move the gains of tensors of one device on their (reduced) sums, and begin new ones. A tensor whose first window
        this is only begins."""
        is_first = ["prev_grad_sum" not in state for state in states]
        for began, state in zip(is_first, states, strict=True):
            if began:
                state["prev_grad_sum"] = torch.zeros_like(state["grad_sum"])
        table = self._tables.of(states)
        numbers, steps = table.columns, self.steps_in_sum(group)
        agreement, seen, is_finite = _compare(states)
        gain = update_gain(numbers["gain"], numbers["clip_coef"], agreement, steps, self.constants)
        window = {
            "cosine": agreement.cosine,
            "sign_agreement": agreement.sign_agreement,
            "clip_fraction": numbers["steps_clipped"] / max(1, steps),
            "grew": (gain > numbers["gain"]).float(),
            "non_finite": (~is_finite).float(),
        }
        ended = [number for number, began in enumerate(is_first) if not began]
        if ended:
            last = self._windows.of([states[number] for number in ended])
            last.write(window if len(ended) == len(states) else {name: each[ended] for name, each in window.items()})
        gain, update_rms = bound_gain(gain, numbers["update_rms"])
        table.write({"gain": gain, "update_rms": update_rms, "steps_clipped": torch.zeros_like(gain)})
        table.write({"elements_seen": torch.maximum(numbers["elements_seen"], seen)})
        for state in states:
            state["grad_sum"], state["prev_grad_sum"] = state["prev_grad_sum"], state["grad_sum"]

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


def _compare(states: list[State]) -> tuple[Agreement, Tensor, Tensor]:
    """How far the sums of n tensors agree with those before; how many of their elements are not zero; whether all are
    finite. (n,) each. The sums before are cleared."""
    if all(fused.can_end(state, dict.fromkeys(SUMS, state["grad_sum"].dtype)) for state in states):
        dot, square, previous, equal, signs, seen = fused.end_sums(states, "prev_grad_sum").unbind(1)
        cosine = (dot / (square.sqrt() * previous.sqrt())).float()
        share = (equal / signs.clamp_min(1)).float()
        return Agreement(cosine.nan_to_num(0.0), share, cosine.isfinite()), seen.float(), square.isfinite()
    rows = [agreement_of(state["grad_sum"], state["prev_grad_sum"]) for state in states]
    seen = torch.stack([torch.count_nonzero(state["grad_sum"]) for state in states]).float()
    is_finite = torch.stack([state["grad_sum"].isfinite().all() for state in states])
    torch._foreach_zero_([state["prev_grad_sum"] for state in states])
    return Agreement(*(torch.stack(values) for values in zip(*rows, strict=True))), seen, is_finite


def check_progress(progress: float) -> float:
    """The progress. Raises ``ValueError`` if it is not in (0, 1]: at 0 no step would move anything."""
    if not 0 < progress <= 1:
        raise ValueError(
            f"progress must be the share of the run that is behind after the coming step, in (0, 1], got {progress}; "
            "of step number n, counted from 0, it is (n + 1) / total_steps"
        )
    return progress
