"""The compiled form of the step against the list form: the same steps, on any number of threads, on any tensor."""

import copy
import itertools
import warnings

import pytest
import torch

from activelr_service.optim import ActiveAdamW, ActiveBelief, ActiveRAdam, ActiveSGD, fused
from activelr_service.optim.misuse import ActiveLRWarning

pytestmark = pytest.mark.skipif(not fused.has_kernel("cpu"), reason="no C compiler was there at the installation")

SHAPES = [(40, 300), (7,), (), (3, 5, 2, 2), (17_000,)]  # the last is two tasks of the kernel
CASES = {
    "AdamW": (ActiveAdamW, {}),
    "AdamW, no decay": (ActiveAdamW, {"weight_decay": 0.0}),
    "AdamW, maximize": (ActiveAdamW, {"maximize": True}),
    "RAdam": (ActiveRAdam, {"weight_decay": 0.1}),
    "RAdam, L2": (ActiveRAdam, {"weight_decay": 0.1, "decoupled_weight_decay": False}),
    "Belief": (ActiveBelief, {"weight_decay": 0.1}),
    "SGD": (ActiveSGD, {"weight_decay": 0.1}),
    "SGD, momentum": (ActiveSGD, {"momentum": 0.9, "dampening": 0.1}),
    "SGD, Nesterov": (ActiveSGD, {"momentum": 0.9, "nesterov": True, "maximize": True}),
    "SGD, L2": (ActiveSGD, {"momentum": 0.9, "weight_decay": 0.1, "decoupled_weight_decay": False}),
}


def make_params(**more):
    rng = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=rng).mul(0.1).to(**more)) for shape in SHAPES]


def set_grads(params, step):
    """Noise around a drift that turns every 15 steps, so that gains move both ways."""
    rng, drift_rng = torch.Generator().manual_seed(step), torch.Generator().manual_seed(1000)
    turn = 1 if step // 15 % 2 else -1
    for param in params:
        drift = torch.randn(param.shape, generator=drift_rng) * turn
        param.grad = (torch.randn(param.shape, generator=rng) + drift).to(param)


def run(optimizer, params, steps, begin=0):
    for step in range(begin, begin + steps):
        set_grads(params, step)
        optimizer.step()


def build(case, params, rule, **more):
    active, options = CASES[case]
    own = {"total_steps": 60} if rule == "robust" else {"steps_per_epoch": 7, "lr": 1e-3, "hold_on_zero": True}
    return active(params, rule=rule, **own, **options, **more)


def bits(optimizer, params):
    states = [value for param in params for value in optimizer.state[param].values()]
    return [value.detach().clone() for value in (*params, *states)]


def assert_equal(one, other):
    assert len(one) == len(other)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("rule", ["robust", "paper"])
@pytest.mark.parametrize("case", CASES)
def test_both_forms_take_the_same_steps_and_decisions(case, rule):
    params, twins = make_params(), make_params()
    compiled, listed = build(case, params, rule, fused=True), build(case, twins, rule, fused=False)
    run(compiled, params, 60)
    run(listed, twins, 60)
    assert compiled.param_groups[0]["step_form"] == "compiled"
    assert listed.param_groups[0]["step_form"] == "list"
    for param, twin in zip(params, twins, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-6, atol=1e-6)
        own, other = compiled.state[param], listed.state[twin]
        assert own.keys() == other.keys()
        for key in own:
            assert own[key].dtype == other[key].dtype, key
        assert torch.equal(own["grad_sum"], other["grad_sum"])
        for key in ("grew", "non_finite", "steps_clipped", *(("gain", "prev_sign") if rule == "paper" else ())):
            assert torch.equal(own.get(key, own["grew"]), other.get(key, other["grew"])), key
        torch.testing.assert_close(own["gain"], other["gain"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("case", ["AdamW", "Belief", "SGD"])
def test_a_gradient_a_million_times_as_large_as_those_before_moves_the_weights_by_the_right_step(case):
    params, twins = make_params(), make_params()
    compiled, listed = build(case, params, "robust", fused=True), build(case, twins, "robust", fused=False)
    for step in range(20):
        for each in (params, twins):
            set_grads(each, step)
            for param in each:
                param.grad *= 1e6 if step == 15 else 1.0
        compiled.step()
        listed.step()
    for param, twin in zip(params, twins, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", ["robust", "paper"])
@pytest.mark.parametrize("case", ["AdamW", "SGD, momentum"])
def test_any_number_of_threads_gives_the_same_bits(case, rule):
    results, threads = [], torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            params = make_params()
            optimizer = build(case, params, rule)
            run(optimizer, params, 20)
            results.append(bits(optimizer, params))
    finally:
        torch.set_num_threads(threads)
    assert_equal(results[0], results[1])
    assert_equal(results[0], results[2])


@pytest.mark.parametrize("rule", ["robust", "paper"])
@pytest.mark.parametrize("case", CASES)
def test_a_state_that_is_saved_and_loaded_continues_to_the_same_bits(case, rule, tmp_path):
    params = make_params()
    optimizer = build(case, params, rule)
    run(optimizer, params, 25)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    twins = copy.deepcopy(params)
    restored = build(case, twins, rule)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    run(optimizer, params, 20, begin=25)
    run(restored, twins, 20, begin=25)
    assert_equal(bits(optimizer, params), bits(restored, twins))


def test_what_the_kernel_does_not_take_goes_through_the_list_form_beside_it():
    short, whole = make_params(dtype=torch.bfloat16), make_params()
    optimizer = ActiveAdamW([*short, *whole], total_steps=20)
    run(optimizer, [*short, *whole], 20)
    assert optimizer.param_groups[0]["step_form"] == "mixed"
    twins = make_params()
    alone = ActiveAdamW(twins, total_steps=20)
    for step in range(20):
        set_grads([*make_params(), *twins], step)  # the same random numbers as above
        alone.step()
    assert all(torch.equal(param, twin) for param, twin in zip(whole, twins, strict=True))
    assert all(param.isfinite().all() and param.dtype == torch.bfloat16 for param in short)


def test_amsgrad_takes_the_list_form():
    params = make_params()
    optimizer = ActiveAdamW(params, total_steps=5, amsgrad=True)
    run(optimizer, params, 5)
    assert optimizer.param_groups[0]["step_form"] == "list"


@pytest.mark.parametrize("rule", ["robust", "paper"])
def test_layouts_change_no_step(rule):
    """Channels last in parameters and gradients, gradients alone, a state that was saved in another layout, and a slice."""
    results = []
    for format, grad_format in itertools.product((torch.contiguous_format, torch.channels_last), repeat=2):
        rng = torch.Generator().manual_seed(0)
        param = torch.nn.Parameter(torch.randn(4, 3, 5, 5, generator=rng).to(memory_format=format))
        sliced = torch.nn.Parameter(torch.randn(6, 8, generator=rng)[:, ::2])
        optimizer = build("AdamW", [param, sliced], rule)
        for step in range(20):
            if step == 11:
                state = copy.deepcopy(optimizer.state_dict())
                for name, value in state["state"][0].items():
                    if value.dim() == 4:
                        state["state"][0][name] = value.contiguous()
                optimizer = build("AdamW", [param, sliced], rule)
                optimizer.load_state_dict(state)
            grads = [torch.randn(each.shape, generator=rng) + each.detach() for each in (param, sliced)]
            param.grad, sliced.grad = grads[0].to(memory_format=grad_format), grads[1]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ActiveLRWarning)
                optimizer.step()
        results.append((param.detach(), sliced.detach()))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-5, atol=1e-6)


def test_numbers_that_a_user_replaces_hold():
    params = make_params()
    optimizer = ActiveSGD(params, total_steps=20)
    run(optimizer, params, 3)
    optimizer.state[params[0]]["gain"] = torch.tensor(0.0)
    optimizer.state[params[1]]["gain"].fill_(0.0)
    before = [param.detach().clone() for param in params]
    set_grads(params, 3)
    optimizer.step()
    moved = [not torch.equal(param, old) for param, old in zip(params, before, strict=True)]
    assert moved == [False, False, True, True, True]


def test_a_parameter_without_a_gradient_for_a_step_keeps_its_own_numbers():
    params, twins = make_params(), make_params()
    compiled = ActiveAdamW(params, total_steps=30)
    listed = ActiveAdamW(twins, total_steps=30, fused=False)
    for step in range(30):
        for own, optimizer in ((params, compiled), (twins, listed)):
            set_grads(own, step)
            own[step % 5].grad = None
            optimizer.step()
    for param, twin in zip(params, twins, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-6, atol=1e-6)


def test_a_run_that_continues_in_the_other_form_is_told_so_once():
    params = make_params()
    optimizer = ActiveAdamW(params, total_steps=20, fused=False)
    run(optimizer, params, 5)
    restored = ActiveAdamW(params, total_steps=20)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with pytest.warns(ActiveLRWarning, match="list form.*compiled form.*not to the last bit"):
        run(restored, params, 1, begin=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(restored, params, 3, begin=6)


def test_autograd_sees_that_a_step_changed_the_weights():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = ActiveSGD([weight], total_steps=5)
    loss = (weight * weight).sum()
    weight.grad = torch.ones(3)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_sum_that_is_not_finite_moves_no_gain_in_either_form():
    for rule in ("robust", "paper"):
        gains = []
        for form in (None, False):
            params = make_params()
            optimizer = build("SGD", params, rule, fused=form)
            run(optimizer, params, 14)
            before = optimizer.state[params[1]]["gain"].clone()
            optimizer.state[params[1]]["grad_sum"][0] = float("inf")
            optimizer.end_sums()
            state = optimizer.state[params[1]]
            assert state["non_finite"] == 1
            assert torch.equal(state["gain"].reshape(-1)[0], before.reshape(-1)[0])
            gains.append(state["gain"].clone())
        torch.testing.assert_close(*gains)
