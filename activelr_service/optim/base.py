"""What the four ActiveLR optimizers share: the step in outline, the gain state and the ends of epochs and windows."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from activelr_service.optim import robust
from activelr_service.optim.checks import check_options, check_progress, check_real, check_rule, dense_grad
from activelr_service.optim.stats import gain_histogram, gain_stats, pace_stats
from activelr_service.optim.sums import Reduce, State, end_epoch_of, end_window_of, reduce_flat, with_gradient

FLOAT32_STATE = ("gain", "grad_sum", "prev_grad_sum", "gain_counts", "pace", "window")
COUNTERS = ("steps_since_epoch_end", "steps_done", "window_begin", "window_end")  # of all groups together
SETTINGS = ("steps_per_epoch", "rule", "total_steps", "constants", "progress")

Closure = Callable[[], Any]


class ActiveOptimizer(torch.optim.Optimizer, ABC):
    r"""An optimizer with a gain per parameter on its learning rate.

    Every step moves :math:`\theta_i \leftarrow \theta_i - lr \cdot gain_i \cdot d_i`, where :math:`d` is the direction
    of the base optimizer (the one thing a subclass supplies), and adds the gradient that ``step()`` sees to
    ``grad_sum``. :meth:`end_epoch` turns the sums into gains (:func:`~activelr_service.optim.gain.update_gain`).

    State per parameter: what the base optimizer keeps, under torch's names, and ``gain``, ``grad_sum`` and, from the end
    of the first epoch on, ``prev_grad_sum``: float32 in the shape of the parameter, whatever its dtype. Gradients are
    read, never changed; ``step()`` contains no collective and no host synchronisation.

    ``rule="robust"`` (:mod:`~activelr_service.optim.robust`) keeps one gain per tensor instead, a 0-dim ``gain`` that is the
    share of its size that a step moves it, and moves it at the ends of windows of its own. ``lr`` has no effect under it. It
    needs to know how much of the run is behind: from ``total_steps``, or from who sets :attr:`progress` before every step,
    to the share that is done after it, and calls :meth:`end_window` when :meth:`is_window_over`. Beside the gain it keeps
    ``pace`` and ``window``, seven and three numbers a tensor (:class:`~activelr_service.optim.robust.Pace`,
    :class:`~activelr_service.optim.sums.WindowStats`).
    """

    first_step = robust.FIRST_STEP

    def __init__(
        self,
        params: Iterable[Any],
        defaults: dict[str, Any],
        steps_per_epoch: int | None,
        rule: str = "paper",
        total_steps: int | None = None,
    ) -> None:
        check_options(defaults)
        check_rule(rule, steps_per_epoch, total_steps)
        self.steps_per_epoch = steps_per_epoch
        self.rule = rule
        self.total_steps = total_steps
        counters = {"steps_since_epoch_end": 0}
        if rule == "robust":
            counters |= {
                "steps_done": 0,
                "window_begin": 0,
                "window_end": robust.next_window_end(0, robust.Constants()),
            }
        self.constants = robust.Constants()
        super().__init__(params, {**defaults, **counters})
        self.progress: float | None = None

    @abstractmethod
    def _init_direction(self, param: Tensor, group: dict[str, Any]) -> State:
        """The base optimizer's own state for one parameter at its first step."""

    @abstractmethod
    def _direction(self, grads: list[Tensor], states: list[State], group: dict[str, Any]) -> list[Tensor]:
        """One fresh tensor per gradient, which the caller may overwrite: the base optimizer's step at learning rate 1."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        first, new = self.param_groups[0], self.param_groups[-1]
        new.update({name: first[name] for name in COUNTERS if name in first})
        check_options(new)
        for param in new["params"]:
            check_real(param, type(self).__name__)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:  # type: ignore[override]
        """Take one optimizer step and add its gradients to the sums; returns what ``closure`` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for params in with_gradient(group["params"]):
                self._step_group(params, group)
            group["steps_since_epoch_end"] += 1
            if self.rule == "robust":
                group["steps_done"] += 1
        if self.total_steps is not None and self.is_window_over():
            self.end_window()
        if self.steps_per_epoch is not None and self.param_groups[0]["steps_since_epoch_end"] >= self.steps_per_epoch:
            self.end_epoch()
        return loss

    def _step_group(self, params: list[Tensor], group: dict[str, Any]) -> None:
        grads = [dense_grad(param, type(self).__name__) for param in params]
        states = [self._state_of(param, group) for param in params]
        torch._foreach_add_([state["grad_sum"] for state in states], grads)
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        if group["weight_decay"] != 0:
            grads = self._decay_weights(params, grads, group)
        updates = self._direction(grads, states, group)
        if self.rule == "robust":
            rates = self._rates(updates, states, group)
            for param, update, rate in zip(params, updates, rates, strict=True):
                param.addcmul_(update, rate, value=-1.0)  # broadcasts a 0-dim tensor, which no foreach function does
        else:
            torch._foreach_mul_(updates, [state["gain"] for state in states])
            torch._foreach_add_(params, updates, alpha=-float(group["lr"]))

    def _decay_weights(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Decoupled: shrink the weights, whatever their gain. Coupled (L2): return gradients with the penalty's added."""
        if not group["decoupled_weight_decay"]:
            return list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        rate = float(group["lr"])
        if self.rule == "robust":
            rate = robust.decay_rate(self._moment(group))
            params = [param for param in params if param.dim() > 1]
        if params:
            torch._foreach_mul_(params, 1 - rate * group["weight_decay"])
        return grads

    def _rates(self, updates: list[Tensor], states: list[State], group: dict[str, Any]) -> list[Tensor]:
        """What multiplies each direction under the robust rule, 0-dim each."""
        pace = robust.Pace(*torch.stack([state["pace"] for state in states], dim=1))
        gain = torch.stack([state["gain"] for state in states])
        scaled = robust.scale_steps(updates, gain, pace, self._moment(group), self.constants)
        for state, row in zip(states, torch.stack(scaled, dim=1).unbind(), strict=True):
            state["pace"] = row
        return list(scaled.rate.unbind())

    def _moment(self, group: dict[str, Any]) -> robust.Moment:
        return robust.Moment(group["steps_done"], self._done(group))

    def _done(self, group: dict[str, Any]) -> float:
        """The share of the run that is behind when this step is taken."""
        if self.progress is not None:
            return check_progress(self.progress)
        if self.total_steps is None:
            raise RuntimeError("the robust rule needs total_steps, or progress to be set before every step")
        return min(1.0, (group["steps_done"] + 1) / self.total_steps)

    def _state_of(self, param: Tensor, group: dict[str, Any]) -> State:
        state = self.state[param]
        if "gain" not in state:
            state.update(self._init_direction(param, group))
            state["grad_sum"] = torch.zeros_like(param, dtype=torch.float32)
            if self.rule == "paper":
                state["gain"] = torch.ones_like(param, dtype=torch.float32)
            else:
                state["gain"] = torch.full((), self.first_step, dtype=torch.float32, device=param.device)
                state["pace"] = robust.begin_pace(param)
        return state

    @torch.no_grad()
    def end_epoch(self, reduce: Reduce | None = None) -> None:
        """End an epoch: reduce the gradient sums, move the gains, start new sums. The gains act from the next step on.

        The first call only stores the sums: there is nothing yet to compare them with. ``reduce`` gets all sums as one
        flat float32 tensor, in the order of ``param_groups``, and makes it the mean over ranks, in place or as its
        result. Every rank must call it with parameters of the same shapes. The robust rule has windows instead: an epoch's
        end is nothing to it.
        """
        if self.rule == "paper":
            for state, group in self._reduced_states(reduce):
                end_epoch_of(state, group)
        for group in self.param_groups:
            group["steps_since_epoch_end"] = 0

    def set_constants(self, constants: robust.Constants) -> None:
        """Replace the robust rule's constants before the first step."""
        self.constants = constants
        if self.rule == "robust":
            for group in self.param_groups:
                group["window_end"] = robust.next_window_end(0, constants)

    def is_window_over(self) -> bool:
        """Whether the robust rule has a window to end: a matter of the number of steps, so the same on every rank."""
        group = self.param_groups[0]
        return self.rule == "robust" and group["steps_done"] >= group["window_end"]

    @torch.no_grad()
    def end_window(self, reduce: Reduce | None = None) -> None:
        """End a window of the robust rule; as :meth:`end_epoch` is for the paper's."""
        for state, group in self._reduced_states(reduce):
            end_window_of(state, group["steps_done"] - group["window_begin"], self.constants)
        for group in self.param_groups:
            group["window_begin"] = group["steps_done"]
            group["window_end"] = robust.next_window_end(group["steps_done"], self.constants)

    def _reduced_states(self, reduce: Reduce | None) -> list[tuple[State, dict[str, Any]]]:
        """The states of all parameters that have one, with their groups; with ``reduce``, of all that could have one, and
        their sums the mean over ranks."""
        entries = [
            (self._state_of(param, group), group)
            for group in self.param_groups
            for param in group["params"]
            if (param.requires_grad if reduce else "gain" in self.state[param])
        ]
        if reduce and entries:
            reduce_flat([state["grad_sum"] for state, _ in entries], reduce)
        return entries

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in SETTINGS}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but gains and sums stay float32, where torch would cast them to the dtype of the parameter. Raises
        ``ValueError`` for the state of another rule."""
        rule = "robust" if "steps_done" in state_dict["param_groups"][0] else "paper"
        if rule != self.rule:
            raise ValueError(f"this state is of the {rule} rule, the optimizer follows the {self.rule} rule")
        super().load_state_dict(state_dict)
        saved_ids = (index for group in state_dict["param_groups"] for index in group["params"])
        params = (param for group in self.param_groups for param in group["params"])
        for index, param in zip(saved_ids, params, strict=True):
            saved = state_dict["state"].get(index, {})
            for key in saved.keys() & set(FLOAT32_STATE):
                self.state[param][key] = saved[key].detach().to(param.device, torch.float32, copy=True)
            if "pace" in saved:
                self.state[param]["pace"] = robust.complete_pace(self.state[param]["pace"])

    def gain_stats(self, named_parameters: Iterable[tuple[str, Tensor]] | None = None) -> dict[str, Any]:
        """See :func:`activelr_service.optim.stats.gain_stats`: one host synchronisation a call."""
        return gain_stats(self, named_parameters)

    def pace_stats(self, named_parameters: Iterable[tuple[str, Tensor]]) -> dict[str, dict[str, float]]:
        """See :func:`activelr_service.optim.stats.pace_stats`: one host synchronisation a call."""
        return pace_stats(self, named_parameters)

    def gain_histogram(self, edges: list[float]) -> list[int]:
        """See :func:`activelr_service.optim.stats.gain_histogram`: one host synchronisation a call."""
        return gain_histogram(self, edges)


def count_step(states: list[State]) -> list[float]:
    """Advance each parameter's ``step`` (a float32 scalar on the CPU, as in torch) and return the new counts."""
    steps = [state["step"] for state in states]
    torch._foreach_add_(steps, 1.0)
    return [step.item() for step in steps]
