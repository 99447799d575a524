"""Parameters that are not trained."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from activelr_service.config.base import did_you_mean
from activelr_service.errors import JobError

PLACE = "model.freeze"
WRAPPED = "model."  # the module of a transformers model is in another one


class Frozen(NamedTuple):
    """How many numbers are frozen, and how many are trained."""

    frozen: int
    trained: int

    def describe(self) -> str:
        """Both numbers in one line."""
        return f"{self.frozen:,} of {self.frozen + self.trained:,} weights are frozen, {self.trained:,} are trained"


def freeze(model: Any, patterns: Sequence[str] | None) -> Frozen | None:
    """Freeze the parameters whose names match the patterns; returns how many, or None if there are no patterns.

    A pattern is that of :func:`fnmatch.fnmatchcase`, or the name of a module for all that is in it. One that begins with
    "!" takes back what the patterns before it matched. Frozen parameters get no gradient. A batch norm all of whose
    parameters are frozen stays in evaluation mode, so that its statistics stay as they are. Raises :class:`JobError` for
    a pattern that matches nothing, and if nothing is left to train.
    """
    if not patterns:
        return None
    names = [name for name, _ in model.named_parameters()]
    chosen: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if _matches(name, pattern.removeprefix("!"))}
        if not matched:
            raise JobError.at(PLACE, f"no parameter matches {pattern!r}; {_hint(pattern.removeprefix('!'), names)}")
        chosen = chosen - matched if pattern.startswith("!") else chosen | matched
    for name, parameter in model.named_parameters():
        if name in chosen:
            parameter.requires_grad_(False)
    counts = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    total = sum(parameter.numel() for parameter in model.parameters())
    if not counts:
        last = names[-1].removeprefix(WRAPPED).rpartition(".")[0]
        raise JobError.at(PLACE, f"nothing is left to train; add '!{last}.*', or what else is to be trained")
    _hold_norms(model)
    return Frozen(total - sum(counts), sum(counts))


def _matches(name: str, pattern: str) -> bool:
    return any(
        fnmatchcase(own, pattern) or fnmatchcase(own, f"{pattern}.*") for own in {name, name.removeprefix(WRAPPED)}
    )


def _hint(pattern: str, names: list[str]) -> str:
    parts = [part.removeprefix(WRAPPED) for part in names]
    modules = dict.fromkeys(".".join(part.split(".")[:depth]) for part in parts for depth in range(1, 5))
    roots = ", ".join(dict.fromkeys(part.split(".")[0] for part in parts))
    return did_you_mean(pattern.removesuffix(".*").removesuffix("*"), modules, f"the names begin with {roots}")


def _hold_norms(model: Any) -> None:
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, _BatchNorm) and own and not any(parameter.requires_grad for parameter in own):
            _stay_in_evaluation(module)


def _stay_in_evaluation(module: Any) -> None:
    module.eval()
    module.train = lambda mode=True: module  # what the train() of the whole model calls
