"""The constants of the robust rule. They stand here and nowhere else; this file needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RobustConstants:
    """What the robust rule is made of.

    The values were chosen once, on the shipped studies. There is nothing to tune: other values are for studies that
    measure what each part of the rule does.

    Attributes:
        cap: largest step, as a share of a tensor's ``weight_rms``.
        cap_rises_until: share of the run in which the cap rises to its full value; 0 gives the full cap from the start.
        full_cap_at: number of steps of a run from which on the cap is ``cap``. In a shorter run it is larger.
        set_point: agreement of two successive gradient sums at which a gain stays as it is, in windows of up to
            ``full_speed_at`` steps. In longer windows it is closer to 0, in proportion.
        speed: how fast a gain moves; 0 keeps it where it starts.
        full_speed_at: number of steps of a window from which on a gain moves at full speed and the set point is nearer to 0.
        decay: power of the decay of the steps over the run; 0 is no decay.
        full_decay_at: number of steps of a run from which on the decay has that power. In a shorter run it is smaller.
        window_growth: length of a window, as a share of the steps that were taken before it.
        smallest_window: number of steps of the shortest window.
        unwind: whether a gain loses what the cap has cut off (anti-windup, in the words of control theory).
        signs: whether the agreement is the share of equal signs instead of the cosine.
        hold: the share by which the size of a step may be off, so that one pass over memory is enough; 0 measures each
            direction before it moves a tensor.
        bfloat16_sums_from: number of elements of a tensor from which on its gradient sums are bfloat16.
    """

    cap: float = 0.1
    cap_rises_until: float = 0.2
    full_cap_at: int = 400
    set_point: float = -0.2
    speed: float = 1.0
    full_speed_at: int = 20
    decay: float = 1.0
    full_decay_at: int = 400
    window_growth: float = 0.2
    smallest_window: int = 2
    unwind: bool = True
    signs: bool = False
    hold: float = 0.03
    bfloat16_sums_from: int = 1024
