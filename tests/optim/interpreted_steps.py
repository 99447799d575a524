"""Takes steps with the kernels for GPUs, in Triton's interpreter and on the CPU, beside steps in the list form.

    TRITON_INTERPRET=1 python interpreted_steps.py

prints one line of JSON for each direction and rule: how far weights and gains lie apart, and whether the sums are equal.
"""

import json

import torch

from activelr_service.optim import cuda_kernel, fused
from tests.optim.test_fused import build, set_grads

STEPS = 14  # the paper's rule ends two epochs of 7
SHAPES = [(30, 60), (7,), (4_500,)]  # the last is two pieces
CHOSEN = {
    "robust": ("AdamW, maximize", "Belief", "SGD, L2", "SGD, Nesterov"),
    "paper": ("RAdam, L2", "SGD"),
}


def make_params():
    rng = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=rng).mul(0.1)) for shape in SHAPES]


def compare(case, rule):
    params, twins = make_params(), make_params()
    compiled, listed = build(case, params, rule), build(case, twins, rule, fused=False)
    for step in range(STEPS):
        for own, optimizer in ((params, compiled), (twins, listed)):
            set_grads(own, step)
            if step == 10:
                own[0].grad *= 1e6
            optimizer.step()
    pairs = list(zip(params, twins, strict=True))
    states = [(compiled.state[param], listed.state[twin]) for param, twin in pairs]
    names = ("grad_sum", "grew", "non_finite", *(("prev_sign",) if rule == "paper" else ("steps_clipped",)))
    return {
        "case": case,
        "rule": rule,
        "form": compiled.param_groups[0]["step_form"],
        "weights": max(((param - twin).abs() / (1 + twin.abs())).max().item() for param, twin in pairs),
        "gains": max(((own["gain"] - other["gain"]).abs() / other["gain"]).max().item() for own, other in states),
        "different": [name for name in names if any(not torch.equal(own[name], other[name]) for own, other in states)],
    }


def main():
    fused.kernel_of, fused.has_kernel = lambda device_type: cuda_kernel, lambda device_type: True
    for rule, cases in CHOSEN.items():
        for case in cases:
            print(json.dumps(compare(case, rule)), flush=True)


if __name__ == "__main__":
    main()
