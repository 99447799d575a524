"""Lightning: the steps are the rule's, the bar shows the effective rate, and a run without an end is refused."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, LearningRateMonitor
from torch.utils.data import DataLoader, IterableDataset

from activelr_service.integrations.lightning import ActiveLRCallback, active_optimizer
from activelr_service.optim import ActiveAdamW, ActiveLRWarning, ActiveSGD
from tests.integrations.models import DATASET, make_network, same_bits

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]
QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_model_summary": False}


class Module(pl.LightningModule):
    def __init__(self, scheduler=None, **options):
        super().__init__()
        self.network, self.scheduler, self.options = make_network(), scheduler, options

    def training_step(self, batch, index):
        return torch.nn.functional.mse_loss(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = active_optimizer(self, **self.options)
        return optimizer if self.scheduler is None else ([optimizer], [self.scheduler(optimizer)])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(DATASET)


def fit(module=None, loader=None, callbacks=(), **options):
    module = module or Module()
    bar = {"enable_progress_bar": False} | QUIET
    trainer = pl.Trainer(callbacks=[ActiveLRCallback(), *callbacks], **(bar | {"max_epochs": 2} | options))
    trainer.fit(module, DataLoader(DATASET, batch_size=8) if loader is None else loader)
    return trainer


class Rates(pl.Callback):
    """What the progress bar shows after each batch, and what stands in the parameter groups, where loggers read it."""

    def __init__(self):
        self.shown, self.in_groups = [], []

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step:
            self.shown.append(float(trainer.progress_bar_metrics["lr"]))
            self.in_groups.append(float(trainer.optimizers[0].param_groups[0]["lr"]))


def test_the_bar_and_the_loggers_show_the_effective_learning_rate(tmp_path):
    seen, monitor = Rates(), LearningRateMonitor()
    logger = pl.loggers.CSVLogger(tmp_path)
    trainer = fit(callbacks=[monitor, seen], logger=logger, log_every_n_steps=1)
    stats = trainer.optimizers[0].update_stats(trainer.lightning_module.named_parameters())
    assert trainer.callback_metrics["lr"].item() in [row["effective_lr"] for row in stats.values()]
    assert seen.shown == pytest.approx(seen.in_groups, rel=1e-3)  # the bar rounds
    assert len(set(seen.in_groups)) == 23
    assert set(monitor.lrs["lr-ActiveAdamW"]) == {0, *seen.in_groups}  # 0 before the first step


def test_it_takes_the_steps_of_the_optimizer_in_a_plain_loop():
    trainer, network = fit(accumulate_grad_batches=2, val_check_interval=5), make_network()
    optimizer = ActiveAdamW(network.parameters(), total_steps=12)
    for _ in range(2):
        for number, (inputs, targets) in enumerate(DataLoader(DATASET, batch_size=8)):
            (torch.nn.functional.mse_loss(network(inputs), targets) / 2).backward()
            if number % 2:
                optimizer.step()
                optimizer.zero_grad()
    assert same_bits(trainer.lightning_module.network, network)


def test_bfloat16_trains():
    trainer = fit(precision="bf16-mixed")
    assert all(param.isfinite().all() for param in trainer.lightning_module.parameters())
    assert trainer.optimizers[0].param_groups[0]["steps_done"] == 24


@pytest.mark.parametrize(
    ("options", "loader", "reason"),
    [
        ({"max_epochs": -1}, None, r"Trainer\(max_epochs=-1\) without max_steps has no end"),
        ({"max_epochs": None, "max_time": "00:00:01:00"}, None, "max_time ends the run at an hour, not at a step"),
        ({"max_epochs": -1, "max_time": "00:00:01:00"}, None, "max_time ends the run at an hour, not at a step"),
        ({}, DataLoader(Stream(), batch_size=8), "the training loader has no length, and there is no max_steps"),
        ({"callbacks": [GradientAccumulationScheduler({0: 1, 1: 2})]}, None, "changes how many batches make a step"),
    ],
)
def test_a_run_whose_number_of_steps_is_unknown_is_refused_with_a_remedy(options, loader, reason):
    with pytest.raises(ValueError, match=f"the number of steps is unknown: .*{reason}.*total_steps=N"):
        fit(loader=loader, **options)


def test_steps_that_are_given_count_where_the_trainer_does_not_know_them():
    trainer = fit(Module(total_steps=24), loader=DataLoader(Stream(), batch_size=8))
    assert trainer.optimizers[0].rule.total_steps == 24
    assert fit(max_epochs=-1, max_steps=7).optimizers[0].rule.total_steps == 7


def test_a_scheduler_is_said_once_and_changes_no_bit():
    with pytest.warns(ActiveLRWarning, match="a learning rate was set, by a scheduler") as said:
        trainer = fit(Module(lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)))
    assert len([warning for warning in said if warning.category is ActiveLRWarning]) == 1
    assert same_bits(trainer.lightning_module.network, fit().lightning_module.network)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_clip_val": 1.0}, r"gradient_clip_val=1.0\) shortens gradients"),
        ({"max_time": "00:00:01:00"}, r"max_time=...\) may end the run before its 24 steps"),
    ],
)
def test_an_argument_that_works_against_the_rule_is_said_once(options, message):
    with pytest.warns(ActiveLRWarning, match=message) as said:
        fit(**options)
    assert len([warning for warning in said if warning.category is ActiveLRWarning]) == 1


def test_the_paper_rule_ends_its_epochs_with_those_of_the_trainer():
    trainer = fit(Module(optimizer=ActiveSGD, rule="paper", lr=1e-3), max_epochs=3)
    assert trainer.optimizers[0].gain_stats()["max"] == pytest.approx(1.2)  # it grew at two ends; the first moves none


def test_the_callback_refuses_a_module_without_such_an_optimizer():
    class Plain(Module):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    with pytest.raises(ValueError, match="return active_optimizer"):
        fit(Plain())
