"""The batch size as numbers: its limit, the choice among measurements, and how workers share it."""

import pytest

from activelr_service.config import CompleteJob, parse_resolved_job
from activelr_service.errors import CommandError
from activelr_service.training.batch_size.choice import (
    BatchSizeChoice,
    BatchSizeLimit,
    ProbeResult,
    ProbeSample,
    at_the_limit,
    choose,
    limit_batch_size,
    limit_in_time,
    limit_of,
    read_choice,
    write_choice,
)
from tests.conftest import small_job


def resolved(num_workers, **changes):
    """A resolved job whose batch size is left to the workers."""
    job = small_job("runs", task="classification", workers={"num_workers": num_workers}, **changes)
    return parse_resolved_job(
        {**job.model_dump(mode="json", exclude_none=True), "tracking": {"uri": "sqlite:///mlflow.db"}}
    )


LIMIT = BatchSizeLimit(64, "steps")


@pytest.mark.parametrize(
    ("num_train", "epochs", "task", "expected", "reason"),
    [
        (1437, 20, "classification", 32, "fewer than 500 steps to learn in"),
        (1437, 1000, "classification", 128, "fewer than 8 steps an epoch"),
        (50_000, 90, "classification", 4096, "fewer than 8 steps an epoch"),
        (1_281_167, 90, "classification", 131_072, "fewer than 8 steps an epoch"),
        (16_551, 26, "detection", 16, "images of full size"),
        (1437, 1, "classification", 8, "the smallest, though the run has few samples: 1,437"),
        (5, 100, "regression", 4, "the smallest"),
        (1, 1, "regression", 1, "the smallest"),
        (2**40, 1, "language_modeling", 2**20, "the largest there is"),
    ],
)
def test_the_limit_is_the_largest_power_of_two_that_leaves_steps_to_learn_in(num_train, epochs, task, expected, reason):
    limit = limit_batch_size(num_train, num_train * epochs, task)
    assert limit.batch_size == expected
    assert reason in limit.reason


def found(rates, too_large=None, step_seconds=0.0):
    tried = [ProbeSample(size, rate, 0.1, fits=True) for size, rate in rates.items()]
    reason = "stopped"
    if too_large:
        tried.append(ProbeSample(too_large, 0.0, 1.0, fits=False))
        reason = f"{too_large} rows do not fit"
    return ProbeResult(tuple(tried), reason, step_seconds)


def test_a_budget_of_steps_sets_no_limit_of_its_own_and_one_of_time_that_of_the_rows_it_is_enough_for():
    by_steps, by_time = (resolved(2, epochs=None, budget=budget) for budget in ({"steps": 10}, {"time": "100s"}))
    assert limit_of(by_steps, 10_000).batch_size == limit_of(by_time, 10_000).batch_size == 1024
    rates = found({8: 100.0, 16: 200.0})  # of each of two workers: 40,000 rows in 100 s
    assert limit_in_time(limit_of(by_time, 10_000), rates, by_time, 10_000).batch_size == 64
    assert limit_in_time(limit_of(by_steps, 10_000), rates, by_steps, 10_000).batch_size == 1024


def test_twice_the_rows_are_worth_it_while_samples_per_second_rise():
    assert choose(found({8: 100, 16: 190, 32: 205}), LIMIT) == (16, "samples/s rise by less than 10% beyond it")
    assert choose(found({8: 100, 16: 105}), LIMIT)[0] == 8
    assert choose(found({8: 100, 16: 190, 32: 360, 64: 700}), LIMIT) == (64, "steps")


def test_what_does_not_fit_is_accumulated_where_that_spares_optimizer_steps():
    dear = found({8: 8 / 1.1, 16: 16 / 1.2}, too_large=32, step_seconds=1.0)  # a row takes 12.5 ms, a step a second
    assert choose(dear, LIMIT) == (64, "steps")
    assert choose(dear, BatchSizeLimit(1024, "steps"))[0] == 512
    size, reason = choose(found({8: 80, 16: 160}, too_large=32), LIMIT)
    assert (size, reason) == (16, "32 rows do not fit; accumulated, samples/s rise by less than 10% beyond it")


def test_memory_for_few_rows_at_a_time_does_not_make_the_batch_smaller_than_the_smallest():
    assert choose(found({2: 20}, too_large=4), LIMIT)[0] == 8
    assert choose(found({2: 20}, too_large=4), BatchSizeLimit(4, "few rows"))[0] == 4


def shared(choice, num_workers):
    job = resolved(num_workers)
    completed = choice.complete(job)
    assert completed.global_batch_size == num_workers * completed.grad_accum_steps * completed.micro_batch_size()
    return completed.global_batch_size, completed.grad_accum_steps, completed.micro_batch_size()


def test_any_number_of_workers_shares_the_same_batch_and_accumulates_what_does_not_fit():
    choice = BatchSizeChoice(64, None, largest_micro_batch_size=16, num_train=1437, reason="measured")
    found = {num_workers: shared(choice, num_workers) for num_workers in (1, 2, 4, 8, 64)}
    assert found == {1: (64, 4, 16), 2: (64, 2, 16), 4: (64, 1, 16), 8: (64, 1, 8), 64: (64, 1, 1)}


def test_a_model_that_needs_two_rows_at_a_time_has_them_on_any_number_of_workers_and_that_is_said():
    choice = BatchSizeChoice(8, None, 8, num_train=1437, reason="measured", smallest_micro_batch_size=2)
    assert {n: shared(choice, n) for n in (2, 4, 8)} == {2: (8, 1, 4), 4: (8, 1, 2), 8: (16, 1, 2)}
    job = choice.complete(resolved(8))
    assert choice.explain(job) == "measured; 8 shared by 8 workers x 1 accumulation steps of at least 2 samples"


def test_workers_that_do_not_divide_it_take_the_nearest_batch_they_can_share_and_say_so():
    choice = BatchSizeChoice(64, None, largest_micro_batch_size=64, num_train=1437, reason="measured")
    assert shared(choice, 3) == (63, 1, 21)
    job = choice.complete(resolved(3))
    assert choice.explain(job) == "measured; 64 shared by 3 workers x 1 accumulation steps"
    few_rows = BatchSizeChoice(8, None, largest_micro_batch_size=8, num_train=8, reason="measured")
    assert shared(few_rows, 3) == (6, 1, 2)


def test_accumulation_steps_of_the_job_are_kept_and_no_more_rows_taken_than_fit():
    choice = BatchSizeChoice(64, 4, largest_micro_batch_size=64, num_train=1437, reason="measured")
    assert shared(choice, 2) == (64, 4, 8)
    tight = BatchSizeChoice(64, 2, 8, 1437, "measured")
    assert shared(tight, 2) == (32, 2, 8)
    explained = tight.explain(tight.complete(resolved(2)))
    assert explained == (
        "as many samples as fit for 2 workers x 2 accumulation steps, which the job gives; without them 64: measured"
    )


def test_where_nothing_is_measured_a_job_takes_its_limit_and_one_that_gives_a_batch_keeps_it():
    job = resolved(2, epochs=20)
    assert at_the_limit(job, 1437).global_batch_size == 32
    given = resolved(2, global_batch_size=100)
    assert isinstance(given, CompleteJob)
    assert at_the_limit(given, 1437) is given


def test_a_choice_is_read_back_as_it_was_written(tmp_path):
    samples = (ProbeSample(8, 80.5, 0.1, True), ProbeSample(16, 0.0, 1.0, False))
    choice = BatchSizeChoice(64, None, 16, 1437, "measured", samples)
    with pytest.raises(CommandError, match="is damaged"):
        read_choice(tmp_path / "batch_size.json")
    write_choice(tmp_path / "batch_size.json", choice)
    assert read_choice(tmp_path / "batch_size.json") == choice
    assert [str(tried) for tried in choice.tried] == [
        "    8 samples a worker: 80 samples/s, 10% of its memory",
        "   16 samples a worker: out of memory",
    ]
