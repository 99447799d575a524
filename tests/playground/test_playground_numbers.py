"""The optimizers of the page take the steps of the product: its own script, run in node, against torch in float64."""

import math

import pytest
import torch

from activelr_service.optim import ActiveAdamW, ActiveSGD, fused
from tests.playground.page_script import EXAMPLES, HOW_TO_INSTALL, find_node, run_script, run_with_torch_exp

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_node() is None, reason=f"node {HOW_TO_INSTALL}"),
]

STEPS, TOLERANCE = 1000, 1e-9
STARTS = {  # of stable runs: one that bounces at its minimum, where gradients are all rounding, doubles each difference
    "saddle": [0.5, 0.001],
    "mse": [-2.0, 3.0],
    "shelf": [5.0],
    "passes": [-4.2, 6.1],
    "ravine": [-1.4, 1.2],
    "quadratic": [-2.5, 0.9],
}
VALUES = {
    "saddle": lambda p: p[0] ** 2 + p[1] ** 4 / 4 - p[1] ** 2 / 2,
    "shelf": lambda p: (p[0] - 3) ** 3,
    "passes": lambda p: -(p[0] ** 3) - p[0] ** 2 * p[1] + p[1] ** 2 + 4 * p[1] + 1680,
    "ravine": lambda p: (p[0] - 1) ** 2 / 2 + 2 * (p[1] - p[0] ** 2 / 2) ** 2,
    "quadratic": lambda p: p[0] ** 2 / 2 + 5 * p[1] ** 2,
}
KINDS = {"sgd": ActiveSGD, "adam": ActiveAdamW}
BATCHES = [(EXAMPLES, 0.0), (4, 0.5)]


def loss_of(run, p, rows):
    inputs, targets, tilts = run["tensors"]
    if run["fn"] == "mse":
        return (p[0] * inputs[rows] + p[1] - targets[rows]).square().mean()
    value, is_noisy = VALUES[run["fn"]](p), run["noise"] > 0 and len(rows) < EXAMPLES
    return value + run["noise"] * (tilts[: len(p), rows].mean(1) * p).sum() if is_noisy else value


def settings(identity, lr=1.0, batch=EXAMPLES, noise=0.0, starts=STARTS):
    shared = {"id": identity, "lr": lr, "batch": batch, "noise": noise, "steps": STEPS, "seed": 3}
    return [{"fn": fn, "start": start, **shared} for fn, start in starts.items()]


def follow(runs, make, answer=None, is_led=False):
    """Take the steps of these runs in torch, and compare each point. ``is_led``: every step begins at the page's point, so
    that an unstable race does not make much of the last bit."""
    for run in runs:
        run["tensors"] = [
            torch.tensor(run["data"][name], dtype=torch.float64) for name in ("inputs", "targets", "tilts")
        ]
    params = [torch.nn.Parameter(torch.tensor(run["start"], dtype=torch.float64)) for run in runs]
    optimizers = make(params)
    for step in range(STEPS):
        going = [number for number, run in enumerate(runs) if step + 1 < len(run["points"])]
        for number, param in enumerate(params):
            param.grad = None
            if is_led and number in going:
                param.data.copy_(torch.tensor(runs[number]["points"][step], dtype=torch.float64))
        if not going:
            break
        sum(loss_of(runs[i], params[i], runs[i]["batches"][step]) for i in going).backward()
        for optimizer in optimizers:
            optimizer.step()
        for number in going:
            point = params[number].detach() if answer is None else answer(optimizers[number], params[number])
            expected, where = point.tolist(), f"{runs[number]['fn']} after {step + 1} steps"
            for mine, theirs in zip(runs[number]["points"][step + 1], expected, strict=True):
                assert abs(mine - theirs) <= TOLERANCE * max(1.0, abs(theirs)), where


@pytest.mark.parametrize(("lr", "batch", "noise"), [(1e-3, *BATCHES[0]), (0.02, *BATCHES[1]), (0.5, *BATCHES[0])])
@pytest.mark.parametrize("kind", KINDS)
def test_the_paper_rule_of_the_page_is_that_of_the_product_on_every_function(kind, lr, batch, noise):
    runs, _ = run_script(settings(f"{kind}p", lr, batch, noise))
    options = {"rule": "paper", "lr": lr, "steps_per_epoch": EXAMPLES // batch, "weight_decay": 0.0}
    follow(runs, lambda params: [KINDS[kind](params, **options)])


@pytest.mark.skipif(not fused.has_kernel("cpu"), reason="no C compiler was there at the installation")
@pytest.mark.parametrize(("batch", "noise"), BATCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_robust_rule_of_the_page_is_that_of_the_product_on_every_function(kind, batch, noise):
    runs = run_with_torch_exp(settings(f"{kind}r", batch=batch, noise=noise))
    follow(runs, lambda params: [KINDS[kind](params, total_steps=STEPS, weight_decay=0.0)])


@pytest.mark.parametrize("rule", ["paper", "robust"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_step_of_the_page_is_that_of_the_list_form_also_where_a_race_is_unstable(kind, rule, monkeypatch):
    monkeypatch.setattr(fused, "has_kernel", lambda device_type: False)  # as where no C compiler was
    starts = {"ravine": [-2.2, 3.0], "passes": [-3.99, 6.0], "saddle": [0.9, -0.7], "mse": [3.0, -2.5]}
    runs = run_with_torch_exp(settings(kind + rule[0], 0.1, 8, 1.0, starts), is_list=True)
    own = {"lr": 0.1, "steps_per_epoch": 4} if rule == "paper" else {"total_steps": STEPS}
    follow(runs, lambda params: [KINDS[kind](params, rule=rule, weight_decay=0.0, **own)], is_led=True)


def make_prodigy(params):
    from prodigyopt import Prodigy

    return [Prodigy([param]) for param in params]


def make_schedule_free(params):
    from schedulefree import AdamWScheduleFree

    optimizers = [AdamWScheduleFree([param], lr=0.02) for param in params]
    for optimizer in optimizers:
        optimizer.train()
    return optimizers


def average_of(optimizer, param):
    """What Schedule-Free evaluates at."""
    optimizer.eval()
    average = param.detach().clone()
    optimizer.train()
    return average


REFERENCES = {
    "sgd": (lambda params: [torch.optim.SGD(params, lr=0.02)], None),
    "adam": (lambda params: [torch.optim.Adam(params, lr=0.02)], None),
    "prodigy": (make_prodigy, None),
    "free": (make_schedule_free, average_of),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_the_references_of_the_page_are_those_of_their_packages(name):
    make, answer = REFERENCES[name]
    runs, _ = run_script(settings(name, 0.02, 4, 0.5))
    follow(runs, make, answer, is_led=name == "prodigy")


def test_the_exponential_of_the_page_is_at_most_one_unit_from_that_of_torch():
    _, asked = run_script([*settings("adamr"), *settings("sgdr", batch=4, noise=0.5)])
    assert len(asked) > 100
    for v in asked:
        nearest = torch.tensor(math.exp(v), dtype=torch.float32)
        units = torch.exp(torch.tensor([v]))[0].view(torch.int32) - nearest.view(torch.int32)
        assert abs(units.item()) <= 1
