"""The paper's rule: how the gains move at the end of an epoch.

Pure functions on tensors; who calls them, and when an epoch ends, is decided elsewhere.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class GainUpdate(NamedTuple):
    """What one tensor's gains became.

    ``gain`` has the shape of the parameter (float32); ``grew`` and ``non_finite`` are 0-dim int64 counts of elements,
    left on the device so that nothing waits for the host.
    """

    gain: Tensor
    grew: Tensor
    non_finite: Tensor


def update_gain(
    gain: Tensor,
    grad_sum: Tensor,
    prev_grad_sum: Tensor,
    *,
    gain_increment: float = 0.1,
    gain_decay: float = 0.9,
    hold_on_zero: bool = False,
) -> GainUpdate:
    r"""Grow the gains whose gradient sum kept its sign, shrink the others (Algorithm 1 of the paper, in gain form).

    .. math::
        gain_i \leftarrow \begin{cases}
            gain_i + gain\_increment & \text{if } \operatorname{sign}(S_i^{e})\,\operatorname{sign}(S_i^{e-1}) > 0 \\
            gain_i \cdot gain\_decay & \text{otherwise}
        \end{cases}

    :math:`S^{e}` is ``grad_sum`` and :math:`S^{e-1}` is ``prev_grad_sum``, all of one shape, float32. The product of the
    signs is taken rather than the sign of the product, which would underflow to zero for small sums. A product of
    exactly zero counts as a change of sign, as in the paper; ``hold_on_zero=True`` leaves such a gain where it is.
    Where either sum is not finite the gain is left alone and counted in ``non_finite``.
    """
    agreement = grad_sum.sign() * prev_grad_sum.sign()
    finite = grad_sum.isfinite() & prev_grad_sum.isfinite()
    grew = (agreement > 0) & finite
    moves = finite & (agreement != 0) if hold_on_zero else finite
    moved = torch.where(grew, gain + gain_increment, gain * gain_decay)
    return GainUpdate(torch.where(moves, moved, gain), grew.sum(), (~finite).sum())
