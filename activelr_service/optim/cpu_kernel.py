"""The compiled form of a step on the CPU: calls of :file:`kernel.c` through ctypes.

It is built when the package is installed, where there is a C compiler. Only :mod:`activelr_service.optim.fused` imports this
file.
"""

import ctypes
import functools
import importlib.util
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activelr_service.optim.places import COUNTS, KINDS, Array, Direction, pieces_of

PIECE = 16_384  # elements of a tensor that a thread takes at once
KERNEL_VERSION = 2  # goes up with each change of kernel.c, which has the same number


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


def take_step(
    sizes: tuple[int, ...],
    rows: dict[str, Array],
    direction: Direction,
    device: torch.device,
    numbers: dict[str, Tensor] | None,
    *,
    sign: float,
    l2: float,
    **options: Any,
) -> None:
    """One step of tensors of these sizes. ``rows``: the pointers and numbers of each tensor that :class:`Step` has; the
    other arguments are those of :func:`activelr_service.optim.fused.take_step`."""
    kernel = load_kernel()
    assert kernel is not None
    tasks, (beta1, beta2) = _tasks(sizes), direction.betas
    arrays = {"tasks": tasks} | {name: _narrow(row) for name, row in rows.items()}
    if numbers is not None:
        arrays |= {name: column.numpy() for name, column in numbers.items()}
        scratch = (("squares", np.float64), ("rate", np.float32), ("cut", np.int32))
        arrays |= {name: np.empty(len(tasks), dtype) for name, dtype in scratch}
    scalars = {"weight1": 1 - beta1, "beta2": beta2, "weight2": 1 - beta2, "eps": direction.eps}
    scalars |= {"momentum": direction.momentum, "sign": sign, "l2": l2, **options}
    whole = {"kind": KINDS[direction.kind], "rule_is_paper": numbers is None, "threads": torch.get_num_threads()}
    addresses = {name: array.ctypes.data for name, array in arrays.items()}
    kernel.take_step(ctypes.byref(Step(len(sizes), len(tasks), **addresses, **scalars, **whole)))


def end_sums(sizes: tuple[int, ...], rows: dict[str, Array], device: torch.device, **options: Any) -> Tensor:
    """Read and clear sums of these sizes: see :func:`activelr_service.optim.fused.end_sums`."""
    kernel = load_kernel()
    assert kernel is not None
    tasks = _tasks(sizes)
    counts = np.zeros((len(tasks), COUNTS), np.float64)
    addresses = {name: array.ctypes.data for name, array in {"tasks": tasks, "counts": counts, **rows}.items()}
    ends = Ends(len(sizes), len(tasks), **addresses, **options, threads=torch.get_num_threads())
    kernel.end_sums(ctypes.byref(ends))
    totals = np.zeros((len(sizes), COUNTS), np.float64)
    np.add.at(totals, tasks[:, 0], counts)
    return torch.from_numpy(totals)


def _narrow(row: Array) -> Array:
    return row.astype(np.float32) if row.dtype.kind == "f" else row


@functools.lru_cache(maxsize=16)
def _tasks(sizes: tuple[int, ...]) -> Array:
    return pieces_of(sizes, PIECE)
