"""The compiled form of a step on a GPU: launches of the kernels in :file:`kernel_triton.py`.

A step is one launch under the paper's rule and at most three under the robust rule, whatever the number of tensors. Nothing
waits for the GPU. Only :mod:`activelr_service.optim.fused` imports this file, where there are Triton and a GPU.
"""

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activelr_service.optim import kernel_triton as kernels
from activelr_service.optim.places import COUNTS, KINDS, Array, Direction, pieces_of
from activelr_service.optim.sums import signed

PIECE = 4096  # elements of a tensor that one program takes
LAUNCH = {"PIECE": PIECE, "enable_fp_fusion": False}  # the rounding of the list form
# The numbers of a tensor that the first pass reads, and those that the measurement reads and writes.
FIRST = ("gain", "weight_rms", "update_rms", "last_rms")
MEASURED = (*FIRST, "elements_seen", "clip_coef", "steps_clipped", "effective_lr", "update_ratio")
LIMITS = ("max_update_ratio", "lr_decay", "fall")  # options of the robust rule


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
    """One step of tensors of these sizes. ``rows``: what the table of kernel_triton.py has in its rows; the other arguments
    are those of :func:`activelr_service.optim.fused.take_step`."""
    tasks, spans = _pieces(sizes, device)
    if not len(tasks):
        return
    table = _table(rows, kernels.PLACES, len(sizes), device)
    beta1, beta2 = direction.betas
    common = (1 - beta1, beta2, 1 - beta2, direction.eps, direction.momentum, sign, l2)
    chosen = {"KIND": KINDS[direction.kind], "L2": l2 != 0, "ALIGNED": _is_aligned(rows)} | LAUNCH
    run = (table, tasks, len(sizes))
    with _on(device):
        if numbers is None:
            rest = (
                *[table] * 7,
                0.0,
                0.0,
                0.0,
                options["lr"],
                0,
                *common,
            )  # what only the robust rule reads, and the rest
            kernels.first_pass[(len(tasks),)](*run, *rest, MODE=kernels.PAPER, **chosen)
        else:
            _robust_step(run, spans, numbers, common, chosen, options)


def _robust_step(
    run: tuple[Tensor, Tensor, int],
    spans: Tensor,
    numbers: dict[str, Tensor],
    common: tuple[float, ...],
    chosen: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """The first pass over all pieces, the size of each tensor's direction, and the second pass where it is needed."""
    pieces, device = len(run[1]), run[1].device
    rates, squares = torch.empty((2, pieces), dtype=torch.float32, device=device).unbind()
    cuts = torch.empty(pieces, dtype=torch.int32, device=device)
    limits, hold = [options[name] for name in LIMITS], options["hold"]
    first, measured = [numbers[name] for name in FIRST], [numbers[name] for name in MEASURED]
    begin = (*first, rates, squares, cuts, *limits, 0.0, signed(options["dither"]))
    mode = kernels.HOLD if hold > 0 else kernels.MEASURE
    kernels.first_pass[(pieces,)](*run, *begin, *common, MODE=mode, **chosen)
    kernels.measure[(run[2],)](spans, *measured, rates, squares, *limits, hold, enable_fp_fusion=False)
    moved = (numbers["weight_rms"], numbers["effective_lr"], rates, cuts)
    kernels.second_pass[(pieces,)](*run, *moved, *common, HELD=hold > 0, **chosen)


def end_sums(sizes: tuple[int, ...], rows: dict[str, Array], device: torch.device, **options: Any) -> Tensor:
    """Read and clear sums of these sizes: see :func:`activelr_service.optim.fused.end_sums`."""
    tasks, spans = _pieces(sizes, device)
    table = _table(rows, kernels.ENDS, len(sizes), device)
    counts = torch.zeros((len(tasks), COUNTS), dtype=torch.float32, device=device)
    totals = torch.zeros((len(sizes), COUNTS), dtype=torch.float64, device=device)
    with _on(device):
        if len(tasks) and options:
            moves = (options["gain_increment"], options["gain_decay"])
            kernels.move_gains[(len(tasks),)](
                table, tasks, len(sizes), counts, *moves, HOLDS=options["hold_on_zero"], **LAUNCH
            )
        elif len(tasks):
            kernels.compare[(len(tasks),)](table, tasks, len(sizes), counts, **LAUNCH)
        kernels.add_up[(len(sizes), COUNTS)](counts, spans, totals, enable_fp_fusion=False)
    return totals


def _table(rows: dict[str, Array], names: tuple[str, ...], n: int, device: torch.device) -> Tensor:
    """The rows that a kernel reads, int64 (rows, n) on the device: numbers as the bits of a float64. It is copied from
    pinned memory, so that the host does not wait."""
    table = np.zeros((len(names), n), np.int64)
    for place, name in enumerate(names):
        if name in rows:
            row = rows[name]
            table[place] = row.astype(np.float64).view(np.int64) if row.dtype.kind == "f" else row.astype(np.int64)
    host = torch.from_numpy(table)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Launches go to this GPU. In Triton's interpreter, which runs kernels without one, tensors are on the CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _is_aligned(rows: dict[str, Array]) -> bool:
    """Whether all tensors begin at a multiple of 16 bytes. Views into a flat buffer may not."""
    return not any((row % 16).any() for name, row in rows.items() if row.dtype == np.uint64)


@functools.lru_cache(maxsize=16)
def _pieces(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The ``tasks`` and the ``spans`` of kernel_triton.py."""
    tasks = pieces_of(sizes, PIECE)
    counts = np.bincount(tasks[:, 0], minlength=len(sizes))
    spans = np.ascontiguousarray(np.stack([np.cumsum(counts) - counts, counts], 1))
    return torch.from_numpy(tasks).to(device), torch.from_numpy(spans).to(device)
