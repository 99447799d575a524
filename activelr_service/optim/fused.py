"""The compiled form of a step: :file:`kernel.c` for float32 parameters on the CPU, Triton for those on a CUDA GPU.

The C kernel is built when the package is installed, where there is a C compiler; Triton comes with torch's CUDA builds, and
compiles its kernels at the first step. Without them, and for all other tensors, the list form runs: it takes the same steps,
up to rounding. Pointers are read anew at each step, since users may replace any tensor.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activelr_service.optim import cpu_kernel
from activelr_service.optim.places import Array, Direction, addresses_of, pointers, sums_of
from activelr_service.optim.sums import State

SUM_DTYPES = (torch.float32, torch.bfloat16)
OLDEST_GPU = (7, 0)
ON_GPU = "activelr_service.optim.cuda_kernel"


def has_kernel(device_type: str) -> bool:
    """Whether there is a kernel for the tensors of such a device."""
    return device_type in FAULTS and FAULTS[device_type]() is None


def kernel_of(device_type: str) -> ModuleType:
    """The module that launches the kernel for such a device, where :func:`has_kernel` holds."""
    return cpu_kernel if device_type == "cpu" else importlib.import_module(ON_GPU)


def _cpu_fault() -> str | None:
    """Why there is no kernel for the CPU; None where there is."""
    if cpu_kernel.load_kernel() is None:
        return "the package was installed without a C compiler, or in another version"
    return None


@functools.cache
def _gpu_fault() -> str | None:
    """Why there are no kernels for the GPU; None where there are. One is tried, since Triton needs a C compiler too."""
    if not torch.cuda.is_available():
        return "there is none"
    if torch.cuda.get_device_capability() < OLDEST_GPU:
        return f"Triton needs one of compute capability {'.'.join(map(str, OLDEST_GPU))} or newer"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    try:
        kernel_of("cuda").end_sums((0,), {}, torch.device("cuda"))
    except Exception as error:  # Triton lets pass whatever its compilers raise
        return f"Triton failed: {error}"
    return None


FAULTS: dict[str, Callable[[], str | None]] = {"cpu": _cpu_fault, "cuda": _gpu_fault}


def describe_step() -> str:
    """Which form of the step float32 parameters take here, in words. All others take the list form."""
    said = []
    for device_type, name in (("cpu", "CPU"), ("cuda", "GPU")):
        fault = FAULTS[device_type]()
        if fault is None:
            said.append(f"compiled on the {name}")
        elif device_type == "cpu" or torch.cuda.is_available():
            said.append(f"list form on the {name}, several times as slow: {fault}")
    return "; ".join(said)


def can_fuse(param: Tensor, grad: Tensor, state: State, names: Sequence[str]) -> bool:
    """Whether a kernel can take the step of a parameter: on its device, float32, and its gradient and its states of these
    names, where they exist, are dense, float32 and laid out as it is."""
    if type(grad) is not Tensor or not has_kernel(param.device.type):
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
    places: dict[str, Array] | None = None,
    numbers: dict[str, Tensor] | None = None,
    **options: Any,
) -> None:
    """One step of tensors of one device for which :func:`can_fuse` holds.

    ``decay``: what multiplies the weights of each tensor. ``places``:
    :func:`~activelr_service.optim.places.addresses_of` the tensors, where they are known. ``numbers``: under the robust
    rule, what it keeps of each tensor, float32 (n,), changed in place; None under the paper's. ``options``: ``sign``, which
    is -1 to maximize, ``l2``, the weight of an L2 penalty, and those of the rule.
    """
    names = (*direction.names, *(("gain",) if numbers is None else ()))
    rows = {**(places or addresses_of(params, states, names)), "grad": pointers(grads)}
    rows |= {"a": np.array(direction.a), "b": np.array(direction.b), "decay": np.array(decay)}
    sizes = tuple([param.numel() for param in params])
    device = params[0].device
    kernel_of(device.type).take_step(sizes, rows, direction, device, numbers, **options)
    torch.autograd.graph.increment_version(params)


def end_sums(states: list[State], previous: str, **options: float) -> Tensor:
    """Read and clear the sums of tensors of one device for which :func:`can_end` holds, as kernel.c says.

    ``previous`` is the name of what is kept of the sum before. ``options``: under the paper's rule its own, and then the
    gains move. Returns float64 (n, 6) on the device: the counts of each tensor.
    """
    sums = [state["grad_sum"] for state in states]
    rows = {**sums_of(sums), "previous": pointers([state[previous] for state in states])}
    if options:
        rows["gains"] = pointers([state["gain"] for state in states])
    sizes = tuple([each.numel() for each in sums])
    found: Tensor = kernel_of(sums[0].device.type).end_sums(sizes, rows, sums[0].device, **options)
    return found


def can_end(state: State, dtypes: dict[str, torch.dtype]) -> bool:
    """Whether a kernel can end the sum of a parameter: the sum and its other states have these ``dtypes``, are
    dense, and laid out alike."""
    first = state["grad_sum"]
    if not has_kernel(first.device.type) or type(first) is not Tensor or first.dtype not in SUM_DTYPES:
        return False
    is_dense = first.is_contiguous() or first.is_contiguous(memory_format=torch.channels_last)
    is_alike = (state[name].shape == first.shape and state[name].stride() == first.stride() for name in dtypes)
    return is_dense and all(is_alike) and all(state[name].dtype is dtype for name, dtype in dtypes.items())
