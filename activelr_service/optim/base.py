"""What the five ActiveLR optimizers share: the step in outline, and the gradient sums that a rule reads."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from activelr_service.optim import fused
from activelr_service.optim.arguments import NO_LR, check_fused, check_group, check_real, dense_grads, make_rule
from activelr_service.optim.misuse import check_state_dict, find_misuse, has_ranks, warn
from activelr_service.optim.numbers import NumberTables
from activelr_service.optim.places import Array, Direction, Places
from activelr_service.optim.robust_rule import INITIAL_UPDATE_RATIO
from activelr_service.optim.rule import Rule
from activelr_service.optim.stats import gain_histogram, gain_stats, update_stats
from activelr_service.optim.sums import Group, Reduce, State, add_to_sums, by_device, reduce_flat, with_gradient

Closure = Callable[[], Any]


class ActiveOptimizer(torch.optim.Optimizer, ABC):
    r"""An optimizer whose steps are scaled by gains, which a rule reads from the gradients.

    A step computes the direction :math:`d` of the base optimizer (the one thing that a subclass supplies), has the rule
    move the parameters along it, and adds the gradients to ``grad_sum``. From time to time the rule ends the sums: it
    compares them with the sums before, moves the gains, and begins new sums.

    State of a parameter: what the base optimizer keeps, under torch's names; ``grad_sum``; and what else the rule keeps, in
    dtypes of its own, whatever the parameter's. Gradients are read and never changed. ``step()`` waits for no GPU.

    A step has two forms. Float32 parameters take the compiled form (:mod:`activelr_service.optim.fused`): on the CPU where
    the package was installed with a C compiler, on a CUDA GPU where there is Triton. All others take the list form, in
    torch's foreach functions. Their steps are equal up to rounding. ``fused=False`` chooses the list form for all.
    """

    initial_update_ratio: ClassVar[float] = INITIAL_UPDATE_RATIO
    is_normalized: ClassVar[bool] = True  # directions are divided by second moments, and change their size little
    direction_name: ClassVar[str] = ""  # stands in the parameter groups, so that no other optimizer takes the state
    direction_keys: ClassVar[tuple[str, ...]] = ()  # the state of the direction, under torch's names
    torch_option: ClassVar[str] = "betas"  # an option that torch's optimizer of this direction has
    has_trainer = False  # a training loop that calls end_step() and end_epoch() itself sets True

    def __init__(
        self, params: Iterable[Any], defaults: Group, rule: str, fused: bool | None, **rule_options: Any
    ) -> None:
        chosen, options = make_rule(self, rule, **rule_options)
        check_fused(fused)
        self._saved_form: str | None = None
        self.rule: Rule = chosen
        self._said: set[str] = set()
        self._steps = NumberTables("step")
        self._places = Places()
        named = {"direction": self.direction_name} if self.direction_name else {}
        super().__init__(params, {**defaults, **named, "fused": fused, **options, **self.rule.begin_run()})

    @abstractmethod
    def _init_direction(self, param: Tensor, group: Group) -> State:
        """The base optimizer's own state of one parameter before its first step."""

    @abstractmethod
    def _direction(self, grads: list[Tensor], states: list[State], group: Group) -> list[Tensor]:
        """The base optimizer's step at learning rate 1: a fresh tensor for each gradient, which may be overwritten."""

    @abstractmethod
    def _fused_direction(self, states: list[State], group: Group) -> Direction:
        """The same step as the kernel takes it. The states that it names exist afterwards."""

    @property
    def progress(self) -> float | None:
        """The share of the run that is behind after the coming step, in (0, 1]; None where ``total_steps`` says it."""
        return self.rule.progress

    @progress.setter
    def progress(self, progress: float | None) -> None:
        self.rule.progress = progress

    def add_param_group(self, param_group: Group) -> None:
        """As torch's. A group that is added later is as far in the run as the others."""
        super().add_param_group(param_group)
        first, new = self.param_groups[0], self.param_groups[-1]
        new.update({name: first[name] for name in self.rule.begin_run()})
        check_group(new, self.rule, type(self).__name__)
        for param in new["params"]:
            check_real(param, type(self).__name__)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:  # type: ignore[override]
        """Take one step, and add its gradients to the sums. Returns what ``closure`` returned.

        In one process it also ends the sums when the rule says so. With several ranks :meth:`end_step` does that, and a
        step raises ``RuntimeError`` if it was forgotten.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for message in find_misuse(self.rule, self.param_groups, self.has_trainer):
            self._say_once(message)
        for group in self.param_groups:
            for params in with_gradient(group["params"]):
                self._step_group(params, group)
            self.rule.count_step(group)
        if not self.has_trainer and not has_ranks():
            self.end_step()
        return loss

    def _step_group(self, params: list[Tensor], group: Group) -> None:
        grads = dense_grads(params, type(self).__name__)
        states = self._states_of(params, group)
        names = self._fused_names(states[0], group)
        places = self._places.find(params, grads, states, names) if names is not None else None
        if places is not None:
            self._step_fused(params, grads, states, group, places)
            group["step_form"] = "compiled"
        else:
            group["step_form"] = self._step_mixed(params, grads, states, group)
        if group is self.param_groups[0] and self._saved_form not in (None, group["step_form"]):
            self._say_once(
                f"the state was saved by steps in the {self._saved_form} form, these have the {group['step_form']} form: "
                "results are equal up to rounding, not to the last bit"
            )

    def _step_mixed(self, params: list[Tensor], grads: list[Tensor], states: list[State], group: Group) -> str:
        """The step of tensors of which some may not fit the kernel. Returns the form that it had."""
        is_fused = self._can_fuse(params, grads, states, group)
        for fits, take_step in ((True, self._step_fused), (False, self._step_list)):
            own = [number for number, is_chosen in enumerate(is_fused) if is_chosen == fits]
            if own:
                take_step([params[i] for i in own], [grads[i] for i in own], [states[i] for i in own], group)
        if all(is_fused):
            self._places.learn(params, states, self._fused_names(states[0], group) or ())
            return "compiled"
        return "mixed" if any(is_fused) else "list"

    def _fused_names(self, state: State, group: Group) -> tuple[str, ...] | None:
        """The names of what the direction keeps in a state, if the group may take the compiled step; else None."""
        if group["fused"] is False or not fused.has_kernel(state["grad_sum"].device.type) or group.get("amsgrad"):
            return None
        kept = (name for name in self.direction_keys if name in state and name not in ("step", "max_exp_avg_sq"))
        return (*kept, *(("gain",) if self.rule.uses_lr else ()))

    def _can_fuse(self, params: list[Tensor], grads: list[Tensor], states: list[State], group: Group) -> list[bool]:
        """Of each parameter, whether the kernel takes its step."""
        names = self._fused_names(states[0], group)
        if names is None:
            return [False] * len(params)
        return [fused.can_fuse(*row, names) for row in zip(params, grads, states, strict=True)]

    def _step_fused(
        self,
        params: list[Tensor],
        grads: list[Tensor],
        states: list[State],
        group: Group,
        places: dict[str, Array] | None = None,
    ) -> None:
        decay, l2 = group["weight_decay"], 0.0
        if decay != 0 and not group["decoupled_weight_decay"]:
            decay, l2 = 0.0, decay
        factors = self.rule.decay_factors(params, group) if decay else [1.0] * len(params)
        options = self.rule.fused_options(states, group)
        direction = self._fused_direction(states, group)  # counts the step, after all that may refuse it
        sign = -1.0 if group["maximize"] else 1.0
        fused.take_step(params, grads, states, direction, decay=factors, sign=sign, l2=l2, places=places, **options)

    def _step_list(self, params: list[Tensor], grads: list[Tensor], states: list[State], group: Group) -> None:
        add_to_sums([state["grad_sum"] for state in states], grads, group.get("steps_done", 0))
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        if group["weight_decay"] != 0:
            if group["decoupled_weight_decay"]:
                torch._foreach_mul_(params, self.rule.decay_factors(params, group))
            else:  # an L2 penalty, whose gradient is added
                grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        self.rule.move(params, self._direction(grads, states, group), states, group)

    def _states_of(self, params: list[Tensor], group: Group) -> list[State]:
        states: list[State] = [self.state[param] for param in params]
        if any("gain" not in state for state in states):
            states = [self._state_of(param, group) for param in params]
        return states

    def _state_of(self, param: Tensor, group: Group) -> State:
        state: State = self.state[param]
        if "gain" not in state:
            taken_over = dict(state)  # of torch's optimizer of the same direction
            state.update(self._init_direction(param, group))
            state.update(taken_over)
            state.update(self.rule.init_state(param))
        return state

    def _count_step(self, states: list[State]) -> list[float]:
        """Advance the ``step`` of each parameter (a float32 scalar on the CPU, as in torch). Returns the new counts."""
        steps: list[float] = self._steps.of(states).columns["step"].add_(1.0).tolist()
        return steps

    def end_step(self, reduce: Reduce | None = None) -> None:
        """End the sums if the rule says that they are due. With several ranks, call it after every :meth:`step`.

        ``reduce`` gets all sums as one flat float32 tensor, in the order of ``param_groups``, and makes it the mean over
        the ranks, in place or as its result. All ranks must call it, with parameters of the same shapes. Whether sums
        are due depends on the number of steps alone, so all ranks agree.
        """
        if self.rule.is_due(self.param_groups[0]):
            self.end_sums(reduce)

    def end_epoch(self, reduce: Reduce | None = None) -> None:
        """End an epoch under the paper's rule: move the gains, which act from the next step on, and begin new sums.

        The first call moves no gain: there is no epoch before it. ``reduce`` is as in :meth:`end_step`. The robust rule
        has windows of its own: there it does nothing, and says so once.
        """
        if self.rule.has_epochs:
            self.end_sums(reduce)
        else:
            self._say_once("end_epoch() does nothing under the robust rule, which ends windows of its own")

    @torch.no_grad()
    def end_sums(self, reduce: Reduce | None = None) -> None:
        """End the sums now, whether they are due or not; ``reduce`` is as in :meth:`end_step`."""
        entries = self._reduced_states(reduce)
        for group in self.param_groups:
            for states in by_device([state for state, owner in entries if owner is group]):
                self.rule.end_sums(states, group)
            self.rule.begin_sum(group)

    def _reduced_states(self, reduce: Reduce | None) -> list[tuple[State, Group]]:
        """The states of all parameters that have one, with their groups. With ``reduce``: of all that may have one on some
        rank, and their sums are the mean over the ranks."""
        entries = [
            (self._state_of(param, group), group)
            for group in self.param_groups
            for param in group["params"]
            if (param.requires_grad if reduce else "gain" in self.state[param])
        ]
        if reduce and entries:
            reduce_flat([state["grad_sum"] for state, _ in entries], reduce)
        return entries

    def steps_in_sum(self) -> int:
        """How many steps the present sums hold. At 0 they are all zero."""
        return self.rule.steps_in_sum(self.param_groups[0])

    def _say_once(self, message: str) -> None:
        """Warn of a misuse, once for each message."""
        if message not in self._said:
            self._said.add(message)
            warn(message)

    def __getstate__(self) -> dict[str, Any]:
        names = ("rule", "has_trainer", "_said", "_saved_form", "_steps", "_places")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As torch's. Options that the state lacks, because it is older or torch's own, take their defaults."""
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
            if not self.rule.uses_lr:
                group["lr"] = NO_LR

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but what the rule keeps has its own dtypes, where torch would cast it to the parameter's.

        It takes states of older versions, and those of torch's optimizer of the same direction: then its moments go on,
        and the gains begin. Raises ``ValueError`` for the state of another rule or of another kind of optimizer.
        """
        check_state_dict(state_dict, self)
        super().load_state_dict(state_dict)
        saved_ids = (index for group in state_dict["param_groups"] for index in group["params"])
        params = (param for group in self.param_groups for param in group["params"])
        for index, param in zip(saved_ids, params, strict=True):
            if saved := state_dict["state"].get(index):
                self._keep_dtypes(param, dict(saved))
        self._saved_form = state_dict["param_groups"][0].get("step_form")
        for group in self.param_groups:
            group["fused"] = self.defaults["fused"]

    def _keep_dtypes(self, param: Tensor, saved: State) -> None:
        state = self.state[param]
        for name in self.direction_keys:  # laid out as the parameter, whatever the run that saved it used
            if name in state and state[name].shape == param.shape and state[name].stride() != param.stride():
                state[name] = torch.empty_like(param, dtype=state[name].dtype).copy_(state[name])
        self.rule.upgrade_state(saved)
        if "gain" not in saved:
            return
        self.rule.upgrade_state(state)
        for name in self.rule.state_names:
            if name in saved:
                dtype = self.rule.dtype_of(name, param)
                like = param if saved[name].shape == param.shape else saved[name]
                state[name] = torch.empty_like(like, dtype=dtype, device=param.device).copy_(saved[name].detach())
        state.setdefault("grad_sum", torch.zeros_like(param, dtype=self.rule.dtype_of("grad_sum", param)))

    def gain_stats(self, named_parameters: Iterable[tuple[str, Tensor]] | None = None) -> dict[str, Any]:
        """See :func:`activelr_service.optim.stats.gain_stats`: one host synchronization a call."""
        return gain_stats(self, named_parameters)

    def update_stats(self, named_parameters: Iterable[tuple[str, Tensor]]) -> dict[str, dict[str, float]]:
        """See :func:`activelr_service.optim.stats.update_stats`: one host synchronization a call."""
        return update_stats(self, named_parameters)

    def gain_histogram(self, edges: list[float]) -> list[int]:
        """See :func:`activelr_service.optim.stats.gain_histogram`: one host synchronization a call."""
        return gain_histogram(self, edges)
