r"""The formulas of the robust rule, as functions of tensors and numbers.

It needs no learning rate: a gain is the share of its tensor's RMS that a step moves it, so the scale of the parameters
and the scale of the loss cancel. The names below are those of the code. For every tensor :math:`\theta` with the
direction :math:`d` of the base optimizer, in step number :math:`step` (counted from 0) of a run of :math:`T` steps:

.. math::
    weight\_rms &= \max(rms(\theta_0),\ 1 / \sqrt{fan}), \quad \text{once, before the first step;
    vectors: } \max(rms(\theta_0),\ 0.1) \\
    progress &= (step + 1) / T, \qquad behind = step / T \\
    update\_rms &\leftarrow \max(rms(d),\ 0.99\, update\_rms + 0.01\, rms(d)) \\
    max\_update\_ratio &= cap \cdot \max(1,\ 400 / T)^{0.3} \cdot \min(1,\ progress / 0.2) \\
    clip\_coef &= \min(1,\ max\_update\_ratio \cdot update\_rms / (gain \cdot rms(d))) \\
    lr\_decay &= (1 - behind)^{\min(1,\ T / 400)} \\
    \theta &\leftarrow \theta \cdot (1 - weight\_decay \cdot \min(0.1,\ 100 / T) \cdot (1 - progress)), \quad
    \text{but not vectors} \\
    \theta &\leftarrow \theta - effective\_lr \cdot d, \qquad
    effective\_lr = gain \cdot clip\_coef \cdot weight\_rms / update\_rms \cdot lr\_decay

:math:`rms` is the root of the mean square; for :math:`d` the mean is over the elements that gradients have reached.
Directions that second moments normalize change their size little from step to step. For them a step takes the
:math:`effective\_lr` of a direction as large as the one before, where it is off by at most 3 %, so that one pass over memory
is enough.
At the end of a window of :math:`w` steps, with its gradient sum and that of the window before:

.. math::
    gain \leftarrow gain \cdot clip\_coef \cdot
    \exp(\min(1, w / 20) \cdot (\cos(grad\_sum, prev\_grad\_sum) + 0.2 \min(1, 20 / w)))

A window that begins after :math:`n` steps has :math:`\max(2, \lfloor n / 5 \rfloor)` steps.

Why it is so:

- The cosine is the agreement of signs that the paper reads, weighted by size. Without weights, the many coordinates
  that hold only noise drown it. Sums that keep their direction say that the steps are too small; sums that turn back
  say that they are too large. In short windows a slightly negative agreement (-0.2) worked best. In long ones it is 0:
  sums of pure noise have a cosine of 0, and if that let gains grow, a long run would end with steps far too large.
- ``gain * clip_coef`` removes from the gain what the cap cut off. Otherwise a gain that is too large would go on
  growing behind the cap.
- The cap rises over the first fifth of the run. This is the warm-up.
- ``weight_rms`` is measured once. Steps in proportion to the present size could make a tensor grow without bound.
- ``update_rms`` rises at once and falls slowly, so that a large step does not follow a time of small gradients.
- A gain above 1 is divided by itself, and ``update_rms`` with it. This changes no step, and it keeps the gain bounded.
- Windows grow with the run. Short windows let the gain adapt early; long windows read sums that are more than noise.
  Short windows move the gain less, because momentum answers later than they end.
- Short runs decay later and have a larger cap, because they have few steps to cover the distance.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from activelr_service.optim.constants import RobustConstants

SHORT_RUN_CAP_POWER = 0.3  # power of full_cap_at / T by which the cap of a shorter run is larger
LARGEST_GAIN = 1.0  # a step as large as the whole tensor, which the cap never allows
UPDATE_RMS_FALL = 0.01  # the share of update_rms that a step may take away
SMALLEST_VECTOR_RMS = 0.1  # weight_rms of a bias that starts at zero
WEIGHT_DECAY_OF_RUN = 100.0  # the steps of a long run together multiply weight decay by half of this
LARGEST_WEIGHT_DECAY = 0.1  # one step multiplies weight decay by at most this


class Agreement(NamedTuple):
    """How far two sums point the same way, 0-dim for one tensor and (n,) for n of them: their cosine (-1..1), the share of
    equal signs (0..1), and whether the sums say anything."""

    cosine: Tensor
    sign_agreement: Tensor
    is_finite: Tensor


def weight_rms_of(values: Tensor) -> Tensor:
    """The RMS of a tensor, float32, 0-dim; at least 0.1 for a vector and ``1 / sqrt(fan)`` for all others."""
    shape = values.shape
    smallest = SMALLEST_VECTOR_RMS if len(shape) < 2 else 1 / math.sqrt(max(1, max(shape[:2]) * math.prod(shape[2:])))
    rms = torch.linalg.vector_norm(values, dtype=norm_dtype(values.dtype)) / math.sqrt(max(1, values.numel()))
    return rms.float().clamp_min(smallest)


def norm_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype in which the norm of tensors of these dtypes is taken: float32 or wider."""
    return functools.reduce(torch.promote_types, dtypes, torch.float32)


def scale_updates(
    updates: list[Tensor], state: dict[str, Tensor], step: int, progress: float, constants: RobustConstants, hold: float
) -> dict[str, Tensor]:
    """How far each of n tensors goes along its direction in step number ``step``.

    ``state`` holds float32 (n,) tensors under the names that the rule keeps (see
    :class:`~activelr_service.optim.robust_rule.RobustRule`). ``progress`` is the share of the run that is behind after the
    step. ``hold``: the share by which the learning rate may be off; then it is that of a direction as large as the last.
    Returns what a step changes, under the same names. It waits for no GPU.
    """
    norms = torch._foreach_norm(updates, 2, norm_dtype(*(update.dtype for update in updates)))
    rms = torch.stack(norms).float() / state["elements_seen"].sqrt()
    limits = max_update_ratio(step, progress, constants), lr_decay_factor(step, progress, constants)
    effective_lr, update_rms, clip_coef = lr_of(rms, state, *limits)
    if hold:
        held = torch.where(state["last_rms"] > 0, lr_of(state["last_rms"], state, *limits)[0], 0.0)
        effective_lr = torch.where((held - effective_lr).abs() <= hold * effective_lr, held, effective_lr)
    return {
        "update_rms": update_rms,
        "last_rms": rms,
        "clip_coef": clip_coef,
        "steps_clipped": state["steps_clipped"] + (clip_coef < 1),
        "effective_lr": effective_lr,
        "update_ratio": effective_lr * rms / state["weight_rms"],
    }


def lr_of(rms: Tensor, state: dict[str, Tensor], largest: float, decay: float) -> tuple[Tensor, Tensor, Tensor]:
    """``effective_lr``, ``update_rms`` and ``clip_coef`` of directions of this RMS, (n,) each. ``largest`` is
    :func:`max_update_ratio`, ``decay`` is :func:`lr_decay_factor`."""
    update_rms = torch.maximum(rms, torch.lerp(state["update_rms"], rms, UPDATE_RMS_FALL))
    ratio = state["gain"] * rms / update_rms.clamp_min(1e-30)
    clip_coef = (largest / ratio.clamp_min(1e-30)).clamp_max(1.0)
    scale = state["gain"] * clip_coef * state["weight_rms"] / update_rms.clamp_min(1e-30)
    return torch.where(update_rms == 0, 0.0, scale * decay), update_rms, clip_coef


def max_update_ratio(step: int, progress: float, constants: RobustConstants) -> float:
    """The cap of a step: the largest share of ``weight_rms`` that it may move a tensor."""
    rises = constants.cap_rises_until
    short_run = max(1.0, constants.full_cap_at / estimated_steps(step, progress)) ** SHORT_RUN_CAP_POWER
    return constants.cap * short_run * (min(1.0, progress / rises) if rises else 1.0)


def lr_decay_factor(step: int, progress: float, constants: RobustConstants) -> float:
    """The decay over the run: 1 at the first step, and close to 0 at the last."""
    behind = progress * step / (step + 1)
    return (1 - behind) ** (constants.decay * min(1.0, estimated_steps(step, progress) / constants.full_decay_at))


def weight_decay_factor(step: int, progress: float) -> float:
    """What multiplies ``weight_decay`` in a step."""
    return min(LARGEST_WEIGHT_DECAY, WEIGHT_DECAY_OF_RUN / estimated_steps(step, progress)) * (1 - progress)


def estimated_steps(step: int, progress: float) -> float:
    """The number of steps of the whole run, if the steps to come take as much of it as those until now did."""
    return (step + 1) / max(progress, 1e-9)


def agreement_of(grad_sum: Tensor, prev_grad_sum: Tensor) -> Agreement:
    """Whether two sums of one tensor, of any shape, point the same way. Sums that are all zero, or not finite, say
    nothing."""
    grad_sum, prev_grad_sum = grad_sum.float(), prev_grad_sum.float()
    norm = torch.linalg.vector_norm(grad_sum) * torch.linalg.vector_norm(prev_grad_sum)
    cosine = torch.dot(grad_sum.reshape(-1), prev_grad_sum.reshape(-1)) / norm
    products = grad_sum.sign() * prev_grad_sum.sign()
    equal_signs = (products > 0).sum() / (products != 0).sum().clamp_min(1)
    return Agreement(cosine.nan_to_num(0.0), equal_signs, cosine.isfinite())


def update_gain(
    gain: Tensor, clip_coef: Tensor, agreement: Agreement, window: int, constants: RobustConstants
) -> Tensor:
    """The gains of tensors after a window of ``window`` steps, in the shape of ``gain``. Where the sums of a tensor say
    nothing, its gain stays."""
    measured = 2 * agreement.sign_agreement - 1 if constants.signs else agreement.cosine
    speed = constants.speed * min(1.0, window / constants.full_speed_at)
    error = measured - set_point_of(window, constants)
    moved = gain * (clip_coef if constants.unwind else 1.0) * torch.exp(speed * error)
    return torch.where(agreement.is_finite, moved, gain)


def set_point_of(window: int, constants: RobustConstants) -> float:
    """The agreement at which a gain stays: closer to 0 in longer windows, where an agreement of 0 is noise."""
    return constants.set_point * min(1.0, constants.full_speed_at / max(1, window))


def bound_gain(gain: Tensor, update_rms: Tensor) -> tuple[Tensor, Tensor]:
    """A gain above 1 and its ``update_rms``, both divided by the gain: no step changes.

    Directions may shrink faster than ``update_rms`` falls. The gain makes up for the difference, and would grow without
    bound.
    """
    excess = gain.clamp_min(LARGEST_GAIN)
    return gain / excess, update_rms / excess


def next_window_end(step: int, constants: RobustConstants) -> int:
    """The number of steps after which the window that begins after ``step`` steps ends."""
    return step + max(constants.smallest_window, int(constants.window_growth * step))
