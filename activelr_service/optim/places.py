"""What the compiled step takes: the direction as numbers, where the tensors lie in memory, and their pieces."""

from collections.abc import Sequence
from operator import eq
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelr_service.optim.sums import State

KINDS = {"adam": 0, "belief": 1, "sgd": 2, "nesterov": 3, "plain": 4}  # the directions of the kernels
COUNTS = 6  # numbers that the end of a sum counts

Array = NDArray[Any]


class Direction(NamedTuple):
    """A step of a base optimizer, as the kernel takes it. ``a`` and ``b`` have one number for each tensor:

    - "adam", "belief": the direction is ``exp_avg / (sqrt(second moment) * a + b)``.
    - "sgd", "nesterov": the buffer becomes ``a * buffer + b * gradient``.
    - "plain": the direction is the gradient.

    ``names`` are those of the states that the kernel updates: none, one or two.
    """

    kind: str
    names: tuple[str, ...]
    a: list[float]
    b: list[float]
    betas: tuple[float, float] = (0.0, 0.0)
    eps: float = 0.0
    momentum: float = 0.0


class Places:
    """Remembers where tensors lie that the kernel can take. While they stay there, their layouts need no second look, which
    would cost more than the step of a small tensor. Nothing of it is saved or copied."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[dict[str, Array], list[tuple[int, ...]], list[State]]] = {}

    def learn(self, params: list[Tensor], states: list[State], names: Sequence[str]) -> None:
        """Remember tensors for which :func:`activelr_service.optim.fused.can_fuse` holds."""
        kept = [dict(state) for state in states]  # so that nothing else takes these addresses
        self._known[id(params[0]), len(params)] = addresses_of(params, states, names), _strides(params), kept

    def find(
        self, params: list[Tensor], grads: list[Tensor], states: list[State], names: Sequence[str]
    ) -> dict[str, Array] | None:
        """The addresses of these tensors, if they are those that were learned, and the gradients are laid out alike."""
        key = id(params[0]), len(params)
        if key not in self._known:
            return None
        known, strides, _ = self._known[key]
        fit = set(map(type, grads)) == {Tensor} and {grad.dtype for grad in grads} == {torch.float32}
        if not fit or not all(map(eq, _strides(grads), strides)):
            return None
        found = addresses_of(params, states, names)
        is_same = found.keys() == known.keys() and all(np.array_equal(found[name], known[name]) for name in known)
        return found if is_same else None

    def __getstate__(self) -> dict[str, object]:
        return {"_known": {}}


def addresses_of(params: list[Tensor], states: list[State], names: Sequence[str]) -> dict[str, Array]:
    """The addresses of parameters and of their states of these names, by the names that they have in the kernel, uint64 (n,)
    each; and whether each sum is bfloat16, uint8 (n,). ``"gain"`` may come last."""
    found = {"param": pointers(params)}
    for place, name in zip(("avg", "avg_sq", ""), names, strict=False):
        found["gains" if name == "gain" else place] = pointers([state[name] for state in states])
    return found | sums_of([state["grad_sum"] for state in states])


def sums_of(sums: list[Tensor]) -> dict[str, Array]:
    """The addresses of gradient sums, and whether each is bfloat16."""
    dtypes = [each.dtype for each in sums]
    return {
        "sum": pointers(sums),
        "half": np.fromiter((dtype is torch.bfloat16 for dtype in dtypes), np.uint8, len(sums)),
    }


def pointers(tensors: list[Tensor]) -> Array:
    """The addresses of tensors, uint64 (n,)."""
    return np.fromiter(map(torch.Tensor.data_ptr, tensors), np.uint64, len(tensors))


def pieces_of(sizes: tuple[int, ...], largest: int) -> Array:
    """The pieces of tensors of these sizes, of at most so many elements, int64 (k, 3): the number of the tensor, the first
    element, how many."""
    pieces = np.array([-(-size // largest) for size in sizes], np.int64)
    tensor = np.repeat(np.arange(len(sizes), dtype=np.int64), pieces)
    start = (np.arange(len(tensor)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * largest
    length = np.minimum(np.array(sizes, np.int64)[tensor] - start, largest)
    return np.ascontiguousarray(np.stack([tensor, start, length], 1))


def _strides(tensors: list[Tensor]) -> list[tuple[int, ...]]:
    return list(map(torch.Tensor.stride, tensors))
