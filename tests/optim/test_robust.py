"""The robust rule: against an oracle written from its formulas, and what it promises."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from activelr_service.optim import ActiveAdamW, ActiveSGD, robust
from tests.optim.test_family import MEMBERS, make_params, set_grads

every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.active.__name__)


def rms(tensor):
    return tensor.pow(2).mean().sqrt().item()


class Oracle:
    """One tensor at a time, in plain numbers."""

    def __init__(self, params, direction, lr, total_steps):
        self.params, self.direction, self.lr, self.total = params, direction, lr, total_steps
        self.states = [{} for _ in params]
        self.gains, self.clips = [None] * len(params), [1.0] * len(params)
        self.sums, self.previous = [torch.zeros_like(p) for p in params], None
        self.t, self.window_end = 0, 2

    def step(self):
        self.t += 1
        done = self.t / self.total
        for i, p in enumerate(self.params):
            self.sums[i] += p.grad
            d = self.lr * self.direction(self.states[i], p.grad, self.t)
            size = max(rms(p), 0.01)
            if self.gains[i] is None:
                self.gains[i] = 0.003 * size / rms(d)
            self.clips[i] = min(1.0, 0.1 * min(1, done / 0.2) * size / (self.gains[i] * rms(d)))
            p.data -= (1 - done) * self.clips[i] * self.gains[i] * d
        if self.t >= self.window_end:
            self.end_window()

    def end_window(self):
        self.window_end = self.t + max(2, int(0.2 * self.t))
        if self.previous is not None:
            for i, (new, old) in enumerate(zip(self.sums, self.previous, strict=True)):
                cosine = functional.cosine_similarity(new.flatten(), old.flatten(), dim=0).item()
                self.gains[i] *= self.clips[i] * math.exp(cosine + 0.2)
        self.previous = [total.clone() for total in self.sums]
        for total in self.sums:
            total.zero_()


@every_member
def test_matches_the_oracle(member):
    params, twins = make_params(), make_params()
    optimizer = member.build(params, rule="robust", total_steps=40, weight_decay=0.0)
    oracle = Oracle(twins, member.direction(), member.options["lr"], 40)
    rng, twin_rng = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for _ in range(40):
        set_grads(params, rng)
        set_grads(twins, twin_rng)
        optimizer.step()
        oracle.step()
    for param, twin, gain in zip(params, twins, oracle.gains, strict=True):
        assert torch.allclose(param, twin, atol=1e-5)
        assert optimizer.state[param]["gain"].item() == pytest.approx(gain, rel=1e-4)


@every_member
def test_the_initial_learning_rate_cancels(member):
    finals = []
    for lr in (1e-6, 1e-3, 1e-1):
        params = make_params()
        optimizer = member.active(params, **{**member.options, "lr": lr}, rule="robust", total_steps=30)
        rng = torch.Generator().manual_seed(1)
        for _ in range(30):
            set_grads(params, rng)
            optimizer.step()
        finals.append(torch.cat([param.detach().flatten() for param in params]))
    assert torch.allclose(finals[0], finals[1], atol=1e-5)
    assert torch.allclose(finals[1], finals[2], atol=1e-5)


def test_a_window_lasts_two_steps_or_a_fifth_of_those_done():
    ends = [0]
    while ends[-1] < 100:
        ends.append(robust.next_window_end(ends[-1]))
    assert ends == [0, 2, 4, 6, 8, 10, 12, 14, 16, 19, 22, 26, 31, 37, 44, 52, 62, 74, 88, 105]


def test_agreement_grows_a_gain_and_disagreement_shrinks_it():
    one, total = torch.tensor(1.0), torch.randn(50)
    grown, agreement = robust.update_gain(one, one, total, 3 * total)
    assert (grown.item(), agreement.item()) == pytest.approx((math.exp(1.2), 1.0))
    assert robust.update_gain(one, one, total, -total)[0].item() == pytest.approx(math.exp(-0.8))
    assert robust.update_gain(one, torch.tensor(0.5), total, total)[0].item() == pytest.approx(0.5 * math.exp(1.2))


@pytest.mark.parametrize("total", [torch.zeros(5), torch.tensor([1.0, math.nan]), torch.full((2,), math.inf)])
def test_a_sum_that_says_nothing_moves_no_gain(total):
    gain, agreement = robust.update_gain(torch.tensor(2.0), torch.tensor(0.5), total, torch.ones_like(total))
    assert (gain.item(), agreement.item()) == (2.0, 0.0)


def test_no_step_is_larger_than_a_tenth_of_its_tensor():
    param = nn.Parameter(torch.randn(100, 10))
    optimizer = ActiveSGD([param], lr=1e3, rule="robust", total_steps=50)
    direction = torch.randn(100, 10)
    for _ in range(50):
        before = param.detach().clone()
        param.grad = direction.clone()  # agrees for ever
        optimizer.step()
        assert rms(param.detach() - before) <= 0.1 * rms(before) * 1.001


def test_a_parameter_that_gets_no_gradient_at_first_starts_when_it_does():
    params = [nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))]
    optimizer = ActiveAdamW(params, rule="robust", total_steps=20, weight_decay=0.0)
    for step in range(20):
        params[0].grad = torch.ones(4)
        params[1].grad = torch.zeros(4) if step < 5 else torch.ones(4)
        optimizer.step()
        assert (params[1] == 1).all().item() == (step < 5)
        assert all(param.isfinite().all() for param in params)


@every_member
def test_the_state_dict_continues_bit_for_bit(member):
    def run(optimizer, params, rng, steps):
        for _ in range(steps):
            set_grads(params, rng)
            optimizer.step()

    params = make_params()
    optimizer = member.build(params, rule="robust", total_steps=30)
    rng = torch.Generator().manual_seed(1)
    run(optimizer, params, rng, 13)
    twins = copy.deepcopy(params)
    restored = member.build(twins, rule="robust", total_steps=30)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    twin_rng = torch.Generator()
    twin_rng.set_state(rng.get_state())
    run(optimizer, params, rng, 17)
    run(restored, twins, twin_rng, 17)
    assert all(torch.equal(param, twin) for param, twin in zip(params, twins, strict=True))


def test_weight_decay_does_not_depend_on_the_learning_rate():
    finals = []
    for lr in (1e-5, 1e-1):
        param = nn.Parameter(torch.ones(10))
        optimizer = ActiveAdamW([param], lr=lr, weight_decay=0.1, rule="robust", total_steps=100)
        for _ in range(100):
            param.grad = torch.zeros(10)
            optimizer.step()
        finals.append(param.detach()[0].item())
    assert finals[0] == finals[1] < 1


def test_what_the_rule_needs_is_asked_for():
    param = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="rule must be one of paper, robust, got 'fast'"):
        ActiveSGD([param], rule="fast")
    with pytest.raises(ValueError, match="total_steps must be at least 1"):
        ActiveSGD([param], rule="robust", total_steps=0)
    param.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match="needs total_steps"):
        ActiveSGD([param], rule="robust").step()
