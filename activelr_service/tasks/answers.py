"""What a model answered to the validation samples, and what is measured of it: the types that tasks and evaluation share."""

from typing import NamedTuple

from torch import Tensor


class Answers(NamedTuple):
    """The answers to all validation samples, on one device.

    - ``outputs``: float32 (samples, outputs), such as logits. None if they are more numbers than
      :data:`~activelr_service.config.task.MOST_OUTPUTS`;
    - ``targets``: int64 classes (samples,), or float32 numbers (samples, outputs). None if these are too many;
    - ``guesses``: int64 (samples,), the class of the largest output. None where the targets are numbers.
    """

    outputs: Tensor | None
    targets: Tensor | None
    guesses: Tensor | None


class Measured(NamedTuple):
    """Metrics by name, without those that are not defined for the samples; and tables of counts by name, such as the int32
    ``confusion`` (true classes, predicted classes)."""

    metrics: dict[str, float]
    tables: dict[str, Tensor]
