"""What an optimizer asks of a rule."""

from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from activelr_service.optim.sums import Group, State


class Rule(Protocol):
    """A rule: it keeps the gains, moves the parameters by them, and decides when the gradient sums end.

    :class:`~activelr_service.optim.paper_rule.PaperRule` and :class:`~activelr_service.optim.robust_rule.RobustRule` are
    the two. Counters that all ranks share stand in the parameter groups, where a state dict saves them.
    """

    name: str
    uses_lr: bool  # whether the learning rate has an effect
    has_epochs: bool  # whether the end of an epoch can end the sums
    total_steps: int | None  # of the whole run, where the rule needs it and was told
    progress: float | None  # the share of the run that is behind after the coming step, where a trainer sets it
    state_names: ClassVar[tuple[str, ...]]  # of what it keeps of a parameter

    @property
    def ends_with_epochs(self) -> bool:
        """Whether the sums end only when the user calls ``end_epoch()``."""

    def begin_run(self) -> Group:
        """The counters that every parameter group carries, at the start of a run."""

    def init_state(self, param: Tensor) -> State:
        """The state of one parameter before its first step."""

    def dtype_of(self, name: str, param: Tensor) -> torch.dtype:
        """The dtype of what it keeps of a parameter under this name."""

    def upgrade_state(self, state: State) -> None:
        """Rewrite, in place, the state of a parameter as an older version saved it."""

    def decay_factors(self, params: list[Tensor], group: Group) -> list[float]:
        """What decoupled weight decay multiplies each parameter by in this step."""

    def move(self, params: list[Tensor], updates: list[Tensor], states: list[State], group: Group) -> None:
        """Take one step along the directions ``updates``, which may be overwritten."""

    def fused_options(self, states: list[State], group: Group) -> dict[str, Any]:
        """What the compiled step needs of the rule: see :func:`activelr_service.optim.fused.take_step`."""

    def forget_update_rms(self, states: list[State]) -> None:
        """Learn that the scale of these parameters' directions changes with this step."""

    def count_step(self, group: Group) -> None:
        """Count a step that was taken."""

    def steps_in_sum(self, group: Group) -> int:
        """How many steps the present sums hold."""

    def is_due(self, group: Group) -> bool:
        """Whether the sums are to end now. It depends on the number of steps alone, so all ranks agree."""

    def end_sums(self, states: list[State], group: Group) -> None:
        """Move the gains of parameters of one device on their sums, the mean over the ranks, and begin new ones."""

    def begin_sum(self, group: Group) -> None:
        """Count the steps of the sums from here on."""
