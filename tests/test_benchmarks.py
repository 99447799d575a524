"""What `make bench` times is what a job does."""

import pytest
import torch

from benchmarks.options import JOB, make_step, timed

pytestmark = pytest.mark.slow


def test_the_step_that_is_timed_is_one_of_a_default_job():
    small = {**JOB, "model": {"type": "mlp"}, "data": {"type": "digits", "image_size": 8}}
    step = make_step(small, torch.device("cpu"))
    assert timed(step) > 0
