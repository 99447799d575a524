"""The numbers that an optimizer keeps of each tensor, side by side: one table for many tensors."""

from collections.abc import Sequence
from itertools import chain
from operator import is_, itemgetter

import torch
from torch import Tensor

from activelr_service.optim.sums import State


class NumberTable:
    """Numbers of n tensors on one device, as float32 (n,) columns. The states hold views of them, 0-dim each, so that a
    step writes all of them at once. What a state lacks is 0."""

    def __init__(self, names: Sequence[str], states: list[State]) -> None:
        self._names = tuple(names)
        for state in states:
            if names[0] not in state:
                state.update(dict.fromkeys(names, torch.zeros((), device=state["grad_sum"].device)))
        values = torch.stack([_stack([state[name] for state in states]) for name in names])
        self.columns: dict[str, Tensor] = dict(zip(names, values.unbind(), strict=True))
        for name, column in self.columns.items():
            for state, number in zip(states, column.unbind(), strict=True):
                state[name] = number
        self._views = self._numbers_of(states)

    def holds(self, states: list[State]) -> bool:
        """Whether the numbers of these states are still those of the table: users may load or replace them."""
        if len(states) * len(self._names) != len(self._views):
            return False
        try:
            return all(map(is_, self._numbers_of(states), self._views))
        except KeyError:
            return False

    def write(self, values: dict[str, Tensor]) -> None:
        """Replace columns by these values."""
        for name, value in values.items():
            self.columns[name].copy_(value)

    def _numbers_of(self, states: list[State]) -> list[Tensor]:
        numbers = map(itemgetter(*self._names), states)
        return list(numbers if len(self._names) == 1 else chain.from_iterable(numbers))


class NumberTables:
    """The tables of an optimizer: one for each list of tensors that takes a step together. They are made when needed, from
    the states, and are no part of what is saved or copied."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._tables: dict[tuple[int, int], NumberTable] = {}

    def of(self, states: list[State]) -> NumberTable:
        """The table of these states, in their order."""
        key = (id(states[0]), len(states))
        table = self._tables.get(key)
        if table is None or not table.holds(states):
            table = self._tables[key] = NumberTable(self._names, states)
        return table

    def __getstate__(self) -> dict[str, object]:
        return {"_names": self._names, "_tables": {}}


def _stack(numbers: list[Tensor]) -> Tensor:
    return torch.stack(numbers).float()
