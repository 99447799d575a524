"""How far the probabilities of a classifier can be believed, and the temperature that corrects them (Guo et al. 2017)."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

BINS = 15  # as in the paper
FARTHEST = 9.0  # from the logarithm of 1: temperatures from 1e-4 to 8e3
VALUES_AT_ONCE = 2**22  # 32 MiB in float64


def find_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature that minimizes the log loss of ``softmax(logits / temperature)``.

    ``logits`` are float32 (samples, classes), ``targets`` int64 (samples,). The loss is convex in the inverse of the
    temperature, so that the root of its derivative is the minimum. Where every sample has its largest logit at its target,
    the loss has no minimum: it falls as the temperature goes to 0. Then the temperature stays 1.
    """
    from scipy.optimize import brentq

    if (logits.gather(1, targets[:, None])[:, 0] == logits.amax(dim=1)).all():
        return 1.0

    at_targets = logits.gather(1, targets[:, None]).double().sum().item()

    def slope(log_temperature: float) -> float:
        return _expected_logits(logits, math.exp(-log_temperature)) - at_targets

    step = -1.0 if slope(0.0) < 0 else 1.0  # the loss falls towards lower temperatures, or towards higher ones
    near, far = 0.0, step
    while (slope(far) < 0) == (step < 0):
        if abs(far) >= FARTHEST:
            return math.exp(far)
        near, far = far, far + step
    return math.exp(brentq(slope, near, far, xtol=1e-9, rtol=1e-9))


def _expected_logits(logits: Tensor, inverse: float) -> float:
    """The sum over all samples of the mean logit under ``softmax(logits * inverse)``. Less the sum of the logits at the
    targets, it is the derivative of the summed log loss with respect to the inverse of the temperature."""
    return sum(
        torch.linalg.vecdot(torch.softmax(part * inverse, dim=1), part).sum().item() for part in in_parts(logits)
    )


def rate(logits: Tensor, targets: Tensor, temperature: float) -> tuple[float, np.ndarray]:
    """The mean log loss of ``softmax(logits / temperature)``, and the float64 probability (samples,) of each sample's most
    likely class."""
    normalizers = torch.cat([torch.logsumexp(part / temperature, dim=1) for part in in_parts(logits)])
    ours = logits.gather(1, targets[:, None])[:, 0].double() / temperature
    best = logits.amax(dim=1).double() / temperature
    return (normalizers - ours).mean().item(), (best - normalizers).exp().cpu().numpy()


def calibration_error(confidences: np.ndarray, is_right: np.ndarray) -> float:
    """The expected calibration error: the mean distance of confidence and accuracy over 15 bins of equal width.

    ``confidences`` are float64 (samples,), ``is_right`` bool (samples,). A bin holds its upper edge, as in the paper.
    """
    edges = np.linspace(0, 1, BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, BINS - 1)
    distance = np.bincount(bins, confidences, BINS) - np.bincount(bins, is_right, BINS)
    return float(np.abs(distance).sum() / len(confidences))


def in_parts(logits: Tensor) -> Iterator[Tensor]:
    """Some rows at a time, in float64."""
    size = max(1, VALUES_AT_ONCE // logits.shape[1])
    return (part.double() for part in logits.split(size))
