"""The robust rule: against an oracle written from its formulas, and what it promises."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from activelr_service.optim import (
    ActiveAdamW,
    ActiveBelief,
    ActiveRAdam,
    ActiveSGD,
    RobustConstants,
    robust_formulas,
    robust_rule,
)
from tests.optim.test_family import MEMBERS, make_params, set_grads

every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.active.__name__)


def rms(tensor):
    return tensor.pow(2).mean().sqrt().item()


class Oracle:
    """One tensor at a time, in plain numbers, from the formulas of the rule."""

    def __init__(self, params, direction, first_step, total_steps, weight_decay, rectified_at, hold):
        self.weight_decay, self.hold = weight_decay, hold
        self.last, self.held_steps = [0.0] * len(params), 0
        self.rectified_at = rectified_at
        self.params, self.direction, self.total = params, direction, total_steps
        self.states = [{} for _ in params]
        self.gains, self.clips, self.lengths = [first_step] * len(params), [1.0] * len(params), [0.0] * len(params)
        self.sizes = [self.size(p) for p in params]
        self.sums, self.previous = [torch.zeros_like(p) for p in params], None
        self.t, self.window_begin, self.window_end = 0, 0, 2

    @staticmethod
    def size(param):
        if param.dim() < 2:
            return max(rms(param), 0.1)
        return max(rms(param), 1 / math.sqrt(max(param.shape[:2]) * math.prod(param.shape[2:])))

    def step(self):
        decay = (1 - self.t / self.total) ** min(1, self.total / 400)
        self.t += 1
        cap = 0.1 * max(1, 400 / self.total) ** 0.3 * min(1, self.t / self.total / 0.2)
        for i, p in enumerate(self.params):
            self.sums[i] += p.grad
            d = self.direction(self.states[i], p.grad, self.t)
            if self.t == self.rectified_at:
                self.lengths[i] = self.last[i] = 0.0
            if p.dim() > 1:
                p.data *= 1 - self.weight_decay * 0.1 * (1 - self.t / self.total)
            held = self.rate(i, self.last[i], cap, decay)[0] if self.hold and self.last[i] else 0.0
            rate, self.lengths[i], self.clips[i] = self.rate(i, rms(d), cap, decay)
            self.last[i] = rms(d)
            if abs(held - rate) <= self.hold * rate:
                rate, self.held_steps = held, self.held_steps + 1
            p.data -= rate * d
        if self.t >= self.window_end:
            self.end_window()

    def rate(self, i, size, cap, decay):
        length = max(size, 0.99 * self.lengths[i] + 0.01 * size)
        clip = min(1.0, cap * length / (self.gains[i] * size))
        return decay * clip * self.gains[i] * self.sizes[i] / length, length, clip

    def end_window(self):
        length = self.t - self.window_begin
        speed, set_point = min(1, length / 20), -0.2 * min(1, 20 / length)
        self.window_begin, self.window_end = self.t, self.t + max(2, int(0.2 * self.t))
        if self.previous is not None:
            for i, (new, old) in enumerate(zip(self.sums, self.previous, strict=True)):
                cosine = functional.cosine_similarity(new.flatten(), old.flatten(), dim=0).item()
                self.gains[i] *= self.clips[i] * math.exp(speed * (cosine - set_point))
        self.previous = [total.clone() for total in self.sums]
        for total in self.sums:
            total.zero_()


@every_member
def test_matches_the_oracle(member):
    params, twins = make_params(), make_params()
    optimizer = member.build(params, rule="robust", total_steps=140, weight_decay=0.1)
    rectified_at = 6 if member.active in (ActiveRAdam, ActiveBelief) else None
    hold = 0.03 if member.active.is_normalized else 0.0
    oracle = Oracle(twins, member.direction(), member.active.initial_update_ratio, 140, 0.1, rectified_at, hold)
    rng, twin_rng = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for _ in range(140):
        set_grads(params, rng)
        set_grads(twins, twin_rng)
        optimizer.step()
        oracle.step()
    for param, twin, gain in zip(params, twins, oracle.gains, strict=True):
        assert torch.allclose(param, twin, atol=1e-5)
        assert optimizer.state[param]["gain"].item() == pytest.approx(gain, rel=1e-4)
    if hold:
        assert 100 < oracle.held_steps < 140 * len(params)


@every_member
def test_the_scale_of_the_loss_cancels(member):
    finals = []
    for scale in (1e-2, 1.0, 1e4):
        params = make_params()
        optimizer = member.build(params, rule="robust", total_steps=60)
        rng = torch.Generator().manual_seed(1)
        for _ in range(60):
            set_grads(params, rng)
            for param in params:
                param.grad *= scale
            optimizer.step()
        finals.append(torch.cat([param.detach().flatten() for param in params]))
    assert torch.allclose(finals[0], finals[1], rtol=1e-2, atol=1e-4)
    assert torch.allclose(finals[1], finals[2], rtol=1e-2, atol=1e-4)


def test_a_window_lasts_two_steps_or_a_fifth_of_those_done():
    ends = [0]
    while ends[-1] < 100:
        ends.append(robust_formulas.next_window_end(ends[-1], RobustConstants()))
    assert ends == [0, 2, 4, 6, 8, 10, 12, 14, 16, 19, 22, 26, 31, 37, 44, 52, 62, 74, 88, 105]


def updated(gain, clip, total, prev, window=20, **constants):
    agreed = robust_formulas.agreement_of(total, prev)
    return robust_formulas.update_gain(
        torch.tensor(gain), torch.tensor(clip), agreed, window, RobustConstants(**constants)
    ).item()


def test_agreement_grows_a_gain_and_disagreement_shrinks_it():
    total = torch.randn(50)
    assert updated(1.0, 1.0, total, 3 * total) == pytest.approx(math.exp(1.2))
    assert updated(1.0, 1.0, total, -total) == pytest.approx(math.exp(-0.8))
    assert updated(1.0, 1.0, total, total, window=5) == pytest.approx(math.exp(0.3))


def test_sums_of_pure_noise_let_a_gain_grow_in_short_windows_and_hardly_in_long_ones():
    total, square = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
    assert updated(1.0, 1.0, total, square, window=20) == pytest.approx(math.exp(0.2))
    assert updated(1.0, 1.0, total, square, window=400) == pytest.approx(math.exp(0.01))


def test_a_gain_forgets_what_the_cap_cut_off_unless_told_not_to():
    total = torch.randn(50)
    assert updated(1.0, 0.5, total, total) == pytest.approx(0.5 * math.exp(1.2))
    assert updated(1.0, 0.5, total, total, unwind=False) == pytest.approx(math.exp(1.2))


def test_the_cosine_weighs_signs_by_size_and_their_share_does_not():
    total, prev = torch.tensor([10.0, 0.1, 0.1, 0.1, 0.0]), torch.tensor([10.0, -0.1, -0.1, -0.1, 1.0])
    agreed = robust_formulas.agreement_of(total, prev)
    assert agreed.cosine > 0.9
    assert agreed.sign_agreement.item() == 0.25  # where one is zero there is no sign to agree
    assert updated(1.0, 1.0, total, prev, signs=True) == pytest.approx(math.exp(-0.5 + 0.2))


@pytest.mark.parametrize("total", [torch.zeros(5), torch.tensor([1.0, math.nan]), torch.full((2,), math.inf)])
def test_a_sum_that_says_nothing_moves_no_gain(total):
    assert updated(2.0, 0.5, total, torch.ones_like(total)) == 2.0


@pytest.mark.parametrize(("total_steps", "largest"), [(1000, 0.1), (400, 0.1), (50, 0.1 * 8**0.3)])
def test_no_step_is_larger_than_a_tenth_of_its_tensor_or_a_little_more_in_a_short_run(total_steps, largest):
    param = nn.Parameter(torch.randn(100, 10))
    size = rms(param.detach())
    optimizer = ActiveSGD([param], rule="robust", total_steps=total_steps)
    direction = torch.randn(100, 10)
    for _ in range(total_steps):
        before = param.detach().clone()
        param.grad = direction.clone()  # agrees for ever
        optimizer.step()
        assert rms(param.detach() - before) <= largest * size * 1.001


def test_a_quiet_time_does_not_make_the_next_step_a_jump():
    param = nn.Parameter(torch.ones(10, 10))
    optimizer = ActiveSGD([param], rule="robust", total_steps=1000)
    direction, moves = torch.randn(10, 10), []
    for step in range(150):
        before = param.detach().clone()
        param.grad = direction * (1e-6 if 50 <= step < 100 else 1.0)
        optimizer.step()
        moves.append(rms(param.detach() - before))
    assert max(moves[50:100]) < 1e-4 < max(moves[100:]) <= 0.1


def test_rows_of_an_embedding_that_are_never_seen_do_not_lengthen_the_steps_of_the_others():
    moves = []
    for rows in (10, 10_000):
        param = nn.Parameter(torch.ones(rows, 8))
        optimizer = ActiveAdamW([param], rule="robust", total_steps=100, weight_decay=0.0)
        for _ in range(30):
            param.grad = torch.zeros(rows, 8)
            param.grad[:10] = torch.ones(10, 8)
            optimizer.step()
        moves.append((1 - param.detach()[:10]).abs().max().item())
        assert (param[10:] == 1).all()
    assert moves[1] == pytest.approx(moves[0], rel=1e-3)


@pytest.mark.parametrize("total", [1, 5])
def test_a_run_of_very_few_steps_moves_in_each_of_them(total):
    param = nn.Parameter(torch.ones(10, 10))
    optimizer = ActiveAdamW([param], rule="robust", total_steps=total, weight_decay=0.0)
    for _ in range(total):
        before = param.detach().clone()
        param.grad = torch.ones(10, 10)
        optimizer.step()
        assert rms(param.detach() - before) > 1e-3


def test_tensors_that_start_at_zero_move():
    params = [nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(4, 16)), nn.Parameter(torch.zeros(()))]
    optimizer = ActiveAdamW(params, rule="robust", total_steps=100)
    for _ in range(30):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
    assert all(rms(param.detach()) > 0.05 for param in params)


def test_frozen_and_unused_parameters_stay_and_do_not_disturb():
    frozen, unused, used = (nn.Parameter(torch.ones(4)) for _ in range(3))
    frozen.requires_grad_(False)
    optimizer = ActiveSGD([frozen, unused, used], rule="robust", total_steps=20)
    for _ in range(20):
        used.grad = torch.ones(4)
        optimizer.step()
    assert (frozen == 1).all()
    assert (unused == 1).all()
    assert (used < 1).all()


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


def left_of_a_weight(total, shape=(5, 2)):
    """Of 1, after a run in which no gradient holds it."""
    param = nn.Parameter(torch.ones(shape))
    optimizer = ActiveAdamW([param], weight_decay=0.01, rule="robust", total_steps=total)
    for _ in range(total):
        param.grad = torch.zeros(shape)
        optimizer.step()
    return param.detach().flatten()[0].item()


def test_weight_decay_does_not_depend_on_the_length_of_a_long_run():
    assert left_of_a_weight(1000) == pytest.approx(math.exp(-0.5), rel=2e-3)
    assert left_of_a_weight(4000) == pytest.approx(math.exp(-0.5), rel=2e-3)


def test_weight_decay_is_small_in_short_runs_and_spares_vectors():
    assert left_of_a_weight(40) == pytest.approx(math.exp(-0.02), rel=2e-3)
    assert left_of_a_weight(1000, shape=(10,)) == 1


def test_what_the_rule_needs_is_asked_for():
    param = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="rule must be one of paper, robust, got 'fast'"):
        ActiveSGD([param], rule="fast")
    with pytest.raises(ValueError, match="total_steps must be at least 1"):
        ActiveSGD([param], rule="robust", total_steps=0)
    param.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match="needs total_steps"):
        ActiveSGD([param], rule="robust").step()


@pytest.mark.parametrize("progress", [0.0, -0.1, 1.5])
def test_a_progress_at_which_no_step_could_move_is_refused(progress):
    param = nn.Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    optimizer = ActiveAdamW([param], rule="robust")
    optimizer.progress = progress
    with pytest.raises(ValueError, match=r"in \(0, 1\], got .*\(n \+ 1\) / total_steps"):
        optimizer.step()


def test_a_group_added_later_is_as_far_in_the_run_as_the_others():
    first, second = (nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    optimizer = ActiveAdamW([first], rule="robust", total_steps=100)
    for step in range(100):
        if step == 50:
            optimizer.add_param_group({"params": [second]})
        first.grad = second.grad = torch.ones(4, 4)
        before = second.detach().clone()
        optimizer.step()
    assert optimizer.param_groups[1]["steps_done"] == 100
    assert (before - second).abs().max() < 0.05, "the last steps of a run are short"


def test_a_copy_goes_on_as_the_original_would():
    param = nn.Parameter(torch.randn(5, 4))
    optimizer = ActiveAdamW([param], rule="robust", total_steps=20)
    for _ in range(10):
        param.grad = torch.ones(5, 4)
        optimizer.step()
    twin = copy.deepcopy(optimizer)
    (twin_param,) = twin.param_groups[0]["params"]
    for one, owner in ((param, optimizer), (twin_param, twin)):
        one.grad = torch.ones(5, 4)
        owner.step()
    assert torch.equal(param, twin_param)


def test_the_state_of_another_rule_is_refused():
    param = nn.Parameter(torch.ones(2))
    robust_optimizer, paper = ActiveAdamW([param], total_steps=9), ActiveAdamW([param], rule="paper")
    with pytest.raises(ValueError, match="this state is of the paper rule, the optimizer follows the robust rule"):
        robust_optimizer.load_state_dict(paper.state_dict())
    with pytest.raises(ValueError, match="of the robust rule"):
        paper.load_state_dict(robust_optimizer.state_dict())


def test_any_floating_dtype_and_any_shape_takes_a_step():
    shapes = [(), (3,), (0,), (4, 3), (0, 0), (3, 3, 0), (2, 3, 3, 3)]
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        params = [nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in shapes]
        optimizer = ActiveSGD(params, rule="robust", total_steps=4)
        for _ in range(4):
            for param in params:
                param.grad = torch.ones_like(param)
            optimizer.step()
        assert all(param.isfinite().all() and param.dtype == dtype for param in params)
        assert all((param < 1).all() for param in params)


def test_constants_of_another_study_hold_from_the_first_window_on():
    constants = RobustConstants(window_growth=0.0, smallest_window=20)
    optimizer = ActiveSGD([nn.Parameter(torch.ones(2))], total_steps=100, constants=constants)
    assert optimizer.param_groups[0]["window_end"] == 20


def test_the_step_that_is_reported_is_how_far_the_tensor_went_also_when_directions_shrink():
    param = nn.Parameter(torch.randn(20, 10, dtype=torch.float64))
    size = rms(param.detach())
    optimizer = ActiveSGD([param], rule="robust", total_steps=400, weight_decay=0.0)
    direction = torch.randn(20, 10, dtype=torch.float64)
    for step in range(200):
        before = param.detach().clone()
        param.grad = direction * 0.9**step  # the length falls by 1 % a step, the direction by 10 %
        optimizer.step()
        stats = optimizer.update_stats([("weight", param)])["weight"]
        assert stats["update_ratio"] == pytest.approx(rms(param.detach() - before) / size, rel=1e-2)
        assert optimizer.state[param]["gain"] <= 1, "it does not wind up behind the length"


def test_a_bounded_gain_changes_no_step():
    gain, length = robust_formulas.bound_gain(torch.tensor(8.0), torch.tensor(2.0))
    assert (gain.item(), length.item()) == (1.0, 0.25)
    assert [value.item() for value in robust_formulas.bound_gain(torch.tensor(0.3), torch.tensor(2.0))] == [
        pytest.approx(0.3),
        2.0,
    ]


def test_a_tensor_that_met_no_gradient_but_zeros_reports_no_rate_and_no_step():
    params = [nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3))]
    optimizer = ActiveAdamW(params, rule="robust", total_steps=20)
    for _ in range(10):
        params[0].grad, params[1].grad = torch.ones(4, 3), torch.zeros(4, 3)
        optimizer.step()
    stats = optimizer.update_stats([("used", params[0]), ("unused", params[1])])
    assert (stats["unused"]["effective_lr"], stats["unused"]["update_ratio"]) == (0, 0)
    assert stats["used"]["effective_lr"] > 0


@pytest.mark.parametrize("numbers", [6, 7])
def test_the_state_of_an_older_version_keeps_its_numbers_in_one_tensor_and_continues(numbers):
    def run(optimizer, param, steps):
        for _ in range(steps):
            param.grad = torch.ones(4, 3)
            optimizer.step()

    param = nn.Parameter(torch.ones(4, 3))
    optimizer = ActiveAdamW([param], total_steps=20)
    run(optimizer, param, 7)
    twin = nn.Parameter(param.detach().clone())
    saved = copy.deepcopy(optimizer.state_dict())
    state = saved["state"][0]
    state["pace"] = torch.stack([state.pop(key) for key in robust_rule.PACKED])[:numbers]
    state["window"] = torch.stack([state.pop(key) for key in ("cosine", "sign_agreement", "clip_fraction")])
    state["gain_counts"] = torch.stack([state.pop(key) for key in ("grew", "non_finite")])
    saved["param_groups"][0] |= {"lr": 1e-3, "steps_since_epoch_end": 3, "gain_increment": 0.1, "gain_decay": 0.9}
    restored = ActiveAdamW([twin], total_steps=20)
    restored.load_state_dict(saved)
    run(optimizer, param, 5)
    run(restored, twin, 5)
    assert torch.equal(param, twin)
    assert {key: value.tolist() for key, value in optimizer.state[param].items()} == {
        key: value.tolist() for key, value in restored.state[twin].items()
    }


def test_the_state_says_what_the_rule_did_in_its_last_window():
    param = nn.Parameter(torch.randn(20, 10))
    optimizer = ActiveSGD([param], rule="robust", total_steps=400)
    direction = torch.randn(20, 10)
    for _ in range(400):
        param.grad = direction.clone()
        optimizer.step()
    state = optimizer.state[param]
    assert (state["cosine"].item(), state["sign_agreement"].item()) == (pytest.approx(1.0), 1.0)
    assert state["clip_fraction"].item() == 1.0
