"""transformers' Trainer: its steps are the rule's, whatever its arguments, and what it logs is the effective rate."""

import math

import pytest
import torch
from transformers import Trainer, TrainingArguments

from activelr_service.integrations.trainer import ActiveLRCallback, active_optimizers
from activelr_service.optim import ActiveAdamW, ActiveLRWarning, ActiveSGD
from activelr_service.optim.stats import effective_lr
from tests.integrations.models import ROWS, Regression, same_bits

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


def make(folder, optimizers=active_optimizers, callbacks=None, **changes):
    """A Trainer of 24 steps on the small model."""
    model = Regression()
    options = {"per_device_train_batch_size": 8, "num_train_epochs": 4, "gradient_accumulation_steps": 2}
    options |= {"max_grad_norm": 0, "logging_steps": 1, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    args = TrainingArguments(
        output_dir=str(folder), save_strategy=changes.pop("save_strategy", "no"), **options | changes
    )
    callbacks = [ActiveLRCallback()] if callbacks is None else callbacks
    pair = optimizers(model)
    return Trainer(model, args, train_dataset=ROWS, eval_dataset=ROWS[:8], optimizers=pair, callbacks=callbacks)


def rates(trainer):
    return [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]


def test_the_logged_learning_rate_is_the_effective_one_and_no_flat_number(tmp_path):
    trainer = make(tmp_path)
    trainer.train()
    assert rates(trainer)[-1] == effective_lr(trainer.optimizer).item()
    stats = trainer.optimizer.optimizer.update_stats(trainer.model.named_parameters())
    assert rates(trainer)[-1] in [stats[name]["effective_lr"] for name in stats]
    assert len(set(rates(trainer))) == 24


def test_arguments_of_a_schedule_evaluation_and_saving_within_a_window_change_no_bit(tmp_path):
    schedule = {"learning_rate": 0.5, "lr_scheduler_type": "cosine", "warmup_steps": 7, "weight_decay": 0.3}
    breaks = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 5}
    plain, busy = make(tmp_path / "plain"), make(tmp_path / "busy", **schedule, **breaks)
    plain.train()
    with pytest.warns(ActiveLRWarning, match="no effect") as said:
        busy.train()
    assert same_bits(plain.model, busy.model)
    (message,) = [str(warning.message) for warning in said if warning.category is ActiveLRWarning]
    assert "learning_rate=0.5, lr_scheduler_type=cosine, warmup_steps=7, weight_decay=0.3" in message


def test_it_takes_the_steps_of_the_optimizer_in_a_plain_loop(tmp_path):
    trainer, model = make(tmp_path, train_sampling_strategy="sequential", gradient_accumulation_steps=1), Regression()
    trainer.train()
    optimizer = ActiveAdamW(model.parameters(), total_steps=48)
    for step in range(48):
        rows = ROWS[8 * (step % 12) : 8 * (step % 12 + 1)]
        batch = {name: torch.stack([row[name] for row in rows]) for name in ("inputs", "labels")}
        model(**batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert same_bits(trainer.model, model)


def test_bfloat16_trains_and_resumes_to_the_same_bits(tmp_path):
    def train(folder, **options):
        trainer = make(folder, bf16=True, save_strategy="steps", save_steps=9)
        trainer.train(**options)
        return trainer.model

    whole = train(tmp_path)
    assert same_bits(whole, train(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-9")))
    assert all(param.isfinite().all() for param in whole.parameters())


def test_the_paper_rule_ends_its_epochs_with_those_of_the_trainer(tmp_path):
    trainer = make(tmp_path, lambda model: active_optimizers(model, ActiveSGD, rule="paper", lr=1e-3))
    trainer.train()
    gains = trainer.optimizer.optimizer.gain_stats()
    assert 0.9**3 <= gains["min"] <= gains["max"] <= 1.3 + 1e-6  # three epoch ends after the first
    assert len(set(rates(trainer))) == 3  # the first end of an epoch moves no gain, the last comes after the last step


def test_a_second_training_begins_a_new_run_and_says_so(tmp_path):
    trainer = make(tmp_path)
    trainer.train()
    with pytest.warns(ActiveLRWarning, match="24 steps before it are forgotten"):
        trainer.train()
    assert trainer.optimizer.param_groups[0]["steps_done"] == 24
    assert min(rates(trainer)) > 0


def test_a_checkpoint_without_the_optimizer_says_so_and_decays_to_the_end(tmp_path):
    make(tmp_path, save_strategy="steps", save_steps=10, save_only_model=True).train()
    trainer = make(tmp_path)
    with pytest.warns(ActiveLRWarning, match="begin anew at step 10, with a warm-up over the 14 steps"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    assert (trainer.optimizer.param_groups[0]["steps_done"], trainer.optimizer.optimizer.rule.total_steps) == (14, 14)


def test_clipping_is_said_once(tmp_path):
    with pytest.warns(ActiveLRWarning, match=r"max_grad_norm=1.0\) shortens gradients.*give max_grad_norm=0") as said:
        make(tmp_path, max_grad_norm=1.0).train()
    assert len([warning for warning in said if warning.category is ActiveLRWarning]) == 1


@pytest.mark.parametrize("pair", [lambda model: (None, None), lambda model: (active_optimizers(model)[0], None)])
def test_another_optimizer_or_scheduler_is_refused(pair, tmp_path):
    with pytest.raises(ValueError, match=r"optimizers=active_optimizers\(model\)"):
        make(tmp_path, pair).train()


def test_deepspeed_is_refused(tmp_path):
    trainer = make(tmp_path)
    trainer.args.deepspeed = {"zero_optimization": {"stage": 1}}
    with pytest.raises(ValueError, match="DeepSpeed takes steps of its own; train with DDP"):
        ActiveLRCallback().on_train_begin(trainer.args, trainer.state, trainer.control, optimizer=trainer.optimizer)


def test_what_the_factory_does_not_take_is_refused():
    with pytest.raises(ValueError, match="leave total_steps out"):
        active_optimizers(Regression(), total_steps=10)
    with pytest.raises(ValueError, match=r'lr=0.1 has no effect under rule="robust"'):
        active_optimizers(Regression(), lr=0.1)
    with pytest.raises(ValueError, match="no parameter of Regression requires gradients"):
        active_optimizers(Regression().requires_grad_(False))


def test_without_the_callback_the_first_step_says_what_the_rule_needs(tmp_path):
    with pytest.raises(RuntimeError, match="needs total_steps"):
        make(tmp_path, callbacks=[]).train()


def test_max_steps_is_the_length_of_the_run_where_it_is_given(tmp_path):
    trainer = make(tmp_path, max_steps=5)
    trainer.train()
    assert trainer.optimizer.optimizer.rule.total_steps == 5
    assert math.isfinite(trainer.state.log_history[-1]["train_loss"])
