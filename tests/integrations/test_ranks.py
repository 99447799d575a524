"""Two ranks of DDP take the steps of one process with the same global batch, in each trainer."""

import os
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, Subset

from tests.integrations.models import DATASET, ROWS, Regression, make_network
from tests.ranks import run_ranks

pytestmark = pytest.mark.slow


def train_all(rank, folder, ranks):
    """The weights after 12 steps of 16 rows in each trainer, and the learning rates that they show."""
    if ranks > 1:  # as torchrun does
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), TORCHELASTIC_RUN_ID="test")
        warnings.simplefilter("ignore")
    made = [train_trainer(folder, ranks), train_lightning(rank, ranks), train_loop(rank, ranks)]
    return [([param.detach() for param in network.parameters()], lr) for network, lr in made]


def make_loader(rank, ranks):
    """Batches of 8 rows over all ranks, in order."""
    sampler = DistributedSampler(DATASET, ranks, rank, shuffle=False) if ranks > 1 else None
    return DataLoader(DATASET, batch_size=8 // ranks, sampler=sampler)


def train_trainer(folder, ranks):
    from transformers import Trainer, TrainingArguments

    from activelr_service.integrations.trainer import ActiveLRCallback, active_optimizers

    model = Regression()
    options = {"per_device_train_batch_size": 8 // ranks, "num_train_epochs": 2, "gradient_accumulation_steps": 2}
    options |= {"max_grad_norm": 0, "logging_steps": 1, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    if ranks > 1:
        options["ddp_backend"] = "gloo"
    args = TrainingArguments(str(folder), save_steps=5, **options)
    callbacks = [ActiveLRCallback()]
    trainer = Trainer(model, args, train_dataset=ROWS, optimizers=active_optimizers(model), callbacks=callbacks)
    trainer.train()
    whole = [param.detach().clone() for param in model.parameters()]
    if ranks > 1:  # within a window, from the state that rank 0 has saved
        trainer.train(resume_from_checkpoint=os.path.join(folder, "checkpoint-5"))
        assert all(map(torch.equal, whole, model.parameters()))
    return model.network, trainer.optimizer.param_groups[0]["lr"]


def train_lightning(rank, ranks):
    import lightning.pytorch as pl

    from tests.integrations.test_lightning import QUIET, ActiveLRCallback, Module

    options = {"max_epochs": 2, "enable_progress_bar": False, "accumulate_grad_batches": 2, **QUIET}
    if ranks > 1:  # its own sampler shuffles
        options |= {"strategy": "ddp", "devices": ranks, "use_distributed_sampler": False}
    module, loader = Module(), make_loader(rank, ranks)
    trainer = pl.Trainer(callbacks=[ActiveLRCallback()], **options)
    trainer.fit(module, loader)
    return module.network, trainer.optimizers[0].param_groups[0]["lr"]


def train_loop(rank, ranks):
    from activelr_service.integrations.loop import ActiveLoop

    network = make_network()
    model = torch.nn.parallel.DistributedDataParallel(network) if ranks > 1 else network
    loop = ActiveLoop(model, make_loader(rank, ranks), 2, accumulate=2)
    for inputs, targets in loop:
        loop.step(torch.nn.functional.mse_loss(model(inputs), targets))
    return network, loop.lr


def test_two_ranks_take_the_steps_of_one_with_the_same_global_batch(tmp_path):
    one = train_all(0, tmp_path / "one", 1)
    first, second = run_ranks(train_all, 2, tmp_path, tmp_path / "two", 2)
    for (weights, lr), (mine, my_lr), (other, _) in zip(one, first, second, strict=True):
        assert all(map(torch.equal, mine, other))
        for expected, weight in zip(weights, mine, strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6)
        assert my_lr == pytest.approx(lr, rel=1e-4)


def agreements_on_a_rank(rank):
    """What the rule has measured in two windows, where each rank has gradients of its own."""
    from activelr_service.integrations.connect import build

    network = make_network()
    rows = Subset(DATASET, range(rank, len(DATASET), 2))
    optimizer, _ = build(network.parameters(), total_steps=4)
    for inputs, targets in DataLoader(rows, batch_size=12):
        torch.nn.functional.mse_loss(network(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [state["cosine"].item() for state in optimizer.state.values()]


def test_a_step_ends_the_sums_that_are_due_on_their_mean_over_the_ranks(tmp_path):
    one, other = run_ranks(agreements_on_a_rank, 2, tmp_path)
    assert one == other
    assert one != agreements_on_a_rank(0)  # of its own gradients alone
