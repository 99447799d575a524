"""What the robust rule does to the tensors of a model, in groups that a person can look over."""

import math

import torch
from torch import nn

from activelr_service.optim import ActiveOptimizer
from activelr_service.runs.record import UPDATE_PREFIX

LARGEST_NUMBER_OF_GROUPS = 16


def update_metrics(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, float]:
    """``update/FIELD/GROUP`` for every field of :func:`~activelr_service.optim.stats.update_stats` and group of tensors, and
    ``optim/FIELD`` over all: means over the elements of tensors that moved, geometric for ``rate`` and ``step``. Empty under
    the paper's rule."""
    if not isinstance(optimizer, ActiveOptimizer):
        return {}
    named = dict(model.named_parameters())
    stats = optimizer.update_stats(named.items())
    if not stats:
        return {}
    weights = {name: named[name].numel() for name in stats}
    metrics = {f"optim/{field}": value for field, value in _mean(stats, weights, list(stats)).items()}
    for group, names in group_names(list(stats)).items():
        metrics |= {f"{UPDATE_PREFIX}{field}/{group}": value for field, value in _mean(stats, weights, names).items()}
    return metrics


def group_names(names: list[str]) -> dict[str, list[str]]:
    """Names of tensors by the module they are in, as deep in the model as leaves at most 16 groups."""
    depth = max(name.count(".") for name in names)
    while depth > 1 and len(_by_module(names, depth)) > LARGEST_NUMBER_OF_GROUPS:
        depth -= 1
    return _by_module(names, max(depth, 1))


def _by_module(names: list[str], depth: int) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        module = name.rpartition(".")[0] or name
        groups.setdefault(".".join(module.split(".")[:depth]), []).append(name)
    return groups


def _mean(stats: dict[str, dict[str, float]], weights: dict[str, int], names: list[str]) -> dict[str, float]:
    """Of the tensors that gradients have moved; where none was, the step and the rate are 0 and nothing else is known."""
    moved = [name for name in names if stats[name]["effective_lr"] > 0]
    return {field: _mean_of(field, stats, weights, moved) for field in stats[names[0]]}


def _mean_of(field: str, stats: dict[str, dict[str, float]], weights: dict[str, int], names: list[str]) -> float:
    is_length = field in ("effective_lr", "update_ratio")
    known = [name for name in names if stats[name][field] > 0 or not is_length]  # a geometric mean has no zeros
    if not known:
        return 0.0 if is_length else math.nan
    values = [math.log(stats[name][field]) if is_length else stats[name][field] for name in known]
    total = sum(weights[name] for name in known)
    mean = sum(weights[name] * value for name, value in zip(known, values, strict=True)) / total
    return math.exp(mean) if is_length else mean
