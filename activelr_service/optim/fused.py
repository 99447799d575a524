"""The compiled form of a step: :file:`kernel.c`, for float32 parameters on the CPU.

It is built when the package is installed, where there is a C compiler. Without one, and for all other tensors, the list form
runs: it takes the same steps, up to rounding. Pointers are read anew at each step, since users may replace any tensor.
"""

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from activelr_service.optim.places import addresses_of, pointers, sums_of
from activelr_service.optim.sums import State

TASK_ELEMENTS = 16_384
KINDS = {"adam": 0, "belief": 1, "sgd": 2, "nesterov": 3, "plain": 4}  # the directions of kernel.c
KERNEL_VERSION = 2  # goes up with each change of kernel.c, which has the same number
SUM_DTYPES = (torch.float32, torch.bfloat16)
COUNTS = 6  # numbers that the end of a sum counts for each task

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


class Step(ctypes.Structure):
    """The same fields in the same order as in kernel.c; so is :class:`Ends`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("num_tensors", "num_tasks")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("tasks", "param", "grad", "avg", "avg_sq", "sum", "half", "gains", "a", "b", "decay"),
                *("gain", "weight_rms", "update_rms", "last_rms", "elements_seen", "clip_coef", "steps_clipped"),
                *("effective_lr", "update_ratio", "squares", "rate", "cut"),
            )
        ),
        *((name, ctypes.c_float) for name in ("weight1", "beta2", "weight2", "eps", "momentum", "sign", "l2", "lr")),
        *((name, ctypes.c_float) for name in ("max_update_ratio", "lr_decay", "fall", "hold")),
        *((name, ctypes.c_int32) for name in ("kind", "rule_is_paper", "threads")),
        ("dither", ctypes.c_uint32),
    )


class Ends(ctypes.Structure):
    """See :class:`Step`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("num_tensors", "num_tasks")),
        *((name, ctypes.c_void_p) for name in ("tasks", "sum", "half", "previous", "gains", "counts")),
        *((name, ctypes.c_float) for name in ("gain_increment", "gain_decay")),
        *((name, ctypes.c_int32) for name in ("hold_on_zero", "threads")),
    )


@functools.cache
def load_kernel() -> ctypes.CDLL | None:
    """The compiled kernel; None where the package was installed without a C compiler, or with that of another version."""
    spec = importlib.util.find_spec("_activelr_kernel")
    if spec is None or spec.origin is None:
        return None
    kernel = ctypes.CDLL(spec.origin)
    kernel.layout.restype = ctypes.c_int64
    if kernel.layout() != 1_000_000 * KERNEL_VERSION + 1000 * ctypes.sizeof(Step) + ctypes.sizeof(Ends):
        return None
    kernel.take_step.argtypes = kernel.end_sums.argtypes = (ctypes.c_void_p,)
    kernel.take_step.restype = kernel.end_sums.restype = None
    return kernel


def describe_step() -> str:
    """Which form of the step runs here, in words."""
    if load_kernel() is None:
        return "list form, several times as slow: the package was installed without a C compiler, or in another version"
    return "compiled for float32 parameters on the CPU; all others take the list form"


def can_fuse(param: Tensor, grad: Tensor, state: State, names: Sequence[str]) -> bool:
    """Whether the kernel can take the step of a parameter: on the CPU, float32, and its gradient and its states of these
    names, where they exist, are dense, float32 and laid out as it is."""
    if type(grad) is not Tensor or not param.is_cpu:
        return False
    total, size = state["grad_sum"], param.numel()
    others = [grad, *[state[name] for name in names if state.get(name) is not None]]
    if total.dtype not in SUM_DTYPES or total.numel() != size:
        return False
    is_contiguous = param.is_contiguous() and total.is_contiguous()
    for tensor in (param, *others):
        if tensor.dtype is not torch.float32 or tensor.numel() != size:
            return False
        is_contiguous = is_contiguous and tensor.is_contiguous()
    others.append(total)
    if is_contiguous:
        return True
    stride, shape = param.stride(), param.shape
    is_dense = param.is_contiguous() or param.is_contiguous(memory_format=torch.channels_last)
    return is_dense and all(each.stride() == stride and each.shape == shape for each in others)


def take_step(
    params: list[Tensor],
    grads: list[Tensor],
    states: list[State],
    direction: Direction,
    *,
    decay: list[float],
    sign: float,
    l2: float,
    places: dict[str, Array] | None = None,
    numbers: dict[str, Tensor] | None = None,
    **options: float,
) -> None:
    """One step of tensors for which :func:`can_fuse` holds.

    ``decay``: what multiplies the weights of each tensor. ``sign``: -1 to maximize. ``l2``: the weight of an L2
    penalty. ``places``: :func:`~activelr_service.optim.places.addresses_of` the tensors, where they are known. ``numbers``:
    under the robust rule, what it keeps of each tensor, float32 (n,), changed in place; None under the paper's.
    ``options``: those of the rule, under the names of :class:`Step`.
    """
    kernel = load_kernel()
    assert kernel is not None
    tasks = _tasks(tuple([param.numel() for param in params]))
    n, (beta1, beta2) = len(params), direction.betas
    arrays = {
        "tasks": tasks,
        **(places or addresses_of(params, states, (*direction.names, *(("gain",) if numbers is None else ())))),
        "grad": pointers(grads),
        "a": np.array(direction.a, np.float32),
        "b": np.array(direction.b, np.float32),
        "decay": np.array(decay, np.float32),
    }
    if numbers is not None:
        arrays |= {name: column.numpy() for name, column in numbers.items()}
        scratch = (("squares", np.float64), ("rate", np.float32), ("cut", np.int32))
        arrays |= {name: np.empty(len(tasks), dtype) for name, dtype in scratch}
    scalars = {"weight1": 1 - beta1, "beta2": beta2, "weight2": 1 - beta2, "eps": direction.eps}
    scalars |= {"momentum": direction.momentum, "sign": sign, "l2": l2, **options}
    whole = {"kind": KINDS[direction.kind], "rule_is_paper": numbers is None, "threads": torch.get_num_threads()}
    addresses = {name: array.ctypes.data for name, array in arrays.items()}
    step = Step(num_tensors=n, num_tasks=len(tasks), **addresses, **scalars, **whole)
    kernel.take_step(ctypes.byref(step))
    torch.autograd.graph.increment_version(params)


def end_sums(states: list[State], previous: str, **options: float) -> Array:
    """Read and clear the sums of tensors for which :func:`can_end` holds, as the two functions of kernel.c say.

    ``previous`` is the name of what is kept of the sum before. ``options``: under the paper's rule its own, and then the
    gains move. Returns float64 (n, 6): the counts of each tensor.
    """
    kernel = load_kernel()
    assert kernel is not None
    sums = [state["grad_sum"] for state in states]
    tasks = _tasks(tuple([each.numel() for each in sums]))
    counts = np.zeros((len(tasks), COUNTS), np.float64)
    arrays = {"tasks": tasks, **sums_of(sums), "counts": counts}
    arrays["previous"] = pointers([state[previous] for state in states])
    if options:
        arrays["gains"] = pointers([state["gain"] for state in states])
    addresses = {name: array.ctypes.data for name, array in arrays.items()}
    ends = Ends(len(sums), len(tasks), **addresses, **options, threads=torch.get_num_threads())
    kernel.end_sums(ctypes.byref(ends))
    totals = np.zeros((len(sums), COUNTS), np.float64)
    np.add.at(totals, tasks[:, 0], counts)
    return totals


def can_end(state: State, dtypes: dict[str, torch.dtype]) -> bool:
    """Whether the kernel can end the sum of a parameter: the sum and its other states have these ``dtypes``, are on the CPU,
    dense, and laid out alike."""
    first = state["grad_sum"]
    if load_kernel() is None or type(first) is not Tensor or not first.is_cpu or first.dtype not in SUM_DTYPES:
        return False
    is_dense = first.is_contiguous() or first.is_contiguous(memory_format=torch.channels_last)
    is_alike = (state[name].shape == first.shape and state[name].stride() == first.stride() for name in dtypes)
    return is_dense and all(is_alike) and all(state[name].dtype is dtype for name, dtype in dtypes.items())


@functools.lru_cache(maxsize=16)
def _tasks(sizes: tuple[int, ...]) -> Array:
    """The pieces of tensors of these sizes, int64 (k, 3): the number of the tensor, the first element, how many."""
    pieces = np.array([-(-size // TASK_ELEMENTS) for size in sizes], np.int64)
    tensor = np.repeat(np.arange(len(sizes), dtype=np.int64), pieces)
    start = (np.arange(len(tensor)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * TASK_ELEMENTS
    length = np.minimum(np.array(sizes, np.int64)[tensor] - start, TASK_ELEMENTS)
    return np.ascontiguousarray(np.stack([tensor, start, length], 1))
