"""What the gains of an optimizer look like: numbers for a log and counts for a histogram."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

UPDATE_FIELDS = ("effective_lr", "update_ratio", "cosine", "sign_agreement", "clip_fraction")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MAX_SORTED = 2**20


def gain_stats(
    optimizer: torch.optim.Optimizer, named_parameters: Iterable[tuple[str, Tensor]] | None = None
) -> dict[str, Any]:
    """Mean, min, max and quantiles of the gains, the share that grew and the number left alone as non-finite.

    Keys: ``mean``, ``min``, ``max``, ``q05`` .. ``q95``, ``share_grew`` (of the last epoch end, 0..1) and
    ``non_finite`` (elements whose gradient sum was not finite at the last epoch end). With ``named_parameters``
    (as from ``model.named_parameters()``) there is also ``per_tensor``: a dict from name to the same keys. Quantiles are
    read from at most 2**20 evenly spaced gains. An optimizer that has not stepped yet gives an empty dict.
    One host synchronization a call, whatever the number of tensors.
    """
    states = {id(param): state for param, state in optimizer.state.items() if "gain" in state}
    if not states:
        return {}
    device = next(iter(states.values()))["gain"].device
    rows = [_summary(list(states.values()), device)]
    names = []
    for name, param in named_parameters or ():
        if id(param) in states:
            names.append(name)
            rows.append(_summary([states[id(param)]], device))
    table = [_named(row) for row in torch.stack(rows).tolist()]
    if named_parameters is None:
        return table[0]
    return {**table[0], "per_tensor": dict(zip(names, table[1:], strict=True))}


def gain_histogram(optimizer: torch.optim.Optimizer, edges: list[float]) -> list[int]:
    """How many gains fall between successive ``edges`` (increasing); the outer two bins take in what lies beyond."""
    gains = [state["gain"] for state in optimizer.state.values() if "gain" in state]
    if not gains:
        return [0] * (len(edges) - 1)
    inner = torch.tensor(edges[1:-1], dtype=torch.float32, device=gains[0].device)
    counts = torch.zeros(len(edges) - 1, dtype=torch.int64, device=inner.device)
    for gain in gains:
        bins = torch.bucketize(gain.reshape(-1).to(inner.device), inner)
        counts.scatter_add_(0, bins, torch.ones_like(bins))
    return counts.tolist()


def update_stats(
    optimizer: torch.optim.Optimizer, named_parameters: Iterable[tuple[str, Tensor]]
) -> dict[str, dict[str, float]]:
    """What the robust rule does to each tensor, by name, for those that have stepped. Empty under the paper's rule.

    Keys, of the last step: ``effective_lr`` (what multiplied the base optimizer's direction) and ``update_ratio`` (how far
    the step went, as a share of the tensor's RMS); both are 0 where a tensor has met only zero gradients. Of the last
    window: ``cosine`` (of its gradient sum with that of the window before), ``sign_agreement`` (share of equal signs, 0..1)
    and ``clip_fraction`` (share of steps that the cap cut, 0..1); NaN before the second window has ended. One host
    synchronization a call.
    """
    named = ((name, optimizer.state.get(param, {})) for name, param in named_parameters)
    states = [(name, state) for name, state in named if "update_ratio" in state]
    if not states:
        return {}
    device = states[0][1]["gain"].device
    rows = torch.stack([_update_row(state).to(device) for _, state in states]).tolist()
    return {name: dict(zip(UPDATE_FIELDS, row, strict=True)) for (name, _), row in zip(states, rows, strict=True)}


def effective_lr(optimizer: torch.optim.Optimizer) -> Tensor:
    """The one learning rate that describes the last step: the median over the tensors, 0-dim float32.

    Of a tensor it is what multiplied the base optimizer's direction; under the paper's rule the group's ``lr`` times its
    mean gain. Of an even number of tensors it is the lower of the two in the middle. Tensors that have met only zero
    gradients are left out. It is 0 before the first step. The host waits for no GPU: ``.item()`` does.
    """
    rates = []
    for group in optimizer.param_groups:
        for state in (optimizer.state.get(param, {}) for param in group["params"]):
            if "effective_lr" in state:
                rates.append(state["effective_lr"])
            elif "gain" in state:
                rates.append(group["lr"] * state["gain"].float().mean())
    if not rates:
        return torch.zeros(())
    values = torch.stack([rate.to(rates[0].device) for rate in rates])
    return values.where(values > 0, torch.nan).nanmedian().nan_to_num(0.0)


def _update_row(state: dict[str, Tensor]) -> Tensor:
    unknown = torch.full_like(state["gain"], torch.nan)
    return torch.stack([state.get(field, unknown) for field in UPDATE_FIELDS])


def _summary(states: list[dict[str, Tensor]], device: torch.device) -> Tensor:
    """One row of statistics, float64, on the device."""
    gains = [state["gain"].reshape(-1).to(device) for state in states]
    count = sum(gain.numel() for gain in gains)
    total = torch.stack([gain.sum(dtype=torch.float64) for gain in gains]).sum()
    smallest = torch.stack([gain.min() for gain in gains]).min()
    largest = torch.stack([gain.max() for gain in gains]).max()
    counts = [torch.stack([state["grew"], state["non_finite"]]).to(device) for state in states if "grew" in state]
    grew, non_finite = torch.stack(counts).double().sum(0) if counts else total.new_zeros(2)
    stride = -(-count // MAX_SORTED)
    ordered = torch.cat([gain[::stride] for gain in gains]).sort().values
    picks = torch.tensor([round(q * (len(ordered) - 1)) for q in QUANTILES], device=ordered.device)
    head = torch.stack([total / count, smallest.double(), largest.double(), grew / count, non_finite])
    return torch.cat([head, ordered[picks].double()])


def _named(row: list[float]) -> dict[str, float]:
    names = ("mean", "min", "max", "share_grew", "non_finite", *(f"q{round(100 * q):02d}" for q in QUANTILES))
    return dict(zip(names, row, strict=True))
