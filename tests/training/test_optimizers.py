"""Optimizers other than ActiveLR's in the same loop, and learning-rate schedules."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from activelr_service.config.optimizer import OPTIMIZER_CONFIGS, MuonConfig, NAdamWConfig
from activelr_service.data import inspect_data
from activelr_service.errors import JobError
from activelr_service.optim import ActiveBelief
from activelr_service.training.build import build_training
from activelr_service.training.evaluate import evaluate
from activelr_service.training.optimizers import build_optimizer, lr_factor, set_lr
from tests.conftest import small_job
from tests.ranks import run_ranks
from tests.training.test_loop import CPU, assert_identical, final_tensors, resolved, store, train, train_an_epoch

pytestmark = pytest.mark.slow

BASELINES = sorted(name for name in OPTIMIZER_CONFIGS if not name.startswith("active_") and name != "python")


@pytest.mark.parametrize("optimizer", BASELINES)
def test_a_baseline_learns_and_a_stopped_training_ends_bit_for_bit_as_the_one_never_stopped(tmp_path, optimizer):
    job = resolved(small_job(tmp_path, epochs=4, optimizer={"type": optimizer}))
    _, history = train(job, tmp_path / "whole")
    losses = [record.metrics["train/loss"] for record in history]
    assert losses[-1] < losses[0]
    train_an_epoch(job, tmp_path / "parts")
    train(job, tmp_path / "parts")
    assert_identical(final_tensors(tmp_path / "whole", 4), final_tensors(tmp_path / "parts", 4))


def test_the_checkpoint_of_a_schedule_free_optimizer_has_the_weights_that_were_evaluated(tmp_path):
    job = resolved(small_job(tmp_path, epochs=2, optimizer={"type": "schedule_free_adamw"}))
    _, history = train(job, tmp_path)
    fresh = build_training(job, inspect_data(job.data), CPU)
    store(tmp_path).restore(fresh)
    metrics = evaluate(fresh.task, fresh.model, fresh.val_loader, CPU, "float32")
    assert metrics["loss"] == history[-1].metrics["val/loss"]


def test_adabelief_is_active_belief_with_its_gains_at_one(tmp_path):
    training, _ = train(resolved(small_job(tmp_path, optimizer={"type": "adabelief"})), tmp_path)
    assert isinstance(training.optimizer, ActiveBelief)
    assert all(bool((state["gain"] == 1).all()) for state in training.optimizer.state.values())


def test_muon_takes_the_matrices_of_hidden_layers_and_adamw_all_else():
    model = torch.nn.Sequential(
        torch.nn.Embedding(5, 4), torch.nn.Linear(4, 3), torch.nn.Conv1d(3, 3, 1), torch.nn.Linear(3, 2)
    )
    optimizer = build_optimizer(MuonConfig(lr=0.1), model)
    by_muon, by_adamw = [{id(param) for param in group["params"]} for group in optimizer.param_groups]
    assert by_muon == {id(model[1].weight)}
    assert by_adamw == {id(param) for param in model.parameters()} - by_muon


def test_muon_takes_the_steps_of_torch_s_two_optimizers():
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    theirs = copy.deepcopy(ours)
    matrix, others = theirs[0].weight, [theirs[0].bias, *theirs[1].parameters()]
    config = MuonConfig(lr=0.02, weight_decay=0.3, schedule="cosine")
    optimizers = [build_optimizer(config, ours)]
    optimizers.append(torch.optim.Muon([matrix], lr=0.02, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"))
    optimizers.append(torch.optim.AdamW(others, lr=0.02, weight_decay=0.3))
    inputs = torch.randn(8, 4)
    for _ in range(3):
        for model in (ours, theirs):
            model(inputs).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_nadamw_has_constant_nesterov_momentum_and_decoupled_decay():
    param = torch.nn.Parameter(torch.tensor([1.0]))
    model = torch.nn.Module()
    model.register_parameter("weight", param)
    optimizer = build_optimizer(NAdamWConfig(lr=0.1, betas=(0.8, 0.9), weight_decay=0.5), model)
    value, first, second = 1.0, 0.0, 0.0
    for step, grad in enumerate((1.0, -2.0, 0.5), start=1):
        param.grad = torch.tensor([grad])
        optimizer.step()
        first, second = 0.8 * first + 0.2 * grad, 0.9 * second + 0.1 * grad**2
        ahead = 0.8 * first / (1 - 0.8 ** (step + 1)) + 0.2 * grad / (1 - 0.8**step)
        value = value * (1 - 0.1 * 0.5) - 0.1 * ahead / ((second / (1 - 0.9**step)) ** 0.5 + 1e-8)
    assert param.item() == pytest.approx(value, rel=1e-5)


def test_a_warm_up_is_a_line_and_the_schedule_takes_the_rest():
    found = [lr_factor("cosine", step / 100, (step + 1) / 100, 0.2) for step in range(100)]
    assert found[:19] == pytest.approx([(step + 1) / 20 for step in range(19)])
    assert found[20:] == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 80)) for step in range(80)])
    assert [lr_factor("constant", 0.1, after, 0.2) for after in (0.1, 0.2, 0.9)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"type": "adamw", "schedule": "wsd", "warmup": 0.1}, "wsd has its own"),
        ({"type": "active_adamw", "warmup": 0.1}, "the robust rule has its own warm-up"),
        ({"type": "cocob", "warmup": 0.1}, "warmup"),
    ],
)
def test_a_warm_up_beside_another_is_refused(tmp_path, optimizer, message):
    with pytest.raises(JobError, match=message):
        small_job(tmp_path, optimizer=optimizer)


def rates(schedule, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    optimizer.param_groups[0]["initial_lr"] = 0.5
    for step in range(total):
        set_lr(optimizer, schedule, step / total, (step + 1) / total)
        yield optimizer.param_groups[0]["lr"]


def test_cosine_is_torch_s():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = CosineAnnealingLR(optimizer, T_max=40)
    for rate in rates("cosine", 40):
        assert rate == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_wsd_warms_up_stays_and_decays():
    found = list(rates("wsd", 100))
    assert found[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert found[5:80] == [0.5] * 75
    assert found[80:] == pytest.approx([0.5 * left / 20 for left in range(20, 0, -1)])


@pytest.mark.parametrize(
    "optimizer",
    [
        {"type": "adamw", "schedule": "cosine", "warmup": 0.6},
        {"type": "active_adamw", "rule": "robust"},
        {"type": "active_sgd", "rule": "robust"},
        {"type": "active_muon", "rule": "robust"},
        {"type": "active_muon", "rule": "paper", "schedule": "cosine"},
    ],
    ids=["cosine", "robust adamw", "robust sgd", "robust muon", "muon under the paper's rule"],
)
def test_what_follows_the_progress_of_the_run_continues_where_it_was(tmp_path, optimizer):
    job = resolved(small_job(tmp_path, epochs=2, optimizer=optimizer))
    train(job, tmp_path / "whole")
    train(job, tmp_path / "parts")
    (tmp_path / "parts" / "checkpoints" / "epoch-000002").rename(tmp_path / "parts" / "lost")
    train(job, tmp_path / "parts")
    assert_identical(final_tensors(tmp_path / "whole", 2), final_tensors(tmp_path / "parts", 2))


def test_a_job_gives_adam_s_direction_to_the_tables_of_a_language_model_and_resumes_in_its_groups(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "tokens.npz", x=(np.arange(16)[None] + rng.integers(0, 9, (200, 1))) % 9)
    config = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 16}
    model = {"type": "causal_lm", "name": "gpt2", "config": config}
    data = {"type": "npz", "path": str(tmp_path / "tokens.npz")}
    job = resolved(small_job(tmp_path, epochs=3, model=model, data=data, optimizer={"type": "active_muon"}))
    training, history = train(job, tmp_path / "whole")
    assert history[-1].metrics["val/perplexity"] < 0.5 * history[0].metrics["val/perplexity"]
    names = {id(param): name for name, param in training.model.named_parameters()}
    _, tables = training.optimizer.param_groups
    assert [names[id(param)].rpartition("transformer.")[2] for param in tables["params"]] == [
        "wte.weight",
        "wpe.weight",
    ]
    train_an_epoch(job, tmp_path / "parts")
    train(job, tmp_path / "parts")
    assert_identical(final_tensors(tmp_path / "whole", 3), final_tensors(tmp_path / "parts", 3))


def test_frozen_parameters_are_in_no_group_of_a_job(tmp_path):
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 3))
    model[0].requires_grad_(False)
    config = resolved(small_job(tmp_path, optimizer={"type": "active_muon"})).optimizer
    (group,) = build_optimizer(config, model).param_groups
    assert [id(param) for param in group["params"]] == [id(param) for param in model[1].parameters()]


def test_rprop_takes_the_whole_training_set_at_once(tmp_path):
    job = resolved(small_job(tmp_path, optimizer={"type": "rprop"}), num_workers=2)
    assert job.global_batch_size == 1436  # of 1,437 rows, shared by two workers
    with pytest.raises(JobError, match="global_batch_size: rprop takes the whole training set"):
        resolved(small_job(tmp_path, optimizer={"type": "rprop"}, global_batch_size=64))


def test_without_gains_there_is_nothing_to_report_of_them(tmp_path):
    _, history = train(resolved(small_job(tmp_path, epochs=1, optimizer={"type": "adamw"})), tmp_path)
    assert history[0].gain_histogram == []
    assert not [name for name in history[0].metrics if "gain" in name]


@pytest.mark.parametrize("optimizer", ["active_adamw", "active_muon"])
def test_two_and_three_ranks_take_the_steps_of_one_under_the_robust_rule_and_agree_to_the_last_bit(tmp_path, optimizer):
    job = small_job(tmp_path, epochs=3, global_batch_size=96, optimizer={"type": optimizer, "rule": "robust"})
    train(resolved(job), tmp_path / "alone")
    alone = final_tensors(tmp_path / "alone", 3)
    for world_size in (2, 3):
        folder = tmp_path / str(world_size)
        run_ranks(train_on_rank, world_size, tmp_path, resolved(job, world_size), folder)  # which checks the replicas
        together = final_tensors(folder, 3)
        for name in alone:
            if name.startswith("model.") or name.endswith("/gain"):
                torch.testing.assert_close(alone[name], together[name], rtol=1e-3, atol=1e-4)


def train_on_rank(rank, job, folder):
    train(job, folder)


@pytest.mark.parametrize("optimizer", ["active_adamw", "active_sgd"])
def test_under_the_robust_rule_any_learning_rate_gives_the_same_training(tmp_path, optimizer):
    losses = []
    for lr in (1e-6, 1e-1):
        job = resolved(small_job(tmp_path, optimizer={"type": optimizer, "rule": "robust", "lr": lr}))
        _, history = train(job, tmp_path / str(lr))
        losses.append([record.metrics["val/loss"] for record in history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    assert losses[0][-1] < 1.0
