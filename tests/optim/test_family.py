"""Claims that hold for every member of the family; a new optimizer joins by one row in MEMBERS."""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from activelr_service.optim import ActiveAdamW, ActiveBelief, ActiveMuon, ActiveRAdam, ActiveSGD
from tests.optim import reference

SHAPES = [(4, 3), (5,), (2, 3, 2)]


@dataclass(frozen=True)
class Member:
    active: type
    options: dict[str, Any]
    direction: Any
    torch_optimizer: Any = None

    def build(self, params, **more):
        rule = more.pop("rule", "paper")
        options = self.options if rule == "paper" else {k: v for k, v in self.options.items() if k != "lr"}
        return self.active(params, **{**options, "rule": rule, **more})


MEMBERS = [
    Member(
        ActiveSGD,
        {"lr": 1e-2, "momentum": 0.9},
        lambda: reference.sgd(0.9),
        lambda params, wd: torch.optim.SGD(params, lr=1e-2, momentum=0.9),
    ),
    Member(
        ActiveAdamW,
        {"lr": 1e-3},
        reference.adam,
        lambda params, wd: torch.optim.AdamW(params, lr=1e-3, weight_decay=wd),
    ),
    Member(
        ActiveRAdam,
        {"lr": 1e-3},
        reference.radam,
        lambda params, wd: torch.optim.RAdam(params, lr=1e-3, weight_decay=wd, decoupled_weight_decay=True),
    ),
    Member(ActiveBelief, {"lr": 1e-3}, reference.adabelief),
    Member(ActiveMuon, {"lr": 1e-3}, reference.muon),
]
every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.active.__name__)


def make_params(seed=0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=rng).to(dtype)) for shape in SHAPES]


def set_grads(params, rng):
    for param in params:
        param.grad = torch.randn(param.shape, generator=rng).to(param.dtype)


def largest_difference(left, right):
    return max((a - b).abs().max().item() for a, b in zip(left, right, strict=True))


@every_member
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_matches_the_paper_oracle_over_six_epochs(member, weight_decay):
    params, twins = make_params(), make_params()
    optimizer = member.build(params, weight_decay=weight_decay)
    oracle = reference.ReferenceActive(twins, member.direction(), member.options["lr"], weight_decay)
    rng, twin_rng = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for _ in range(6):
        for _ in range(7):
            set_grads(params, rng)
            set_grads(twins, twin_rng)
            optimizer.step()
            oracle.step()
        optimizer.end_epoch()
        oracle.end_epoch()
    assert largest_difference(params, twins) < 1e-6
    for param, gain in zip(params, oracle.gains, strict=True):
        assert torch.equal(optimizer.state[param]["gain"], gain)
    assert len({round(gain.item(), 6) for gains in oracle.gains for gain in gains.view(-1)}) > 5


@pytest.mark.parametrize("member", [m for m in MEMBERS if m.torch_optimizer], ids=lambda m: m.active.__name__)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_with_the_rule_switched_off_it_is_the_torch_optimizer(member, weight_decay):
    if member.active is ActiveSGD:
        weight_decay = 0.0
    params, twins = make_params(), make_params()
    optimizer = member.build(params, weight_decay=weight_decay, gain_increment=0.0, gain_decay=1.0)
    torch_optimizer = member.torch_optimizer(twins, weight_decay)
    rng, twin_rng = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for _ in range(30):
        set_grads(params, rng)
        set_grads(twins, twin_rng)
        optimizer.step()
        torch_optimizer.step()
        optimizer.end_epoch()
    assert largest_difference(params, twins) < 1e-6


@every_member
def test_the_first_epoch_changes_no_gain_and_the_second_does(member):
    params = make_params()
    optimizer = member.build(params)
    rng = torch.Generator().manual_seed(1)
    for epoch in (1, 2):
        set_grads(params, rng)
        optimizer.step()
        optimizer.end_epoch()
        unchanged = all((optimizer.state[p]["gain"] == 1).all() for p in params)
        assert unchanged == (epoch == 1)


@every_member
def test_steps_per_epoch_equals_calling_end_epoch(member):
    params, twins = make_params(), make_params()
    automatic, manual = member.build(params, steps_per_epoch=3), member.build(twins)
    rng, twin_rng = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for step in range(12):
        set_grads(params, rng)
        set_grads(twins, twin_rng)
        automatic.step()
        manual.step()
        if step % 3 == 2:
            manual.end_epoch()
    for param, twin in zip(params, twins, strict=True):
        assert torch.equal(param, twin)
        assert torch.equal(automatic.state[param]["gain"], manual.state[twin]["gain"])


@every_member
def test_gradients_are_never_changed(member):
    params = make_params()
    optimizer = member.build(params, weight_decay=0.1, maximize=True)
    rng = torch.Generator().manual_seed(1)
    set_grads(params, rng)
    before = [param.grad.clone() for param in params]
    optimizer.step()
    optimizer.end_epoch()
    assert all(torch.equal(param.grad, grad) for param, grad in zip(params, before, strict=True))


@every_member
def test_maximize_mirrors_minimizing_the_negated_objective(member):
    params, twins = make_params(), make_params()
    up, down = member.build(params, maximize=True), member.build(twins)
    rng = torch.Generator().manual_seed(1)
    for _ in range(6):
        set_grads(params, rng)
        for param, twin in zip(params, twins, strict=True):
            twin.grad = -param.grad
        up.step()
        down.step()
        up.end_epoch()
        down.end_epoch()
    assert largest_difference(params, twins) == 0


@every_member
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stop_after", [4, 7, 9])
def test_state_dict_round_trip_continues_identically_across_an_epoch_end(member, dtype, stop_after):
    params = make_params(dtype=dtype)
    optimizer = member.build(params, steps_per_epoch=3)
    rng = torch.Generator().manual_seed(1)
    for _ in range(stop_after):
        set_grads(params, rng)
        optimizer.step()
    twins = [torch.nn.Parameter(param.detach().clone()) for param in params]
    restored = member.build(twins, steps_per_epoch=3)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(8):
        set_grads(params, rng)
        for param, twin in zip(params, twins, strict=True):
            twin.grad = param.grad.clone()
        optimizer.step()
        restored.step()
    for param, twin in zip(params, twins, strict=True):
        assert torch.equal(param, twin)
        for key, value in optimizer.state[param].items():
            assert restored.state[twin][key].dtype == value.dtype, key
            assert torch.equal(restored.state[twin][key], value), key
        for key in optimizer.rule.state_names:
            assert restored.state[twin][key].dtype == optimizer.rule.dtype_of(key, param)


@every_member
def test_groups_keep_their_own_learning_rate_and_gain_settings(member):
    params = make_params()
    groups = [{"params": params[:1], "lr": 0.0}, {"params": params[1:], "gain_decay": 0.5, "gain_increment": 0.0}]
    optimizer = member.build(groups)
    start = params[0].detach().clone()
    for sign in (1, -1):
        for param in params:
            param.grad = torch.full_like(param, float(sign))
        optimizer.step()
        optimizer.end_epoch()
    assert torch.equal(params[0], start)
    assert (optimizer.state[params[0]]["gain"] == torch.tensor(0.9)).all()
    assert (optimizer.state[params[1]]["gain"] == 0.5).all()


@every_member
def test_parameters_without_a_gradient_and_frozen_ones_are_left_alone(member):
    params = make_params()
    params[1].requires_grad_(False)
    optimizer = member.build(params)
    before = [param.detach().clone() for param in params]
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    optimizer.end_epoch(reduce=lambda flat: flat)
    assert not torch.equal(params[0], before[0])
    assert torch.equal(params[1], before[1])
    assert torch.equal(params[2], before[2])
    assert params[1] not in optimizer.state


@every_member
def test_a_closure_is_evaluated_with_gradients_on(member):
    params = make_params()
    optimizer = member.build(params)

    def closure():
        optimizer.zero_grad()
        loss = sum((param**2).sum() for param in params)
        loss.backward()
        return loss

    first = optimizer.step(closure)
    for _ in range(20):
        last = optimizer.step(closure)
    assert last.item() < first.item()


@every_member
def test_a_step_skipped_by_grad_scaler_adds_nothing_and_moves_no_boundary(member):
    params = make_params()
    optimizer = member.build(params, steps_per_epoch=2)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for is_bad in (False, True, False):
        optimizer.zero_grad()
        loss = sum((param**2).sum() for param in params) * (float("inf") if is_bad else 1.0)
        scaler.scale(loss).backward()
        before = [param.detach().clone() for param in params]
        scaler.step(optimizer)
        scaler.update()
        if is_bad:
            assert largest_difference(params, before) == 0
            assert optimizer.param_groups[0]["steps_since_epoch_end"] == 1
    assert all((optimizer.state[param]["prev_sign"].abs() <= 1).all() for param in params)
    assert optimizer.param_groups[0]["steps_since_epoch_end"] == 0


@every_member
def test_accumulated_micro_batches_count_as_one_step(member):
    rng = torch.Generator().manual_seed(1)
    inputs = torch.randn(8, 3, generator=rng)
    results = []
    for pieces in (1, 4):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = member.build([weight])
        for part in inputs.chunk(pieces):
            ((part @ weight).pow(2).mean() / pieces).backward()
        optimizer.step()
        results.append((weight.detach(), optimizer.state[weight]["grad_sum"]))
    torch.testing.assert_close(results[0], results[1])


@every_member
def test_sparse_and_complex_are_refused_with_one_clear_error(member):
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = member.build(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()
    with pytest.raises(ValueError, match="does not support complex parameters"):
        member.build([torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))])


@every_member
@pytest.mark.parametrize(
    ("option", "value"),
    [("lr", -1), ("weight_decay", -0.1), ("gain_increment", -0.1), ("gain_decay", 1.1), ("gain_decay", 0)],
)
def test_options_out_of_range_are_refused_with_their_value(member, option, value):
    with pytest.raises(ValueError, match=rf"{option} must .*{value}"):
        member.build(make_params(), **{option: value})


@every_member
def test_it_converges_and_is_deterministic(member):
    finals = []
    for _ in range(2):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        inputs = torch.randn(64, 4)
        targets = inputs.sum(1, keepdim=True)
        optimizer = member.build(model.parameters(), steps_per_epoch=4)
        losses = []
        for _ in range(200):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        finals.append(losses[-1])
        assert losses[-1] < 0.5 * losses[0]
    assert finals[0] == finals[1]


@every_member
def test_deepcopy_and_repr_work(member):
    params = make_params()
    optimizer = member.build(params, steps_per_epoch=2)
    set_grads(params, torch.Generator().manual_seed(1))
    optimizer.step()
    assert copy.deepcopy(optimizer).param_groups[0]["steps_since_epoch_end"] == 1
    assert "gain_decay: 0.9" in repr(optimizer)
