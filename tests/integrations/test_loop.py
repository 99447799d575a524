"""The plain loop: its steps, its remainders, and where it goes on."""

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from activelr_service.integrations.loop import ActiveLoop
from activelr_service.optim import ActiveAdamW, ActiveSGD
from activelr_service.optim.stats import effective_lr
from tests.integrations.models import DATASET, make_network, same_bits


def make(generator=None, epochs=3, **options):
    """A network with dropout and its loop: epochs of 7 batches, whose order is random."""
    network = torch.nn.Sequential(torch.nn.Dropout(0.2), make_network())
    torch.manual_seed(5)
    loader = DataLoader(DATASET, batch_size=15, shuffle=True, generator=generator)
    return network, ActiveLoop(network, loader, epochs, **options)


def train(network, loop, until=10**9):
    for inputs, targets in loop:
        if loop.step(torch.nn.functional.mse_loss(network(inputs), targets)) and loop.steps_done == until:
            break
    return network


@pytest.mark.parametrize("has_generator", [False, True])
@pytest.mark.parametrize(
    "until", [1, 4, 6, 8]
)  # within an epoch of 4 steps, at its end, within the next, at the end of it
def test_a_run_goes_on_to_the_same_bits_wherever_it_was_saved(until, has_generator, tmp_path):
    def generator():
        return torch.Generator().manual_seed(3) if has_generator else None

    whole = train(*make(generator(), accumulate=2))
    network, loop = make(generator(), accumulate=2)
    train(network, loop, until)
    torch.save({"model": network.state_dict(), "loop": loop.state_dict()}, tmp_path / "saved")
    network, loop = make(generator(), accumulate=2)
    torch.manual_seed(99)
    saved = torch.load(tmp_path / "saved")  # weights only: no code of ours is in the file
    network.load_state_dict(saved["model"])
    loop.load_state_dict(saved["loop"])
    assert loop.steps_done == until
    assert same_bits(whole, train(network, loop))
    assert loop.steps_done == loop.total_steps == 12


def test_the_last_step_of_an_epoch_takes_the_mean_of_what_is_left():
    loader = DataLoader(DATASET, batch_size=32)  # three batches: a step of two, and one of one
    mine, other = make_network(), make_network()
    train(mine, ActiveLoop(mine, loader, 1, ActiveSGD, accumulate=2, momentum=0.9))
    optimizer = ActiveSGD(other.parameters(), momentum=0.9, total_steps=2)
    inputs, targets = DATASET.tensors
    for rows in (slice(0, 64), slice(64, 96)):
        torch.nn.functional.mse_loss(other(inputs[rows]), targets[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    for one, two in zip(mine.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_is_the_effective_one():
    network, loop = make()
    assert loop.lr == 0
    train(network, loop)
    assert loop.lr == effective_lr(loop.optimizer).item() > 0


def test_the_paper_rule_ends_its_epochs():
    network, loop = make(optimizer=ActiveAdamW, rule="paper", lr=1e-3)
    train(network, loop)
    assert loop.optimizer.gain_stats()["share_grew"] > 0
    assert loop.optimizer.steps_in_sum() == 0


def test_misuse_is_refused_with_a_remedy():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(DATASET)

    with pytest.raises(ValueError, match="no length, so the number of steps is unknown"):
        ActiveLoop(make_network(), DataLoader(Stream()), 3)
    with pytest.raises(ValueError, match="accumulate must be at least 1, got 0"):
        make(accumulate=0)
    with pytest.raises(RuntimeError, match="once for each batch"):
        list(make()[1])
    network, loop = make(accumulate=2)
    loop.step(network(torch.ones(1, 8)).sum())
    with pytest.raises(RuntimeError, match="half a gradient: save where"):
        loop.state_dict()
