"""What `make bench` times is what a job does, and it stands beside the baseline."""

import json

import pytest
import torch

from activelr_service.config import parse_job
from activelr_service.data import build_data, prepare_data
from benchmarks import any_direction, generate
from benchmarks.__main__ import BASELINE, BENCHMARKS, HIGHER_IS_BETTER, compare, conclude, fell_back, is_portable
from benchmarks.options import JOB, make_step, timed
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def test_the_step_that_is_timed_is_one_of_a_default_job():
    small = {**JOB, "model": {"type": "mlp"}, "data": {"type": "digits", "image_size": 8}}
    step = make_step(small, torch.device("cpu"))
    assert timed(step) > 0


def test_the_data_that_are_timed_are_read(tmp_path):
    for make in (generate.photographs, generate.cifar, generate.text, generate.voc, generate.table):
        data = make(tmp_path / make.__name__)
        job = parse_job({"kind": "train", "name": "x", "epochs": 1, "model": {"type": "mlp"}, "data": data})
        train, _ = build_data(prepare_data(job.data, tmp_path / "cache"))
        assert len(train) > 10
        assert train[0] is not None


def test_a_figure_stands_beside_that_of_the_baseline_with_their_ratio():
    lines = compare({"a step": 3.0, "a new one": 1.0}, {"a step": 2.0})
    assert [line.split()[-3:] for line in lines[1:]] == [["3", "2", "1.50"], ["1", "-", "-"]]


def test_what_is_worse_than_the_baseline_is_named_with_how_much():
    before = {"a step": 2.0, "noise": 2.0, "gone": 1.0}
    assert fell_back({"a step": 3.0, "noise": 2.2, "new": 9.0}, before) == ["a step: 3, in the baseline 2: 50% worse"]
    assert fell_back({"a step": 3.0}, before, higher_is_better=True) == []
    assert fell_back({"a step": 1.0}, before, higher_is_better=True) == ["a step: 1, in the baseline 2: 100% worse"]
    assert "none fell back" in conclude([], 3, 4)[0]
    assert conclude(["a step"], 3, 4)[1:] == ["a step"]


def test_only_ratios_and_bytes_are_compared_with_another_machine():
    assert [is_portable(label) for label in ("a step, times fused AdamW", "a step, state", "a step")] == [1, 1, 0]
    assert set(HIGHER_IS_BETTER) <= set(BENCHMARKS)


def test_the_baseline_names_its_machine_and_benchmarks_that_there_are():
    baseline = json.loads(BASELINE.read_text())
    assert "CPU cores" in baseline["machine"]
    assert set(baseline["figures"]) <= set(BENCHMARKS)


def test_benchmarks_import_nothing_of_the_tests():
    assert not [path.name for path in (ROOT / "benchmarks").glob("*.py") if "from tests" in path.read_text()]


def test_the_table_of_any_direction_in_the_documents_is_that_of_its_runs():
    shown = [line for line in (ROOT / "docs" / "results.md").read_text().splitlines() if line.startswith("|")]
    for line in any_direction.table(any_direction.read_results()):
        assert line in shown, line
