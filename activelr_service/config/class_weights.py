"""The weights of classes in the training loss: what a job may say of them, and the numbers that follow from the data."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from activelr_service.config.base import did_you_mean


def check_class_weights(value: Any) -> Any:
    """``balanced``, or a mapping of class names to numbers above 0. YAML reads a class 3 as a number: it becomes a text."""
    if value is None or value == "balanced":
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError(f"must be balanced, or a mapping of class names to weights above 0, got {value!r}")
    for name, weight in value.items():
        if type(name) not in (str, int):
            raise ValueError(f"the class {name!r} is no text: write it in quotes")
        if type(weight) not in (int, float) or not 0 < weight < math.inf:
            raise ValueError(f"the weight of the class {name!r} must be a number above 0, got {weight!r}")
    return {str(name): float(weight) for name, weight in value.items()}


ClassWeights = Annotated[Literal["balanced"] | dict[str, float], BeforeValidator(check_class_weights)]


def weigh_classes(
    wanted: Literal["balanced"] | dict[str, float], counts: Sequence[int], classes: Sequence[str]
) -> tuple[float, ...]:
    """The weight of each class, with a mean of 1 over the training samples, which ``counts`` counts for each class.

    A balanced weight is ``n / (k * n_c)`` for ``n_c`` of ``n`` samples and ``k`` classes that occur, as in scikit-learn. A
    class without training samples has the weight 1, which no sample uses. Data without names of classes have their
    numbers for names. Raises ``ValueError`` for a name that is no class.
    """
    names = list(classes) or [str(number) for number in range(len(counts))]
    if wanted == "balanced":
        given = [1 / count if count else 1.0 for count in counts]
    else:
        for name in wanted:
            if name not in names:
                listed = ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")
                raise ValueError(
                    f"{name!r} is no class of these data, {did_you_mean(name, names, f'those are {listed}')}"
                )
        given = [wanted.get(name, 1.0) for name in names]
    total = math.fsum(weight * count for weight, count in zip(given, counts, strict=True))
    scale = sum(counts) / total
    return tuple(weight * scale if count else 1.0 for weight, count in zip(given, counts, strict=True))
