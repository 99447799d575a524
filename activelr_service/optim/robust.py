r"""The robust rule: a gain per tensor, set by a control loop on the agreement of successive gradient sums.

Pure functions on tensors and numbers; who calls them, and when, is decided elsewhere. For every tensor :math:`\theta`
with the base optimizer's direction :math:`d`, :math:`before` and :math:`done` the shares of a run of :math:`T` steps that
are behind before and after the step, and :math:`rms` the root of the mean square (of :math:`d`, over the elements that
gradients have reached):

.. math::
    size &= \max(rms(\theta_0),\ 1 / \sqrt{fan}) \quad \text{once, at its start; vectors: } \max(rms(\theta_0),\ 0.1) \\
    length &\leftarrow \max(rms(d),\ 0.99\, length + 0.01\, rms(d)) \\
    cap &= 0.1 \cdot \max(1,\ 400 / T)^{0.3} \cdot \min(1,\ done / 0.2) \\
    clip &= \min(1,\ cap \cdot length / (gain \cdot rms(d))) \\
    \theta &\leftarrow \theta \cdot (1 - weight\_decay \cdot \min(0.1,\ 100 / T) \cdot (1 - done)) \quad
    \text{but not vectors} \\
    \theta &\leftarrow \theta - (1 - before)^{\min(1, T / 400)} \cdot clip \cdot gain \cdot size \cdot d / length

and at the end of a window of :math:`w` steps, with :math:`S` its gradient sum and :math:`S'` that of the window before:

.. math::
    gain \leftarrow gain \cdot clip \cdot \exp(\min(1, w / 20) \cdot (\cos(S, S') + 0.2))

A window that begins after :math:`n` steps has :math:`\max(2, \lfloor n / 5 \rfloor)`.

So a gain is the share of its tensor's size that a step moves it: the learning rate cancels, and so does the scale of the
loss. It starts at 0.06, or 0.015 for SGD, whose directions have fewer dimensions. The cosine is the agreement of signs that
the paper reads, weighted by size: unweighted, the many coordinates that are noise drown it. Sums that keep their direction
say that the step is too small, sums that turn back that it is too large; slightly negative agreement is the best working
point found. ``gain * clip`` forgets what the cap cut off: without it a gain that is too large winds up behind the cap. The
rising cap is the warm-up. The size is that of the start, since steps in proportion to a tensor's size of the moment can make
it grow without bound. ``length`` rises at once and falls slowly, so that a quiet time does not make the next step a jump.
A gain that makes up for it for long, and so rises above 1, is divided by itself, and the length with it: no step changes.
Windows grow with the run: a short one adapts at all, a long one reads sums that are more than noise; short windows move the
gain less, since momentum answers later than they end. Runs of few steps decay late, and their cap is looser: they are short
of way, not of rest.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Constants(NamedTuple):
    """What the rule is made of, chosen once on the shipped studies; another value is for studies of what each part does."""

    cap: float = 0.1  # largest step, as a share of the size
    cap_rises_until: float = 0.2  # share of the run
    full_cap_at: int = 400  # steps of a run from which on the cap is that; a shorter one has a looser cap
    set_point: float = -0.2  # the agreement at which a gain stays
    speed: float = 1.0
    full_speed_at: int = 20  # steps of a window from which on a gain moves at full speed
    decay: float = 1.0  # power of 1 - done in a long run
    full_decay_at: int = 400  # steps of a run from which on it decays so
    window_growth: float = 0.2  # a window, as a share of the steps done
    smallest_window: int = 2
    unwind: bool = True  # forget what the cap cut off
    signs: bool = False  # read the share of agreeing signs instead of the cosine


FIRST_STEP = 0.06
LOOSER = 0.3  # power of full_cap_at / T by which the cap of a run of fewer steps is looser
LARGEST_GAIN = 1.0  # a step of the whole size, which the cap never allows
FALLS_BY = 0.01  # of the length of a direction, a step
SMALLEST_VECTOR = 0.1  # size of a bias that starts at zero
DECAY_OF_A_RUN = 100.0  # what multiplies weight decay over all steps of a long run
LARGEST_DECAY = 0.1  # what multiplies it in one step


class Pace(NamedTuple):
    """Of n tensors, float32 (n,): their ``size``, the ``length`` of their directions, how many of their elements gradients
    have reached (``seen``), the share the cap left of the last step (``clip``), in how many steps of this window it
    cut (``capped``), what multiplied the direction in the last step (``rate``, the effective learning rate) and how far that
    step went, as a share of the size (``moved``). Both are 0 of a tensor that has met no gradient but zeros."""

    size: Tensor
    length: Tensor
    seen: Tensor
    clip: Tensor
    capped: Tensor
    rate: Tensor
    moved: Tensor


class Moment(NamedTuple):
    """A step's place in the run: ``steps_done`` before it, and the share of the run that is behind after it, in (0, 1]."""

    steps_done: int
    done: float


class Agreement(NamedTuple):
    """Of two sums of one tensor, 0-dim: the cosine and the share of agreeing signs (0..1), and whether they say anything."""

    cosine: Tensor
    signs: Tensor
    is_finite: Tensor


def begin_pace(param: Tensor) -> Tensor:
    """The pace of one tensor that has not moved yet: float32 (7,), in the order of :class:`Pace`."""
    size = size_of(param.detach())
    seen = torch.count_nonzero(param.grad).float() if param.grad is not None else size.new_zeros(())
    seen = torch.where(seen > 0, seen, float(max(1, param.numel())))
    zero = torch.zeros_like(size)
    return torch.stack([size, zero, seen, zero + 1, zero, zero, zero])


def complete_pace(pace: Tensor) -> Tensor:
    """A saved pace, with zeros for the numbers that it lacks: those of older runs have six."""
    return nn.functional.pad(pace, (0, len(Pace._fields) - len(pace)))


def size_of(values: Tensor) -> Tensor:
    """What the steps of a tensor are shares of, float32, 0-dim."""
    shape = values.shape
    smallest = SMALLEST_VECTOR if len(shape) < 2 else 1 / math.sqrt(max(1, max(shape[:2]) * math.prod(shape[2:])))
    rms = torch.linalg.vector_norm(values, dtype=wide(values.dtype)) / math.sqrt(max(1, values.numel()))
    return rms.float().clamp_min(smallest)


def wide(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype in which a norm of these is taken: float32 or wider."""
    return functools.reduce(torch.promote_types, dtypes, torch.float32)


def scale_steps(directions: list[Tensor], gain: Tensor, pace: Pace, moment: Moment, constants: Constants) -> Pace:
    """How far each of n tensors goes along its direction: the new pace, whose ``rate`` multiplies the direction. ``gain``:
    float32 (n,). No host synchronisation."""
    norms = torch._foreach_norm(directions, 2, wide(*(direction.dtype for direction in directions)))
    now = torch.stack(norms).float() / pace.seen.sqrt()
    length = torch.maximum(now, torch.lerp(pace.length, now, FALLS_BY))
    share = gain * now / length.clamp_min(1e-30)
    clip = (largest_step(moment, constants) / share.clamp_min(1e-30)).clamp_max(1.0)
    rate = gain * clip * pace.size / length.clamp_min(1e-30) * decay(moment, constants)
    rate = torch.where(length == 0, 0.0, rate)
    capped = pace.capped + (clip < 1)
    return pace._replace(length=length, clip=clip, capped=capped, rate=rate, moved=rate * now / pace.size)


def largest_step(moment: Moment, constants: Constants) -> float:
    """The cap of a step: it rises at the start of a run, and is looser in a run of few steps."""
    rises = constants.cap_rises_until
    looser = max(1.0, constants.full_cap_at / total_steps(moment)) ** LOOSER
    return constants.cap * looser * (min(1.0, moment.done / rises) if rises else 1.0)


def decay(moment: Moment, constants: Constants) -> float:
    """What the run's decay leaves of a step: 1 at the first, close to 0 at the last."""
    behind = moment.done * moment.steps_done / (moment.steps_done + 1)
    return (1 - behind) ** (constants.decay * min(1.0, total_steps(moment) / constants.full_decay_at))


def decay_rate(moment: Moment) -> float:
    """What multiplies weight decay in a step."""
    return min(LARGEST_DECAY, DECAY_OF_A_RUN / total_steps(moment)) * (1 - moment.done)


def total_steps(moment: Moment) -> float:
    """Of a run that goes on as it has until this step."""
    return (moment.steps_done + 1) / max(moment.done, 1e-9)


def agreement(grad_sum: Tensor, prev_grad_sum: Tensor) -> Agreement:
    """Whether two sums of one tensor, of any shape, point the same way. Sums that are all zero or not finite say nothing."""
    norm = torch.linalg.vector_norm(grad_sum) * torch.linalg.vector_norm(prev_grad_sum)
    cosine = torch.dot(grad_sum.reshape(-1), prev_grad_sum.reshape(-1)) / norm
    products = grad_sum.sign() * prev_grad_sum.sign()
    signs = (products > 0).sum() / (products != 0).sum().clamp_min(1)
    return Agreement(cosine.nan_to_num(0.0), signs, cosine.isfinite())


def update_gain(gain: Tensor, clip: Tensor, agreed: Agreement, window: int, constants: Constants) -> Tensor:
    """The gain (0-dim) of a tensor at the end of a window of ``window`` steps; where the sums say nothing it stays."""
    measure = 2 * agreed.signs - 1 if constants.signs else agreed.cosine
    speed = constants.speed * min(1.0, window / constants.full_speed_at)
    moved = gain * (clip if constants.unwind else 1.0) * torch.exp(speed * (measure - constants.set_point))
    return torch.where(agreed.is_finite, moved, gain)


def bound_gain(gain: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """A gain above 1 and the length, both divided by it: steps stay as they are. While directions shrink faster than the
    length falls, a gain makes up for the difference; without a bound it would grow with no end."""
    excess = gain.clamp_min(LARGEST_GAIN)
    return gain / excess, length / excess


def next_window_end(steps_done: int, constants: Constants) -> int:
    """The step after which the window that begins now ends."""
    return steps_done + max(constants.smallest_window, int(constants.window_growth * steps_done))
