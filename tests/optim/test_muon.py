"""What ActiveMuon has of its own: which parameters it orthogonalizes, how, and whose states it takes."""

import copy

import pytest
import torch
from torch import nn

from activelr_service.optim import ActiveAdamW, ActiveMuon, ActiveSGD, fused, muon_groups
from activelr_service.optim.muon import orthogonalize
from tests.optim.test_family import set_grads

SWITCHED_OFF = {"rule": "paper", "gain_increment": 0.0, "gain_decay": 1.0}


def make_params(*shapes, **more):
    rng = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=rng).to(**more)) for shape in shapes]


def run(optimizer, params, steps, seed=1):
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        set_grads(params, rng)
        optimizer.step()


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (20, 20)])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_singular_values_come_close_to_one_and_the_singular_vectors_stay_whatever_the_scale(shape, scale):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    matrix = left @ torch.diag(torch.linspace(0.2, 1, len(values), dtype=torch.float64)) @ right
    (found,) = orthogonalize([(matrix * scale).float()])
    values = torch.diagonal(left.T @ found.double() @ right.T)
    assert values.min() > 0.65
    assert values.max() < 1.25
    assert (found.double() - left @ torch.diag(values) @ right).abs().max() < 1e-4


def test_matrices_of_one_shape_that_are_taken_together_equal_each_alone_and_one_of_zeros_stays():
    rng = torch.Generator().manual_seed(0)
    matrices = [torch.randn(8, 5, generator=rng), torch.zeros(8, 5), torch.randn(5, 8, generator=rng)]
    matrices.append(torch.randn(8, 5, generator=rng))
    for together, matrix in zip(orthogonalize(matrices), matrices, strict=True):
        torch.testing.assert_close(together, orthogonalize([matrix])[0], rtol=1e-5, atol=1e-6)
    assert (orthogonalize(matrices)[1] == 0).all()


def test_with_the_rule_switched_off_a_matrix_takes_the_steps_of_torch_s_muon():
    params, twins = make_params((20, 30), (30, 10)), make_params((20, 30), (30, 10))
    optimizer = ActiveMuon(params, lr=1e-2, weight_decay=0.1, **SWITCHED_OFF)
    theirs = torch.optim.Muon(twins, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    start = copy.deepcopy(params)
    run(optimizer, params, 20)
    run(theirs, twins, 20)
    for param, twin, old in zip(params, twins, start, strict=True):  # its products are in bfloat16
        assert (param - twin).norm() < 0.02 * (param - old).norm()


@pytest.mark.parametrize("rule", ["robust", "paper"])
def test_vectors_thin_matrices_and_tables_take_the_steps_of_active_adamw(rule):
    shapes = [(5,), (), (1, 6), (6, 1), (7, 4)]
    params, twins = make_params(*shapes), make_params(*shapes)
    options = {"rule": rule, **({"total_steps": 20} if rule == "robust" else {"steps_per_epoch": 5})}
    run(ActiveMuon([{"params": params[:4]}, {"params": params[4:], "orthogonalize": False}], **options), params, 20)
    run(ActiveAdamW(twins, **options), twins, 20)
    assert all(torch.equal(param, twin) for param, twin in zip(params, twins, strict=True))


def test_a_convolution_is_a_matrix_with_a_row_for_each_output_channel():
    (kernel,), (matrix,) = make_params((6, 3, 2, 2)), make_params((6, 12))
    matrix.data.copy_(kernel.data.flatten(1))
    run(ActiveMuon([kernel], lr=1e-2, **SWITCHED_OFF), [kernel], 1)
    set_grads([matrix], torch.Generator().manual_seed(1))
    matrix.grad.copy_(kernel.grad.flatten(1))
    ActiveMuon([matrix], lr=1e-2, **SWITCHED_OFF).step()
    torch.testing.assert_close(kernel.flatten(1), matrix)


def test_memory_formats_change_no_step():
    (kernel,), (other,) = make_params((6, 3, 2, 2)), make_params((6, 3, 2, 2), memory_format=torch.channels_last)
    for param in (kernel, other):
        run(ActiveMuon([param], total_steps=10), [param], 10)
    torch.testing.assert_close(kernel, other)


@pytest.mark.skipif(not fused.has_kernel("cpu"), reason="no C compiler was there at the installation")
@pytest.mark.parametrize("rule", ["robust", "paper"])
def test_vectors_take_the_compiled_form_beside_the_list_form_of_matrices_with_the_same_result(rule):
    shapes = [(40, 30), (17_000,), (7,), (3, 5, 2, 2)]
    options = {"rule": rule, **({"total_steps": 40} if rule == "robust" else {"steps_per_epoch": 7})}
    found = []
    for form, name in ((None, "mixed"), (False, "list")):
        params = make_params(*shapes)
        optimizer = ActiveMuon(params, fused=form, **options)
        run(optimizer, params, 40)
        assert optimizer.param_groups[0]["step_form"] == name
        found.append(params)
    for param, twin in zip(*found, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-5, atol=1e-5)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.bag = nn.Embedding(10, 4), nn.EmbeddingBag(6, 4)
        self.hidden, self.head = nn.Linear(4, 4), nn.Linear(4, 10, bias=False)
        self.head.weight = self.tokens.weight


def test_the_groups_of_a_model_hold_each_parameter_once_and_tables_apart_also_tied_ones():
    model = Tied()
    others, tables = muon_groups(model)
    assert [id(param) for param in others["params"]] == [id(model.hidden.weight), id(model.hidden.bias)]
    assert [id(param) for param in tables["params"]] == [id(model.tokens.weight), id(model.bag.weight)]
    assert tables["orthogonalize"] is False
    assert len(muon_groups(nn.Linear(3, 3))) == 1


def test_each_parameter_keeps_the_moments_of_its_own_direction_alone():
    model = Tied()
    optimizer = ActiveMuon(muon_groups(model), total_steps=5)
    run(optimizer, list(model.parameters()), 1)
    moments = {"momentum_buffer", "exp_avg", "exp_avg_sq"}
    kept = {name: moments & optimizer.state[param].keys() for name, param in model.named_parameters()}
    assert kept["hidden.weight"] == {"momentum_buffer"}
    assert kept["hidden.bias"] == kept["tokens.weight"] == {"exp_avg", "exp_avg_sq"}


def test_bfloat16_parameters_follow_those_in_float32():
    params, twins = make_params((40, 30), (30,)), make_params((40, 30), (30,), dtype=torch.bfloat16)
    start = copy.deepcopy(params)
    run(ActiveMuon(params, total_steps=30), params, 30)
    run(ActiveMuon(twins, total_steps=30), twins, 30)
    for param, twin, old in zip(params, twins, start, strict=True):
        assert twin.dtype is torch.bfloat16
        assert (param - twin.float()).norm() < 0.1 * (param - old).norm()


@pytest.mark.parametrize("rule", ["robust", "paper"])
def test_ranks_that_reduce_their_sums_take_the_decisions_of_one(rule):
    options = {"rule": rule, **({"total_steps": 30} if rule == "robust" else {"steps_per_epoch": 5})}
    params, twins = make_params((6, 4), (5,)), make_params((6, 4), (5,))
    alone, ranked = ActiveMuon(params, **options), ActiveMuon(twins, **options)
    ranked.has_trainer = True
    seen = []
    rng, twin_rng = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for _ in range(30):
        set_grads(params, rng)
        set_grads(twins, twin_rng)
        alone.step()
        ranked.step()
        ranked.end_step(reduce=lambda flat: seen.append(flat.numel()))
    assert set(seen) == {29}
    assert all(torch.equal(param, twin) for param, twin in zip(params, twins, strict=True))


def test_the_state_of_torch_s_muon_goes_on_with_its_momentum():
    params = make_params((6, 4), (4, 5))
    source = torch.optim.Muon(params)
    run(source, params, 3)
    optimizer = ActiveMuon(params, total_steps=20)
    optimizer.load_state_dict(source.state_dict())
    for param in params:
        assert torch.equal(optimizer.state[param]["momentum_buffer"], source.state[param]["momentum_buffer"])
    run(optimizer, params, 2)
    assert all("gain" in optimizer.state[param] for param in params)


OTHERS = {
    "ActiveAdamW": (lambda params: ActiveAdamW(params, total_steps=5), 'its direction is "adamw", not "muon"'),
    "ActiveSGD": (lambda params: ActiveSGD(params, total_steps=5, momentum=0.9), 'its direction is "sgd", not "muon"'),
    "AdamW": (torch.optim.AdamW, "it has no option ns_steps"),
    "SGD": (lambda params: torch.optim.SGD(params, momentum=0.9), "it has no option ns_steps"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_state_of_another_direction_is_refused_in_a_line(name):
    build, reason = OTHERS[name]
    params = make_params((6, 4), (5,))
    source = build(params)
    run(source, params, 1)
    with pytest.raises(ValueError, match=f"of another kind of optimizer than ActiveMuon: {reason}; load it into"):
        ActiveMuon(params, total_steps=5).load_state_dict(source.state_dict())


def test_its_own_state_is_refused_by_another_direction():
    params = make_params((6, 4), (5,))
    source = ActiveMuon(params, total_steps=5)
    run(source, params, 1)
    with pytest.raises(ValueError, match='than ActiveAdamW: its direction is "muon", not "adamw"'):
        ActiveAdamW(params, total_steps=5).load_state_dict(source.state_dict())


def test_a_momentum_of_one_is_refused():
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\), got 1"):
        ActiveMuon(make_params((3, 3)), momentum=1.0)
