"""The paper's rule, case by case, and what is reported of it."""

import pytest
import torch

from activelr_service.optim import ActiveAdamW, ActiveSGD
from activelr_service.optim.paper_rule import signs_of, update_gain

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("grad_sum", "prev_grad_sum", "expected"),
    [
        (2.0, 3.0, 1.1),
        (-2.0, -3.0, 1.1),
        (2.0, -3.0, 0.9),
        (-2.0, 3.0, 0.9),
        (0.0, 3.0, 0.9),
        (2.0, 0.0, 0.9),
        (0.0, 0.0, 0.9),
        (1e-30, 1e-30, 1.1),
        (1e30, -1e30, 0.9),
        (NAN, 1.0, 1.0),
        (1.0, INF, 1.0),
    ],
)
def test_a_gain_grows_where_the_sign_stays_and_shrinks_where_it_changes(grad_sum, prev_grad_sum, expected):
    gain, grew, non_finite = update_gain(
        torch.ones(1), torch.tensor([grad_sum]), signs_of(torch.tensor([prev_grad_sum]))
    )
    assert gain == torch.tensor([expected])
    assert grew.item() == (expected > 1)
    assert non_finite.item() == (expected == 1.0)


def test_hold_on_zero_leaves_the_gain_of_a_zero_product():
    update = update_gain(
        torch.ones(3), torch.tensor([0.0, 1.0, 1.0]), signs_of(torch.tensor([1.0, 1.0, -1.0])), hold_on_zero=True
    )
    assert torch.equal(update.gain, torch.tensor([1.0, 1.1, 0.9]))


def test_the_new_gain_acts_from_the_next_step():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = ActiveSGD([weight], rule="paper", lr=1.0)
    moves = []
    for _ in range(3):
        before = weight.item()
        weight.grad = torch.ones(1)
        optimizer.step()
        moves.append(round(before - weight.item(), 5))
        optimizer.end_epoch()
    assert moves == [1.0, 1.0, 1.1]


def test_a_sum_that_is_not_finite_is_counted_and_spoils_two_epoch_ends_only():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = ActiveSGD([weight], rule="paper", lr=0.0)
    seen = []
    for bad in (False, True, False, False):
        weight.grad = torch.tensor([1.0, NAN if bad else 1.0])
        optimizer.step()
        optimizer.end_epoch()
        seen.append(optimizer.gain_stats()["non_finite"])
    assert seen == [0, 1, 1, 0]
    torch.testing.assert_close(optimizer.state[weight]["gain"], torch.tensor([1.3, 1.1]))


def test_reduce_sees_one_flat_float32_tensor_and_may_replace_it_or_work_in_place():
    shapes = []
    gains = []
    for in_place in (True, False):
        params = [torch.nn.Parameter(torch.zeros(2, 3, dtype=torch.bfloat16)), torch.nn.Parameter(torch.zeros(4))]
        optimizer = ActiveSGD(params, rule="paper", lr=0.1)

        def negate(flat, in_place=in_place):
            shapes.append((tuple(flat.shape), flat.dtype))
            if not in_place:
                return -flat
            flat.neg_()
            return None

        for reduce in (None, negate):
            for param in params:
                param.grad = torch.ones_like(param)
            optimizer.step()
            optimizer.end_epoch(reduce)
        gains.append([optimizer.state[param]["gain"].unique().item() for param in params])
    assert shapes == [((10,), torch.float32)] * 2
    assert gains == [[pytest.approx(0.9)] * 2] * 2


def test_gain_stats_agree_with_the_gains_overall_and_per_named_tensor():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = ActiveAdamW(model.parameters(), rule="paper", steps_per_epoch=1)
    assert optimizer.gain_stats() == {}
    rng = torch.Generator().manual_seed(0)
    for _ in range(5):
        for param in model.parameters():
            param.grad = torch.randn(param.shape, generator=rng)
        before = [optimizer.state[p]["gain"].clone() if p in optimizer.state else None for p in model.parameters()]
        optimizer.step()
    stats = optimizer.gain_stats(model.named_parameters())
    gains = torch.cat([optimizer.state[param]["gain"].view(-1) for param in model.parameters()])
    grew = torch.cat(
        [(optimizer.state[p]["gain"] > b).view(-1) for p, b in zip(model.parameters(), before, strict=True)]
    )
    assert stats["mean"] == pytest.approx(gains.mean().item())
    assert (stats["min"], stats["max"]) == (gains.min().item(), gains.max().item())
    assert stats["q50"] == pytest.approx(gains.quantile(0.5, interpolation="nearest").item())
    assert stats["share_grew"] == pytest.approx(grew.float().mean().item())
    assert list(stats["per_tensor"]) == [name for name, _ in model.named_parameters()]
    first = optimizer.state[model[0].weight]["gain"]
    assert stats["per_tensor"]["0.weight"]["mean"] == pytest.approx(first.mean().item())


def test_the_histogram_counts_every_gain_once_and_clips_at_the_ends():
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = ActiveSGD([weight], rule="paper")
    weight.grad = torch.ones(4)
    optimizer.step()
    optimizer.state[weight]["gain"].copy_(torch.tensor([0.0, 0.6, 1.5, 9.0]))
    assert optimizer.gain_histogram([0.5, 1.0, 2.0]) == [2, 2]


def test_step_waits_for_no_host_read_of_a_parameter_sized_tensor(monkeypatch):
    params = [torch.nn.Parameter(torch.randn(8, 8)) for _ in range(3)]
    optimizer = ActiveAdamW(params, rule="paper", steps_per_epoch=2)
    reads = []
    original = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda self: reads.append(self) or original(self))
    for _ in range(4):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
    steps = {id(optimizer.state[param]["step"]) for param in params}
    assert {id(tensor) for tensor in reads} <= steps, "only torch's step counters, which live on the CPU, are read"


def test_a_state_of_an_older_version_that_kept_sums_instead_of_signs_continues():
    weight, twin = (torch.nn.Parameter(torch.zeros(4)) for _ in range(2))
    optimizer, restored = (ActiveSGD([param], rule="paper", lr=0.1) for param in (weight, twin))
    for sums in ([1.0, -1.0, 0.0, NAN], [1.0, 1.0, 1.0, 1.0]):
        weight.grad = torch.tensor(sums)
        optimizer.step()
        optimizer.end_epoch()
        if sums[1] == -1.0:
            saved = optimizer.state_dict()
            saved["state"][0] = {**saved["state"][0], "prev_grad_sum": weight.grad.clone()}
            del saved["state"][0]["prev_sign"]
            restored.load_state_dict(saved)
            twin.data.copy_(weight.data)
    assert "prev_grad_sum" not in restored.state[twin]
    twin.grad = torch.ones(4)
    restored.step()
    restored.end_epoch()
    assert torch.equal(restored.state[twin]["gain"], torch.tensor([1.1, 0.9, 0.9, 1.0]))
    assert torch.equal(restored.state[twin]["gain"], optimizer.state[weight]["gain"])
