"""The forms of public benchmarks: AlgoPerf's functions and score, LightBench on a CPU, the track of modded-nanogpt."""

import inspect
import math
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from benchmarks import nanogpt
from benchmarks.algoperf import submission
from benchmarks.algoperf_mini import __main__ as algoperf_mini
from benchmarks.algoperf_mini import score, spec, table
from benchmarks.algoperf_mini.competitors import COMPETITORS, NadamW
from benchmarks.algoperf_mini.run import draw_points, run_all, train
from benchmarks.algoperf_mini.workloads import WORKLOADS
from benchmarks.algoperf_mini.workloads.tables import Ogbg
from benchmarks.lightbench import __main__ as lightbench
from benchmarks.lightbench import problems
from benchmarks.lightbench import table as lightbench_table
from tests.conftest import ROOT
from tests.ranks import run_ranks

PUBLISHED = {  # the functions of AlgoPerf 0.6, in the order of its documentation
    "get_batch_size": "workload_name",
    "init_optimizer_state": "workload model_params model_state hyperparameters rng",
    "update_params": "workload current_param_container current_params_types model_state hyperparameters batch loss_type "
    "optimizer_state eval_results global_step rng train_state",
    "prepare_for_eval": "workload current_param_container current_params_types model_state hyperparameters loss_type "
    "optimizer_state eval_results global_step rng",
    "data_selection": "workload input_queue optimizer_state current_param_container model_state hyperparameters "
    "global_step rng",
}


# In a process of its own: LightBench changes settings of torch when it is imported.
ROSENBROCK = """
from benchmarks.lightbench.run import competitors, run_one
result = run_one("rosenbrock", "active_adamw", 0, 0, {}, competitors()["active_adamw"])
print(result.won_at, result.best)
"""


def update(workload, model, state, batch, step=0):
    return submission.update_params(
        workload=workload,
        current_param_container=model,
        current_params_types=None,
        model_state=None,
        hyperparameters=None,
        batch=batch,
        loss_type=workload.loss_type,
        optimizer_state=state,
        eval_results=[],
        global_step=step,
        rng=0,
        train_state={},
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_submission_has_the_published_functions_with_their_arguments_in_order(name):
    assert " ".join(inspect.signature(getattr(submission, name)).parameters) == PUBLISHED[name]


def test_the_submission_has_a_batch_size_for_every_workload_and_refuses_others():
    assert all(submission.get_batch_size(name) > 0 for name in WORKLOADS)
    with pytest.raises(ValueError, match="no batch size for the workload 'cifar'; there are criteo1tb"):
        submission.get_batch_size("cifar")


def test_the_submission_learns_a_stand_in_through_the_functions_alone():
    workload = Ogbg()
    validation, test = train(workload, submission, seed=0, steps=120)
    assert len(validation) == len(test) == 6
    assert validation[-1] < 0.9 * workload.evaluate(workload.init_model_fn(0)[0], "validation")


def test_the_submission_says_when_its_planned_run_is_over():
    workload = Ogbg()
    model, _ = workload.init_model_fn(0)
    state = submission.init_optimizer_state(workload, model, None, None, 0)
    batch = next(workload._build_input_queue(0, "train", "", 8))
    update(workload, model, state, batch, workload.step_hint - 1)
    with pytest.raises(spec.TrainingCompleteError, match="planned for 400"):
        update(workload, model, state, batch, workload.step_hint)


def test_the_state_of_the_submission_can_be_stored():
    workload = Ogbg()
    model, _ = workload.init_model_fn(0)
    state = submission.init_optimizer_state(workload, model, None, None, 0)
    update(workload, model, state, next(workload._build_input_queue(0, "train", "", 8)))
    assert all(hasattr(value, "state_dict") for value in state.values())
    assert state["optimizer"].state_dict()["state"]


def halves(rank, world_size):
    """The gradients of the first step and the weights after 40, on this rank's share of each batch."""
    torch.manual_seed(0)
    workload = Ogbg()
    model, _ = workload.init_model_fn(0)
    container = DistributedDataParallel(model) if world_size > 1 else model
    state = submission.init_optimizer_state(workload, container, None, None, 0)
    queue = workload._build_input_queue(0, "train", "", 32)
    grads = None
    for step in range(40):
        batch = {name: tensor.chunk(world_size)[rank] for name, tensor in next(queue).items()}
        update(workload, container, state, batch, step)
        grads = grads or [param.grad.clone() for param in model.parameters()]
    return grads, [param.detach() for param in model.parameters()]


@pytest.mark.slow
def test_two_ranks_with_half_a_batch_each_do_what_one_does_with_the_whole(tmp_path):
    alone = halves(0, 1)
    first, second = run_ranks(halves, 2, tmp_path, 2)
    torch.testing.assert_close(first[0], alone[0])
    torch.testing.assert_close(first[1], second[1], rtol=0, atol=0)
    torch.testing.assert_close(first[1], alone[1], rtol=1e-3, atol=1e-4)


def test_nadamw_is_adam_with_the_gradient_once_more_in_the_first_moment():
    param = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = NadamW([param], 0.1, (0.8, 0.9), 0.05)
    weights, m, v = np.array([1.0, -2.0]), 0.0, 0.0
    for step in range(1, 6):
        grad = weights * np.array([3.0, 0.5])
        param.grad = torch.tensor(grad)
        optimizer.step()
        m, v = 0.8 * m + 0.2 * grad, 0.9 * v + 0.1 * grad**2
        ahead = (0.8 * m + 0.2 * grad) / (1 - 0.8**step)
        weights = weights * (1 - 0.1 * 0.05) - 0.1 * ahead / (np.sqrt(v / (1 - 0.9**step)) + 1e-8)
        assert param.tolist() == pytest.approx(weights.tolist(), rel=1e-9)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_stand_in_has_finite_losses_and_gives_every_weight_a_gradient(name):
    workload = WORKLOADS[name]()
    model, state = workload.init_model_fn(0)
    batch = next(workload._build_input_queue(0, "train", "", 4))
    logits, _ = workload.model_fn(model, batch, state, spec.ForwardPassMode.TRAIN, 0, True, 0.0)
    losses = workload.loss_fn(batch["targets"], logits)
    losses["summed"].backward()
    assert losses["summed"].item() == pytest.approx(losses["per_example"].sum().item(), rel=1e-5)
    assert len(losses["per_example"]) == 4
    assert all(param.grad is not None and param.grad.isfinite().all() for param in model.parameters())
    assert math.isfinite(workload.evaluate(model, "test"))


def test_the_targets_come_from_twenty_points_and_what_a_file_has_is_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(Ogbg, "target_steps", 15)
    monkeypatch.setattr("benchmarks.algoperf_mini.run.EVALUATIONS", 4)
    path = tmp_path / "runs.csv"
    run_all(path, ["ogbg"], ["adamw"])
    runs = table.read(path)
    drawn = [run for run in runs if run.optimizer.startswith("target_") and run.seed == 0]
    assert len(drawn) == len(draw_points()) == 20
    winner = min(drawn, key=table.best).optimizer
    assert [run.seed for run in runs if run.optimizer == winner] == [0, 1, 2]
    assert [run.seed for run in runs if run.optimizer == "adamw"] == [0, 1, 2]
    before = path.read_text()
    run_all(path, ["ogbg"], ["adamw"])
    assert path.read_text() == before


def test_the_score_is_the_integral_of_the_profile():
    steps = {"a": {"x": 100, "y": 300, "z": math.inf}, "b": {"x": 250, "y": 100, "z": 50}}
    assert score.profile(steps, "a", 1) == pytest.approx(1 / 3)
    assert score.score(steps, "a") == pytest.approx(((4 - 1) + (4 - 3)) / 3 / 3)
    ratios = np.linspace(1, 4, 300_001)
    for name in steps:
        area = np.trapezoid([score.profile(steps, name, ratio) for ratio in ratios[::100]], ratios[::100]) / 3
        assert score.score(steps, name) == pytest.approx(area, abs=1e-3)


def test_the_steps_to_a_target_are_the_median_over_the_seeds_and_count_from_the_first_time():
    run = table.Run("w", "o", 0, "{}", 60, 20, 1.0, (0.5, 0.3, 0.4), (0.0, 0.0, 0.0))
    runs = [run, replace(run, seed=1, validation=(0.3, 0.3, 0.3)), replace(run, seed=2, validation=(math.nan,))]
    assert score.steps_to_targets(runs, {"w": 0.3}) == {"o": {"w": 40}}
    assert score.steps_to_targets(runs[:1], {"w": 0.2}) == {"o": {"w": math.inf}}


def test_the_scores_of_the_documents_are_those_of_the_raw_tables():
    page = (ROOT / "docs" / "results.md").read_text()
    tables = [
        score.score_lines(table.read(algoperf_mini.RESULTS)),
        lightbench_table.score_lines(lightbench_table.read(lightbench.RESULTS)),
        nanogpt.score_lines(nanogpt.read(nanogpt.RESULTS)),
        nanogpt.score_lines(nanogpt.read(nanogpt.RESULTS.with_name("nanogpt_h100.csv"))),
    ]
    missing = [line for lines in tables for line in lines if line.startswith("|") and line not in page]
    assert missing == []


def test_no_run_is_missing_in_the_raw_table():
    runs = {run.key for run in table.read(algoperf_mini.RESULTS)}
    assert {(name, who, seed) for name in WORKLOADS for who in COMPETITORS for seed in (0, 1, 2)} <= runs
    assert len({key for key in runs if key[1].startswith("target_") and key[2] == 0}) == 20 * len(WORKLOADS)


def test_what_lightbench_puts_on_a_gpu_stays_on_the_cpu():
    with problems.CudaIsCpu():
        made = torch.ones(2, device="cuda") + torch.zeros(2).cuda() + torch.ones(2).to(torch.device("cuda", 0))
        module = torch.nn.Linear(2, 1).cuda()
    assert made.tolist() == [2.0, 2.0]
    assert {tensor.device.type for tensor in (made, *module.parameters())} == {"cpu"}


def test_what_a_module_gives_to_trial_is_caught_in_its_own_dtype():
    def trained(*arguments, **options):
        raise AssertionError

    module = types.SimpleNamespace(trial=trained)
    model = torch.nn.Linear(1, 1)
    with problems.caught_trial(module) as caught:
        module.trial(model, None, None, "won", 10, "AdamW", 0.0, trials=3, dtype=["float64"])
    assert module.trial is trained
    assert caught[0].win_condition == "won"
    assert caught[0].model.weight.dtype is torch.float64


def test_a_problem_of_lightbench_is_trained_until_its_condition_is_met():
    pytest.importorskip("lightbench", reason="the extra lightbench is not installed")
    command = [sys.executable, "-W", "ignore", "-c", ROSENBROCK]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    won_at, best = map(float, output.split())
    assert 1 < won_at < 1000
    assert best <= 1e-9


@pytest.mark.parametrize("module", [algoperf_mini, lightbench, nanogpt])
def test_a_table_without_runs_is_refused_in_one_line(module, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", "score", str(tmp_path / "none.csv")])
    with pytest.raises(SystemExit):
        module.main()
    assert "none.csv: no runs to score; `run` makes them" in capsys.readouterr().err


def test_a_win_counts_where_all_seeds_win_and_a_search_wins_with_its_best_point():
    row = lightbench_table.Result("p", "search", 0, 0, "{}", 10, 0.1, 1.0)
    rows = [row, replace(row, seed=1, won_at=30), replace(row, draw=1), replace(row, draw=1, seed=1, won_at=0)]
    assert lightbench_table.wins(rows, "p", "search") == [30, 0]
    assert "| `search` | 2 | 1 of 1 | 0.5 |" in lightbench_table.score_lines(rows)
    assert "| p | 30 (1 of 2) |" in lightbench_table.score_lines(rows)


def test_a_problem_that_some_optimizer_has_not_run_is_left_out_with_a_word():
    row = lightbench_table.Result("p", "a", 0, 0, "{}", 10, 0.1, 1.0)
    lines = lightbench_table.score_lines([row, replace(row, optimizer="b"), replace(row, problem="q")])
    assert lines[-1] == "left out, as not every optimizer has run: q"
    assert not any(line.startswith("| q") for line in lines)


def test_the_gpt_learns_and_does_not_see_the_token_it_predicts():
    setup = nanogpt.Setup(layers=1, width=16, length=16, batch=4, validation_batches=2)
    tokens = torch.randint(4, (600,), generator=torch.Generator().manual_seed(0)).repeat_interleave(2)
    loss = nanogpt.train(setup, (tokens, tokens), nanogpt.active_adamw, 60, 0)
    assert loss < 2.5 < math.log(256)
    torch.manual_seed(0)
    model = nanogpt.GPT(setup)
    torch.nn.init.normal_(model.proj.weight)
    torch.nn.init.normal_(model.blocks[0].attention.proj.weight)
    inputs, targets = torch.arange(16)[None], torch.arange(16)[None].clone()
    targets[0, -1] = -100  # left out of the loss
    changed = inputs.clone()
    changed[0, -1] = 200
    assert model(inputs, targets).item() == model(changed, targets).item()
    changed[0, 3] = 200
    assert model(inputs, targets).item() != model(changed, targets).item()


def test_a_batch_in_pieces_gives_the_losses_of_the_whole():
    setup = nanogpt.Setup(layers=1, width=16, length=16, batch=4, validation_batches=1)
    tokens = torch.randint(256, (600,), generator=torch.Generator().manual_seed(0))
    whole, pieces = (
        nanogpt.train(replace(setup, micro_batch=size), (tokens, tokens), nanogpt.adamw, 5, 0) for size in (4, 3)
    )
    assert pieces == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("name", nanogpt.OPTIMIZERS)
def test_every_optimizer_of_the_script_has_each_weight_once(name):
    model = nanogpt.GPT(nanogpt.Setup())
    optimizers, factor = nanogpt.OPTIMIZERS[name](model, 10)
    held = [param for optimizer in optimizers for group in optimizer.param_groups for param in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    assert factor is None or 0 < factor(0.99) < factor(0.3) == 1.0


def test_token_files_of_the_track_are_read_and_a_short_one_is_refused(tmp_path):
    path, header = tmp_path / "tokens.bin", np.zeros(256, np.int32)
    header[:3] = 20240520, 1, 3
    path.write_bytes(header.tobytes() + np.array([5, 50_000, 7], np.uint16).tobytes())
    assert nanogpt.load_tokens(path).tolist() == [5, 50_000, 7]
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match="2 tokens where its header says 3; download it again"):
        nanogpt.load_tokens(path)


def test_the_script_takes_the_smallest_planned_number_of_steps_at_the_target():
    rows = [("muon", 200, 0, 3.0), ("muon", 400, 0, 2.0), ("adamw", 200, 0, 2.0), ("adamw", 400, 0, 1.5)]
    lines = nanogpt.score_lines(rows)
    assert lines[0].endswith("| steps to 2.000 |")
    assert lines[2].endswith("| 400 |")
    assert lines[3].endswith("| 200 |")
