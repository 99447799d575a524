"""The default against a search, on tasks of many kinds: tables follow from the raw table, tasks are what they say."""

import pytest
import torch

from benchmarks.against_search.__main__ import GROUPS, RESULTS
from benchmarks.against_search.models import Adapted, Transformer
from benchmarks.against_search.runs import SEARCH, SEARCH_SEEDS, Plan, Run, Setting, by_task, read, run_all, winners
from benchmarks.against_search.score import score_lines
from tests.conftest import ROOT


def test_the_table_of_the_documents_is_that_of_the_raw_table():
    page = (ROOT / "docs" / "results.md").read_text()
    tasks = {task.name: task.half_a_point for task in GROUPS["judging"]}
    lines = score_lines(read(RESULTS), tasks)
    assert len(lines) > len(tasks)
    assert [line for line in lines if line and line not in page] == []


def test_no_run_of_the_search_is_missing_in_the_raw_table():
    there = {run.plan for run in read(RESULTS)}
    wanted = {
        Plan(task.name, *setting, seed) for task in GROUPS["judging"] for setting in SEARCH for seed in SEARCH_SEEDS
    }
    assert wanted <= there


def test_the_search_chooses_by_its_own_seeds_and_by_the_last_and_the_best_score_apart():
    runs = [Run(Plan("task", *SEARCH[0], seed), last, 5.0) for seed, last in enumerate((3.0, 3.0, 0.0))]
    runs += [Run(Plan("task", *SEARCH[1], seed), last, 6.0) for seed, last in enumerate((2.0, 2.0, 90.0))]
    assert winners(by_task(runs)["task"]) == (SEARCH[0], SEARCH[1])


def test_a_run_stands_in_the_table_and_is_not_repeated(tmp_path, capfd):
    plan = [Plan("20 steps", *Setting("active_adamw", None, ""), 0)]
    for _ in range(2):
        run_all(tmp_path / "runs.csv", plan, processes=1)
    (run,) = read(tmp_path / "runs.csv")
    assert run.plan == plan[0]
    assert 80 < run.last <= run.best <= 100
    assert capfd.readouterr().out.count("1/1") == 1


FROM_SCRATCH = [  # the weights of the others are trained first, which takes half a minute each
    task for group in GROUPS.values() for task in group if "fine-tuned" not in task.name and "adapters" not in task.name
]


@pytest.mark.parametrize("task", FROM_SCRATCH, ids=lambda task: task.name)
def test_a_task_from_scratch_has_data_that_fit_its_loss_and_its_score(task):
    torch.manual_seed(0)
    model, (inputs, targets) = task.build(), task.draw(torch.Generator().manual_seed(0))
    task.loss(model(inputs), targets).backward()
    assert all(param.grad is not None for param in model.parameters() if param.requires_grad)
    held_inputs, held_targets = task.held_out()
    assert torch.isfinite(torch.tensor(task.score(model.eval()(held_inputs[:50]), held_targets[:50])))


def test_adapters_begin_as_nothing_and_are_all_that_trains():
    model, ids = Transformer(1, 16), torch.zeros(1, 48, dtype=torch.long)
    before = model(ids)
    adapted = Adapted(model)
    assert torch.equal(adapted(ids), before)
    trained = [name for name, param in adapted.named_parameters() if param.requires_grad]
    assert {name.split(".")[0] for name in trained} == {"downs", "ups"}
