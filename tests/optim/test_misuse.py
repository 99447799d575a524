"""What has no effect is said once or refused, and torch's own states are taken over."""

import copy
import doctest
import inspect
import warnings

import pytest
import torch
from torch import nn

from activelr_service.optim import ActiveAdamW, ActiveLRWarning, ActiveSGD
from tests.optim.test_family import MEMBERS, make_params, set_grads

every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.active.__name__)


def take_steps(optimizer, count):
    """Steps on constant gradients; returns what was warned of, and from which file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(count):
            for group in optimizer.param_groups:
                for param in group["params"]:
                    param.grad = torch.ones_like(param)
            optimizer.step()
    return [(str(one.message), one.category, one.filename) for one in caught]


@every_member
@pytest.mark.parametrize(
    ("rule", "option"),
    [
        ("robust", {"lr": 0.1}),
        ("robust", {"gain_increment": 0.1}),
        ("robust", {"gain_decay": 0.9}),
        ("robust", {"hold_on_zero": False}),
        ("robust", {"steps_per_epoch": 5}),
        ("paper", {"total_steps": 5}),
    ],
)
def test_an_option_of_the_other_rule_is_refused_with_its_value(member, rule, option):
    (name, value), other = *option.items(), {"robust": "paper", "paper": "robust"}[rule]
    with pytest.raises(ValueError, match=f'{name}={value} has no effect under rule="{rule}"; .*rule="{other}"'):
        member.active(make_params(), rule=rule, **option)


def test_a_parameter_group_with_a_learning_rate_of_its_own_is_refused_under_the_robust_rule():
    with pytest.raises(ValueError, match=r'ActiveSGD: lr=0.01 has no effect under rule="robust"'):
        ActiveSGD([{"params": make_params(), "lr": 0.01}], total_steps=5)


def test_steps_past_the_end_of_the_run_are_said_once_at_the_line_that_takes_them():
    optimizer = ActiveAdamW(make_params(), total_steps=5)
    assert take_steps(optimizer, 5) == []
    ((message, category, filename),) = take_steps(optimizer, 5)
    assert message.startswith("step 6 of a run of total_steps=5")
    assert (category, filename) == (ActiveLRWarning, __file__)


def test_a_long_time_without_the_end_of_an_epoch_is_said_once_unless_a_number_of_steps_ends_it():
    param = [nn.Parameter(torch.ones(2))]
    ((message, _, _),) = take_steps(ActiveSGD(param, rule="paper"), 2100)
    assert message.startswith("2000 steps without the end of an epoch")
    assert take_steps(ActiveSGD(param, rule="paper", steps_per_epoch=100), 2100) == []


def test_the_end_of_an_epoch_is_nothing_to_the_robust_rule_and_it_says_so_once():
    optimizer = ActiveAdamW(make_params(), total_steps=9)
    take_steps(optimizer, 1)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.warns(ActiveLRWarning, match="does nothing under the robust rule"):
        optimizer.end_epoch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.end_epoch()
    assert str(optimizer.state_dict()) == str(before)


def test_a_scheduler_of_a_learning_rate_that_has_no_effect_is_said_once():
    optimizer = ActiveAdamW(make_params(), total_steps=9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    said = []
    for _ in range(3):
        said += take_steps(optimizer, 1)
        scheduler.step()
    ((message, category, _),) = said
    assert category is ActiveLRWarning
    assert "no effect under the robust rule" in message


def test_a_scheduler_is_welcome_under_the_paper_s_rule():
    optimizer = ActiveAdamW(make_params(), rule="paper", steps_per_epoch=2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    assert take_steps(optimizer, 1) == []
    scheduler.step()
    assert take_steps(optimizer, 1) == []
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)


TORCH = [
    (ActiveAdamW, lambda params: torch.optim.AdamW(params, amsgrad=True), "exp_avg"),
    (ActiveSGD, lambda params: torch.optim.SGD(params, momentum=0.9), "momentum_buffer"),
]


@pytest.mark.parametrize("rule", ["paper", "robust"])
@pytest.mark.parametrize(("active", "build", "moment"), TORCH, ids=["AdamW", "SGD"])
def test_a_state_of_torch_s_own_optimizer_goes_on_with_its_moments_and_the_gains_begin(active, build, moment, rule):
    params = make_params()
    source = build(params)
    rng = torch.Generator().manual_seed(1)
    for _ in range(3):
        set_grads(params, rng)
        source.step()
    options = {"total_steps": 20} if rule == "robust" else {}
    optimizer = active(params, rule=rule, **options)
    optimizer.load_state_dict(source.state_dict())
    for param in params:
        assert torch.equal(optimizer.state[param][moment], source.state[param][moment])
    take_steps(optimizer, 2)
    assert all("gain" in optimizer.state[param] for param in params)
    assert active is ActiveSGD or all(optimizer.state[param]["step"] == 5 for param in params)
    assert take_steps(optimizer, 1) == []


def test_a_state_of_another_kind_of_optimizer_is_refused_in_a_sentence():
    params = make_params()
    source = torch.optim.AdamW(params)
    set_grads(params, torch.Generator().manual_seed(1))
    source.step()
    with pytest.raises(ValueError, match="another kind of optimizer than ActiveSGD: it has exp_avg, exp_avg_sq, step"):
        ActiveSGD(params, total_steps=5).load_state_dict(source.state_dict())


def test_ranks_that_forget_to_end_a_step_together_are_stopped():
    optimizer = ActiveAdamW(make_params(), total_steps=9)
    optimizer.has_trainer = True  # as with several ranks: step() leaves the end of sums to end_step()
    take_steps(optimizer, 2)
    with pytest.raises(RuntimeError, match=r"call optimizer.end_step\(reduce=...\) after every step"):
        take_steps(optimizer, 1)
    optimizer.end_step(reduce=lambda flat: flat)
    take_steps(optimizer, 1)


@every_member
def test_the_help_documents_every_argument_and_its_example_runs(member):
    text = member.active.__doc__
    for name in inspect.signature(member.active).parameters:
        assert f"        {name} (" in text, name
    (example,) = doctest.DocTestFinder(recurse=False).find(member.active, globs={"torch": torch, "nn": nn})
    example.globs[member.active.__name__] = member.active
    assert len(example.examples) == 3
    assert doctest.DocTestRunner().run(example).failed == 0
