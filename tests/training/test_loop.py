"""The plain loop: what an epoch does, on one rank and on several."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from activelr_service.data import inspect_data
from activelr_service.errors import NonFiniteLossError
from activelr_service.optim import ActiveSGD
from activelr_service.runs.journal import read_journal
from activelr_service.service.resolve import Resources, resolve_job
from activelr_service.training import distributed
from activelr_service.training.build import build_training, seed_everything
from activelr_service.training.checkpoint import CheckpointStore
from activelr_service.training.loop import fit
from tests.conftest import small_job
from tests.ranks import run_ranks

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def resolved(job, num_workers=1):
    """The job for so many workers; with batches of 64 where it gives no batch size, which only workers can choose."""
    workers = job.workers.model_copy(update={"num_workers": num_workers})
    job = job.model_copy(update={"workers": workers})
    if job.global_batch_size is None and job.optimizer.type != "rprop":
        job = job.model_copy(update={"global_batch_size": 64})
    return resolve_job(job, inspect_data(job.data), Resources(num_workers, 0))[0]


def store(folder):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    return CheckpointStore(folder / "checkpoints", folder / "journal.jsonl", print)


PAPER = {"rule": "paper"}


def train(job, folder, epochs_seen=None):
    """Train a resolved job in this process; ``epochs_seen`` collects the epochs that were run."""
    training = build_training(job, inspect_data(job.data), CPU)
    on_epoch = (epochs_seen if epochs_seen is not None else []).append
    return training, fit(training, store(folder), on_epoch)


class StoppedError(Exception):
    pass


def train_an_epoch(job, folder):
    """Train a resolved job until an epoch is committed; returns that epoch."""

    def stop(record):
        raise StoppedError(record.epoch)

    with pytest.raises(StoppedError) as stopped:
        fit(build_training(job, inspect_data(job.data), CPU), store(folder), stop)
    return stopped.value.args[0]


def final_tensors(folder, epoch):
    path = folder / "checkpoints" / f"epoch-{epoch:06d}"
    return {
        f"{part}.{name}": tensor.clone()  # load_file maps the file into memory
        for part in ("model", "optimizer")
        for name, tensor in load_file(path / f"{part}.safetensors").items()
    }


def assert_identical(left, right):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


@pytest.mark.parametrize("optimizer", ["active_sgd", "active_adamw", "active_radam", "active_belief", "active_muon"])
def test_every_optimizer_learns_the_digits_without_a_learning_rate(tmp_path, optimizer):
    job = resolved(small_job(tmp_path, epochs=16, optimizer={"type": optimizer}))
    _, history = train(job, tmp_path)
    assert history[-1].metrics["val/accuracy"] > 0.85
    assert history[-1].metrics["train/loss"] < 0.5 * history[0].metrics["train/loss"]


def test_a_record_has_what_is_tracked_and_the_journal_repeats_it(tmp_path):
    _, history = train(resolved(small_job(tmp_path, optimizer=PAPER)), tmp_path)
    metrics = history[-1].metrics
    for name in [
        "train/loss",
        "train/accuracy",
        "val/loss",
        "val/accuracy",
        "optim/gain_mean",
        "optim/gain_q05",
        "optim/gain_q95",
        "optim/share_grew",
        "optim/grad_norm",
        "optim/non_finite",
        "perf/samples_per_sec",
        "perf/epoch_seconds",
        "perf/epoch_end_reduce_seconds",
    ]:
        assert name in metrics
    assert history[0].metrics["optim/gain_mean"] == 1
    assert sum(history[-1].gain_histogram) == 3 * 64 * 32 + 32 + 32 * 10 + 10
    assert read_journal(tmp_path / "journal.jsonl") == history


MOBILENET = {"type": "torchvision", "name": "mobilenet_v3_small"}
IMAGES = {"model": MOBILENET, "data": {"type": "npz", "path": "images.npz"}, "global_batch_size": 16}


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "mlp", "hidden": [32]}},
        IMAGES,
        {"optimizer": {"type": "active_radam"}, "workers": {"num_loader_workers": 1}},
        {**IMAGES, "channels_last": True},
        {**IMAGES, "channels_last": True, "optimizer": {"type": "active_sgd", "momentum": 0.9, "rule": "paper"}},
    ],
    ids=[
        "mlp",
        "batch norm and dropout",
        "radam and a loader process",
        "channels last",
        "and momentum",
    ],
)
def test_a_training_stopped_after_every_epoch_ends_bit_for_bit_as_the_one_never_stopped(tmp_path, monkeypatch, changes):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("images.npz", x=rng.normal(size=(80, 3, 8, 8)).astype(np.float32), y=rng.integers(0, 4, 80))
    job = resolved(small_job(tmp_path, epochs=3, **changes))
    _, history = train(job, tmp_path / "whole")
    assert [train_an_epoch(job, tmp_path / "parts") for _ in range(3)] == [1, 2, 3]
    _, resumed = train(job, tmp_path / "parts")
    assert_identical(final_tensors(tmp_path / "whole", 3), final_tensors(tmp_path / "parts", 3))
    assert [r.metrics["val/loss"] for r in resumed] == [r.metrics["val/loss"] for r in history]


def test_gradient_accumulation_takes_the_same_steps(tmp_path):
    for accum_steps in (1, 4):
        train(resolved(small_job(tmp_path, grad_accum_steps=accum_steps)), tmp_path / str(accum_steps))
    for name, tensor in final_tensors(tmp_path / "1", 3).items():
        torch.testing.assert_close(tensor, final_tensors(tmp_path / "4", 3)[name], rtol=1e-3, atol=1e-5)


def test_clipping_bfloat16_and_compile_are_plain_options(tmp_path):
    plain = train(resolved(small_job(tmp_path)), tmp_path / "plain")[1][-1].metrics
    changes = {"clip_grad_norm": 0.01, "precision": "bfloat16", "compile": True}
    changes["optimizer"] = {"type": "active_sgd", "rule": "paper"}
    clipped = train(resolved(small_job(tmp_path, **changes)), tmp_path / "options")[1][-1].metrics
    assert clipped["train/loss"] > plain["train/loss"], "steps of norm 0.01 learn slowly"
    assert clipped["optim/grad_norm"] > 0.01, "the norm is that before clipping"


def test_language_modeling_and_regression_train(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    np.savez(tmp_path / "regression.npz", x=x, y=x @ np.array([1.0, -2.0, 0.5, 0.0], dtype=np.float32))
    np.savez(tmp_path / "tokens.npz", x=(np.arange(16)[None] + rng.integers(0, 9, (200, 1))) % 9)
    gpt2 = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 16}
    jobs = [
        ("regression", {"type": "mlp"}, "val/loss", 1.0),
        ("tokens", {"type": "causal_lm", "name": "gpt2", "config": gpt2}, "val/perplexity", 5.0),
    ]
    for name, model, metric, bound in jobs:
        data = {"type": "npz", "path": str(tmp_path / f"{name}.npz")}
        job = resolved(small_job(tmp_path, epochs=10, model=model, data=data, optimizer={"rule": "paper", "lr": 0.01}))
        assert train(job, tmp_path / name)[1][-1].metrics[metric] < bound


def test_a_loss_that_is_not_finite_names_its_step_and_keeps_the_last_checkpoint(tmp_path):
    job = resolved(small_job(tmp_path, optimizer={"type": "sgd", "lr": 1e30}))
    with pytest.raises(NonFiniteLossError, match=r"not finite at epoch 1, step \d+ of 22"):
        train(job, tmp_path)
    assert store(tmp_path).epochs() == []


def test_the_latest_two_and_the_best_checkpoint_are_kept(tmp_path):
    job = resolved(small_job(tmp_path, epochs=6, optimizer={"type": "sgd", "lr": 0.5}))
    _, history = train(job, tmp_path)
    best = max(history, key=lambda record: (record.metrics["val/accuracy"], -record.epoch)).epoch
    assert set(store(tmp_path).epochs()) == {5, 6, best}


def test_ranks_take_the_steps_of_one_rank_and_count_every_held_out_row_once(tmp_path):
    job = small_job(tmp_path, epochs=3, global_batch_size=96, optimizer=PAPER)
    train(resolved(job), tmp_path / "alone")
    alone = final_tensors(tmp_path / "alone", 3)
    for world_size in (2, 3):
        folder = tmp_path / f"ranks-{world_size}"
        rows = run_ranks(train_on_rank, world_size, tmp_path, resolved(job, world_size), folder)
        assert rows == [360] * world_size
        together = final_tensors(folder, 3)
        for name, tensor in alone.items():
            if name.endswith("/gain"):
                assert torch.equal(tensor, together[name]), (world_size, name)
            elif name.startswith("model."):
                torch.testing.assert_close(tensor, together[name], rtol=1e-4, atol=1e-5)
        assert_identical(together, final_tensors(folder / "resumed", 3))


def train_on_rank(rank, job, folder):
    """Train whole, and once more with a stop in between; returns the number of rows evaluated on all ranks."""
    training, _ = train(job, folder)
    train_an_epoch(job, folder / "resumed")
    train(job, folder / "resumed")
    return int(distributed.sum_(torch.tensor(sum(len(batch[0]) for batch in training.val_loader))))


def test_sums_of_gradients_that_are_not_averaged_in_the_step_become_those_over_all_data(tmp_path):
    results = run_ranks(step_on_own_rows, 2, tmp_path)
    data, model, optimizer = own_rows()
    for rows in data:
        model.zero_grad()
        nn.functional.mse_loss(model(rows), rows.sum(1, keepdim=True), reduction="sum").backward()
        optimizer.step()
    for own_sums, reduced_sums in results:
        for param, own, reduced in zip(model.parameters(), own_sums, reduced_sums, strict=True):
            total = optimizer.state[param]["grad_sum"]
            torch.testing.assert_close(reduced * 2, total)
            assert not torch.allclose(own, total, rtol=0.1)
    for first, second in zip(results[0][1], results[1][1], strict=True):
        assert torch.equal(first, second)


def own_rows():
    seed_everything(0)
    data = torch.randn(6, 8, 5)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    return data, model, ActiveSGD(model.parameters(), rule="paper", lr=0.0)


def step_on_own_rows(rank):
    """Each rank steps on its own half of every batch, with no communication but that of end_epoch."""
    data, model, optimizer = own_rows()
    for rows in data:
        half = rows.chunk(2)[rank]
        model.zero_grad()
        nn.functional.mse_loss(model(half), half.sum(1, keepdim=True), reduction="sum").backward()
        optimizer.step()
    own = [optimizer.state[param]["grad_sum"].clone() for param in model.parameters()]
    reduced = []

    def mean(flat):
        reduced.extend(distributed.mean_(flat).split([len(total.flatten()) for total in own]))

    optimizer.end_epoch(reduce=mean)
    return own, [part.view_as(total).clone() for part, total in zip(reduced, own, strict=True)]


def test_one_bit_of_difference_between_ranks_is_found_and_named(tmp_path):
    messages = run_ranks(diverge, 2, tmp_path)
    assert all("rank 1 differs from rank 0 in model.2.weight (1 of 4 tensors differ)" in text for text in messages)
    assert all("end of epoch 7" in text for text in messages)


def diverge(rank):
    _, model, _ = own_rows()
    named = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    distributed.check_replicas(named, 6, CPU)
    if rank == 1:
        weight = model[2].weight.data
        weight.view(-1)[3] = torch.nextafter(weight.view(-1)[3], torch.tensor(10.0))
    try:
        distributed.check_replicas(named, 7, CPU)
    except distributed.ReplicaDivergenceError as error:
        return str(error)
    return "nothing"


def test_the_state_of_a_checkpoint_is_json_and_safetensors(tmp_path):
    train(resolved(small_job(tmp_path, epochs=1)), tmp_path)
    folder = tmp_path / "checkpoints" / "epoch-000001"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json", "tables.safetensors"]
    assert json.loads((folder / "manifest.json").read_text())["epoch"] == 1
