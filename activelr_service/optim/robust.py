r"""The robust rule: a gain per tensor, set by a control loop on the agreement of successive gradient sums.

Pure functions on tensors and numbers; who calls them, and when, is decided elsewhere. For every tensor :math:`\theta`, with
the base optimizer's direction :math:`d`, :math:`done` the share of the run that is behind, and :math:`rms` the root of the
mean square:

.. math::
    size &= \max(rms(\theta),\ 0.01) \\
    gain &= 0.003 \cdot size / rms(lr\, d) \quad \text{at its first step, so that the initial learning rate cancels} \\
    clip &= \min(1,\ cap \cdot size / rms(lr\, gain\, d)), \quad cap = 0.1 \cdot \min(1,\ done / 0.2) \\
    \theta &\leftarrow \theta - (1 - done) \cdot clip \cdot lr \cdot gain \cdot d

and at the end of a window, with :math:`S` its gradient sum and :math:`S'` that of the window before:

.. math::
    gain \leftarrow gain \cdot clip \cdot \exp(\cos(S, S') + 0.2)

The cosine is the agreement of signs that the paper reads, weighted by size: unweighted, the many coordinates that are noise
drown it. Sums that keep their direction say that the step is too small, sums that turn back that it is too large; slightly
negative agreement is the best working point found. ``gain * clip`` forgets what the cap cut off: without it a gain that
is too large winds up behind the cap. Windows grow with the run, so that a short one adapts at all and a long one reads sums
that are more than noise. The constants were chosen once, and hold for Adam's directions and for those of SGD with momentum.
"""

from typing import NamedTuple

import torch
from torch import Tensor

FIRST_STEP = 3e-3  # of the size of a tensor
SMALLEST_SIZE = 1e-2  # of a tensor that starts at zero, such as a bias
CAP, CAP_RISES_UNTIL = 0.1, 0.2
SET_POINT = -0.2
WINDOW_GROWTH, SMALLEST_WINDOW = 0.2, 2
DECAY_RATE = 1e-3  # weight decay is that of a learning rate of 1e-3, whatever the gains do


class Scaled(NamedTuple):
    """Of n tensors, float32 (n,): their gains, the shares the cap has left of their steps, and what multiplies their
    directions."""

    gain: Tensor
    clip: Tensor
    factor: Tensor


def scale_steps(params: list[Tensor], directions: list[Tensor], gain: Tensor, lr: float, done: float) -> Scaled:
    """How far each of n tensors goes along its direction. ``gain``: float32 (n,), 0 for one that has not moved yet; one
    whose direction is all zero stays so. No host synchronisation."""
    counts = torch.tensor([param.numel() for param in params], dtype=torch.float32).sqrt().to(gain.device)
    size = (_norms(params) / counts).clamp_min(SMALLEST_SIZE)
    length = lr * _norms(directions) / counts
    gain = torch.where((gain == 0) & (length > 0), FIRST_STEP * size / length, gain)
    cap = CAP * min(1.0, done / CAP_RISES_UNTIL)
    clip = (cap * size / (gain * length).clamp_min(1e-30)).clamp_max(1.0)
    return Scaled(gain, clip, (1 - done) * clip * gain * lr)


def update_gain(gain: Tensor, clip: Tensor, grad_sum: Tensor, prev_grad_sum: Tensor) -> tuple[Tensor, Tensor]:
    """The gain (0-dim) of a tensor at the end of a window, and the agreement that moved it, in [-1, 1]. A sum that is all
    zero or not finite says nothing: the gain stays."""
    norm = torch.linalg.vector_norm(grad_sum) * torch.linalg.vector_norm(prev_grad_sum)
    agreement = torch.dot(grad_sum.reshape(-1), prev_grad_sum.reshape(-1)) / norm
    moved = gain * clip * torch.exp(agreement - SET_POINT)
    says_something = agreement.isfinite()
    return torch.where(says_something, moved, gain), torch.where(says_something, agreement, 0.0)


def next_window_end(steps_done: int) -> int:
    """The step after which the window that begins now ends."""
    return steps_done + max(SMALLEST_WINDOW, int(WINDOW_GROWTH * steps_done))


def _norms(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors, 2, torch.float32))
