"""The numbers that the robust rule keeps of each tensor, side by side: one table for many tensors."""

from itertools import chain
from operator import itemgetter

import torch
from torch import Tensor

from activelr_service.optim.sums import State

NUMBERS = (
    *("gain", "weight_rms", "update_rms", "last_rms", "elements_seen", "clip_coef", "steps_clipped"),
    *("effective_lr", "update_ratio"),
)


class NumberTable:
    """The numbers of n tensors on one device, as float32 (n,) columns. The states hold views of them, 0-dim each, so that a
    step writes all of them at once."""

    def __init__(self, states: list[State]) -> None:
        values = torch.stack([torch.stack([state[name] for state in states]).float() for name in NUMBERS])
        self.columns: dict[str, Tensor] = dict(zip(NUMBERS, values.unbind(), strict=True))
        for name, column in self.columns.items():
            for state, number in zip(states, column.unbind(), strict=True):
                state[name] = number
        self._views = _numbers_of(states)  # kept, so that no other object gets the id of one
        self._ids = list(map(id, self._views))

    def holds(self, states: list[State]) -> bool:
        """Whether the numbers of these states are still those of the table: users may load or replace them."""
        return len(states) * len(NUMBERS) == len(self._ids) and list(map(id, _numbers_of(states))) == self._ids

    def write(self, values: dict[str, Tensor]) -> None:
        """Replace columns by these values."""
        for name, value in values.items():
            self.columns[name].copy_(value)


class NumberTables:
    """The tables of an optimizer: one for each list of tensors that takes a step together. They are made when needed, from
    the states, and are no part of what is saved or copied."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], NumberTable] = {}

    def of(self, states: list[State]) -> NumberTable:
        """The table of these states, in their order."""
        key = (id(states[0]), len(states))
        table = self._tables.get(key)
        if table is None or not table.holds(states):
            table = self._tables[key] = NumberTable(states)
        return table

    def __getstate__(self) -> dict[str, object]:
        return {"_tables": {}}


def _numbers_of(states: list[State]) -> list[Tensor]:
    return list(chain.from_iterable(map(itemgetter(*NUMBERS), states)))
