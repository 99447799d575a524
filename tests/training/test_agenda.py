"""What is due within an epoch: when its interval has passed, on every rank at the same step, with few looks at a clock."""

from itertools import pairwise

import pytest

from activelr_service.config.duration import IntervalConfig
from activelr_service.training import distributed
from activelr_service.training.agenda import Agenda
from tests.training.test_loop import CPU


def run_agenda(intervals, seconds_of_step, steps):
    """The steps at which each name was due, their times, and the number of looks."""
    clock, looks = [0.0], [0]
    agenda = Agenda(intervals, CPU, read_clock=lambda: clock[0])
    look = agenda._look

    def counted(step):
        looks[0] += 1
        return look(step)

    agenda._look = counted
    found = {name: [] for name in intervals}
    for step in range(1, steps + 1):
        clock[0] += seconds_of_step(step)
        due = agenda.due(step)
        for name in due:
            found[name].append((step, clock[0]))
        if due:
            agenda.mark(step, due)
    return found, looks[0]


def test_steps_are_known_and_need_no_clock():
    found, looks = run_agenda({"log": IntervalConfig(steps=7), "evaluate": None}, lambda step: 1.0, 30)
    assert [step for step, _ in found["log"]] == [7, 14, 21, 28]
    assert (found["evaluate"], looks) == ([], 0)


@pytest.mark.parametrize(
    "seconds_of_step",
    [lambda step: 0.1, lambda step: 12.0 if step == 1 else 0.01, lambda step: 0.05 if step < 4000 else 0.4],
    ids=["steady", "a slow first step", "slower later"],
)
def test_times_are_met_within_a_few_steps_with_few_looks_at_the_clock(seconds_of_step):
    intervals = {"log": IntervalConfig(minutes=0.5), "checkpoint": IntervalConfig(minutes=2)}
    found, looks = run_agenda(intervals, seconds_of_step, 15_000)
    for name, seconds in (("log", 30), ("checkpoint", 120)):
        times = [0.0, *(moment for _, moment in found[name])]
        gaps = [after - before for before, after in pairwise(times)]
        assert gaps
        assert all(0.95 * seconds < gap < 1.4 * seconds for gap in gaps), gaps
    assert looks < 15 * len(found["log"]) + 10


def test_a_step_longer_than_the_interval_is_followed_by_what_is_due():
    found, _ = run_agenda({"log": IntervalConfig(minutes=0.5)}, lambda step: 100.0, 4)
    assert [step for step, _ in found["log"]] == [1, 2, 3, 4]


def test_the_texts_of_one_rank_are_its_own():
    assert distributed.gather_texts("ä b", CPU) == ["ä b"]
