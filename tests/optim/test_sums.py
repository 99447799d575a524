"""Gradient sums in bfloat16: half the memory, and the same decisions."""

import copy

import pytest
import torch

from activelr_service.optim import ActiveAdamW, ActiveSGD, RobustConstants
from activelr_service.optim.sums import add_to_sums, reduce_flat


def test_small_gradients_are_not_lost_beside_a_large_sum():
    total, plain = (torch.ones(2_000, dtype=torch.bfloat16) for _ in range(2))
    grad = torch.linspace(-2e-3, 2e-3, 2_000)
    for step in range(1_000):
        add_to_sums([total], [grad], step)
        plain += grad
    exact = 1 + 1_000 * grad
    last_place = 2**-7 * exact.abs().clamp_min(1)
    assert (plain.float() - exact).abs().max() > 0.9  # rounded to the nearest, a sum stays where it is
    assert ((total.float() - exact).abs() / last_place).max() < 3
    assert (total.float() - exact).mean().abs() < 1e-3


def test_what_is_not_finite_stays_so():
    total = torch.zeros(1_024, dtype=torch.bfloat16)
    grad = torch.zeros(1_024)
    grad[:3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    for step in range(5):
        add_to_sums([total], [grad], step)
    assert total[0].isnan()
    assert total[1:3].tolist() == [float("inf"), -float("inf")]
    assert torch.equal(total[3:], torch.zeros_like(total[3:]))


@pytest.mark.parametrize(("active", "most"), [(ActiveAdamW, 12.1), (ActiveSGD, 4.1)])
def test_the_state_of_a_large_tensor_has_so_many_bytes_for_each_parameter(active, most):
    param = torch.nn.Parameter(torch.randn(100, 100))
    optimizer = active([param], total_steps=100)
    for _ in range(5):
        param.grad = torch.randn(100, 100)
        optimizer.step()
    assert sum(value.nbytes for value in optimizer.state[param].values()) <= most * param.numel()


def test_gains_follow_those_of_sums_in_float32():
    gains = []
    for bfloat16_sums_from in (1, 10**9):
        params = [torch.nn.Parameter(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))]
        constants = RobustConstants(bfloat16_sums_from=bfloat16_sums_from)
        optimizer = ActiveAdamW(params, total_steps=300, constants=constants)
        rng = torch.Generator().manual_seed(1)
        for _ in range(300):
            params[0].grad = params[0].detach() + torch.randn(64, 64, generator=rng)
            optimizer.step()
        gains.append(optimizer.state[params[0]]["gain"].item())
    assert gains[0] == pytest.approx(gains[1], rel=0.02)


def test_the_state_of_an_older_version_with_sums_in_float32_continues_in_bfloat16():
    param = torch.nn.Parameter(torch.randn(2_000))
    optimizer = ActiveAdamW([param], total_steps=100)
    for _ in range(7):
        param.grad = torch.randn(2_000)
        optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    old = saved["state"][0]
    old.update({name: old[name].float() for name in ("grad_sum", "prev_grad_sum")})
    del old["last_rms"]  # it did not keep this either
    restored = ActiveAdamW([param], total_steps=100)
    restored.load_state_dict(saved)
    state = restored.state[param]
    assert torch.equal(state["grad_sum"], optimizer.state[param]["grad_sum"])
    assert state["grad_sum"].dtype is state["prev_grad_sum"].dtype is torch.bfloat16
    param.grad = torch.randn(2_000)
    restored.step()
    assert restored.state[param]["last_rms"] > 0


def test_sums_of_both_dtypes_travel_as_one_float32_tensor_and_come_back():
    sums = [torch.full((2_000,), 3.0, dtype=torch.bfloat16), torch.full((3,), 5.0)]
    seen = []

    def reduce(flat):
        seen.append((flat.dtype, flat.shape))
        return flat / 2

    reduce_flat(sums, reduce)
    assert seen == [(torch.float32, (2_003,))]
    assert torch.equal(sums[0], torch.full((2_000,), 1.5, dtype=torch.bfloat16))
    assert torch.equal(sums[1], torch.full((3,), 2.5))
