"""timm: the names make our optimizers, and what timm adds to a call without effect is said."""

import warnings
from argparse import Namespace

import pytest
import torch
from timm.optim import create_optimizer_v2, list_optimizers, optimizer_kwargs
from timm.scheduler import CosineLRScheduler

from activelr_service import optim
from activelr_service.integrations.timm import NAMES, register
from activelr_service.optim import ActiveLRWarning
from activelr_service.optim.stats import effective_lr
from tests.integrations.models import INPUTS, TARGETS, make_network

register()


def step(network, optimizer):
    torch.nn.functional.mse_loss(network(INPUTS), TARGETS).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_the_registry_makes_the_optimizer(name):
    register()
    network = make_network()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = create_optimizer_v2(network, opt=name, weight_decay=0.05, momentum=0.8, total_steps=9)
        step(network, optimizer)
    assert name in list_optimizers()
    assert type(optimizer) is NAMES[name]
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.05]
    assert optimizer.param_groups[0].get("momentum", 0.8) == 0.8


def test_the_parameter_groups_show_the_effective_learning_rate():
    network = make_network()
    optimizer = create_optimizer_v2(network, opt="activeadamw", total_steps=9)
    for _ in range(9):
        step(network, optimizer)
        assert {group["lr"] for group in optimizer.param_groups} == {effective_lr(optimizer).item()}


def test_a_learning_rate_is_left_out_with_a_warning():
    with pytest.warns(ActiveLRWarning, match="lr=0.1 has no effect under the robust rule"):
        optimizer = create_optimizer_v2(make_network(), opt="activeadamw", lr=0.1, total_steps=9)
    assert optimizer.param_groups[0]["lr"] == 0  # there was no step yet
    paper = create_optimizer_v2(make_network(), opt="activesgd", lr=0.1, rule="paper")
    assert isinstance(paper, optim.ActiveSGD)
    assert paper.param_groups[0]["lr"] == 0.1


def test_the_arguments_of_a_script_of_timm_make_the_optimizer():
    args = Namespace(
        opt="activeadamw", lr=0.1, weight_decay=0.05, momentum=0.9, opt_eps=1e-7, opt_betas=None, opt_args={}
    )
    with pytest.warns(ActiveLRWarning, match="lr=0.1 has no effect"):
        optimizer = create_optimizer_v2(make_network(), **optimizer_kwargs(args), total_steps=9)
    assert (optimizer.param_groups[0]["eps"], optimizer.rule.total_steps) == (1e-7, 9)


def test_a_decay_over_layers_is_left_out_with_a_warning():
    groups = [{"params": list(make_network().parameters()), "lr_scale": 0.5}]
    with pytest.warns(ActiveLRWarning, match="layer_decay has no effect"):
        create_optimizer_v2(groups, opt="activeadamw", total_steps=9)


def test_a_scheduler_of_timm_is_said_once_and_shows_no_rate_of_its_own():
    network = make_network()
    optimizer = create_optimizer_v2(network, opt="activeadamw", total_steps=9)
    scheduler = CosineLRScheduler(optimizer, t_initial=9, t_in_epochs=False)
    step(network, optimizer)
    scheduler.step_update(1)
    with pytest.warns(ActiveLRWarning, match="a learning rate was set, by a scheduler") as said:
        step(network, optimizer)
    assert len(said) == 1
    assert optimizer.param_groups[0]["lr"] == effective_lr(optimizer).item()
    scheduler.step_update(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(network, optimizer)
