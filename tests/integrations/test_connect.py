"""What is around each step, whoever calls it: a scaler, a scheduler, a loaded state, a copy."""

import copy
import warnings

import pytest
import torch

from activelr_service.integrations.connect import build, trainable
from activelr_service.optim import ActiveAdamW, ActiveLRWarning, ActiveMuon
from activelr_service.optim.stats import effective_lr
from tests.integrations.models import INPUTS, TARGETS, make_network, same_bits


def make(**options):
    network = make_network()
    return network, *build(network.parameters(), total_steps=20, **options)


def step(network, optimizer):
    torch.nn.functional.mse_loss(network(INPUTS), TARGETS).backward()
    optimizer.step()
    optimizer.zero_grad()


def test_a_step_that_the_scaler_skips_counts_no_step_and_shows_no_other_rate():
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer

    Accelerator(cpu=True)
    network, optimizer, hooks = make()
    scaler = torch.amp.GradScaler("cpu")
    wrapped = AcceleratedOptimizer(optimizer, scaler=scaler)  # as the Trainer has it under fp16
    for scale in (1.0, 1.0, torch.inf, 1.0):
        before = (optimizer.param_groups[0]["steps_done"], hooks.lr.item())
        scaler.scale(scale * torch.nn.functional.mse_loss(network(INPUTS), TARGETS)).backward()
        wrapped.step()
        wrapped.zero_grad()
        assert wrapped.step_was_skipped == (scale == torch.inf)
        assert ((optimizer.param_groups[0]["steps_done"], hooks.lr.item()) == before) == wrapped.step_was_skipped
    assert optimizer.param_groups[0]["steps_done"] == 3


def test_what_is_shown_changes_no_bit_of_the_steps_and_raises_no_warning():
    network, optimizer, _ = make()
    other = make_network()
    plain = ActiveAdamW(other.parameters(), total_steps=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            step(network, optimizer)
            step(other, plain)
    assert same_bits(network, other)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(
    "scheduler", [torch.optim.lr_scheduler.ExponentialLR, torch.optim.lr_scheduler.CosineAnnealingLR]
)
def test_a_scheduler_is_said_once_and_does_not_stay_in_what_is_shown(scheduler, as_tensor):
    network, optimizer, hooks = make()
    schedule = scheduler(optimizer, 0.5 if scheduler is torch.optim.lr_scheduler.ExponentialLR else 9)
    step(network, optimizer)
    if as_tensor:  # as of parameters on a GPU: torch's schedulers overwrite it in place
        hooks._shown = optimizer.param_groups[0]["lr"] = hooks.lr.clone()
    schedule.step()
    with pytest.warns(ActiveLRWarning, match="a learning rate was set, by a scheduler") as said:
        step(network, optimizer)
    assert len(said) == 1
    assert optimizer.param_groups[0]["lr"] == effective_lr(optimizer).item() > 0


def test_a_loaded_state_shows_its_rate_and_a_copy_takes_the_same_steps():
    network, optimizer, _ = make()
    for _ in range(7):
        step(network, optimizer)
    shown = optimizer.param_groups[0]["lr"]
    other, loaded, hooks = make()
    other.load_state_dict(network.state_dict())
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert loaded.param_groups[0]["lr"] == hooks.lr.item() == shown
    network_copy, optimizer_copy = copy.deepcopy((network, optimizer))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pair in ((network, optimizer), (other, loaded), (network_copy, optimizer_copy)):
            step(*pair)
    assert same_bits(network, other)
    assert same_bits(network, network_copy)


def test_the_median_is_over_the_tensors_that_have_taken_the_step():
    network, optimizer, hooks = make()
    network[2].weight.requires_grad_(False)
    step(network, optimizer)
    rates = sorted(state["effective_lr"].item() for state in optimizer.state.values())
    assert len(rates) == 3
    assert hooks.lr.item() == rates[1]


def test_a_trainer_gives_muon_the_tables_of_embeddings_in_a_group_of_their_own_and_leaves_out_what_is_frozen():
    model = torch.nn.Sequential(torch.nn.Embedding(5, 8), make_network())
    model[1][0].requires_grad_(False)
    others, tables = build(trainable(model, ActiveMuon), ActiveMuon, total_steps=9)[0].param_groups
    assert [id(param) for param in others["params"]] == [id(param) for param in model[1][2].parameters()]
    assert tables["params"] == [model[0].weight]
    assert tables["orthogonalize"] is False
