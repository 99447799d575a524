"""The kernels for GPUs against the list form: in Triton's interpreter everywhere, and on a GPU where there is one."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch

from activelr_service.optim import ActiveAdamW
from tests.optim.test_fused import CASES, assert_equal, bits, build, make_params, run, set_grads

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_the_kernels_take_the_steps_of_the_list_form_in_the_interpreter():
    command = [sys.executable, "-m", "tests.optim.interpreted_steps"]
    env = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 6
    for row in rows:
        assert row["form"] == "compiled", row
        assert row["weights"] < 1e-6, row
        assert row["gains"] < 1e-5, row
        assert row["different"] == [], row


@on_gpu
@pytest.mark.parametrize("rule", ["robust", "paper"])
@pytest.mark.parametrize("case", CASES)
def test_on_a_gpu_both_forms_take_the_same_steps_and_decisions(case, rule):
    params, twins = make_params(device="cuda"), make_params(device="cuda")
    compiled, listed = build(case, params, rule, fused=True), build(case, twins, rule, fused=False)
    run(compiled, params, 60)
    run(listed, twins, 60)
    assert compiled.param_groups[0]["step_form"] == "compiled"
    for param, twin in zip(params, twins, strict=True):
        torch.testing.assert_close(param, twin, rtol=1e-6, atol=1e-6)
        own, other = compiled.state[param], listed.state[twin]
        assert own.keys() == other.keys()
        assert torch.equal(own["grad_sum"], other["grad_sum"])
        for key in ("grew", "non_finite", "steps_clipped", *(("gain", "prev_sign") if rule == "paper" else ())):
            assert torch.equal(own.get(key, own["grew"]), other.get(key, other["grew"])), key
        torch.testing.assert_close(own["gain"], other["gain"], rtol=1e-5, atol=0)


@on_gpu
@pytest.mark.parametrize("rule", ["robust", "paper"])
def test_on_a_gpu_a_run_that_is_saved_and_loaded_continues_to_the_same_bits(rule, tmp_path):
    params = make_params(device="cuda")
    optimizer = build("AdamW", params, rule)
    run(optimizer, params, 25)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    twins = copy.deepcopy(params)
    restored = build("AdamW", twins, rule)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    run(optimizer, params, 20, begin=25)
    run(restored, twins, 20, begin=25)
    assert_equal(bits(optimizer, params), bits(restored, twins))


@on_gpu
def test_on_a_gpu_gradients_that_begin_anywhere_in_a_flat_buffer_change_no_step():
    params, twins = make_params(device="cuda"), make_params(device="cuda")
    flat = torch.empty(1 + sum(param.numel() for param in params), device="cuda")
    one, other = ActiveAdamW(params, total_steps=20), ActiveAdamW(twins, total_steps=20)
    for step in range(20):
        set_grads(params, step)
        begin = 1
        for param, twin in zip(params, twins, strict=True):
            twin.grad = flat[begin : begin + param.numel()].view_as(param).copy_(param.grad)
            begin += param.numel()
        one.step()
        other.step()
    assert all(torch.equal(param, twin) for param, twin in zip(params, twins, strict=True))


@on_gpu
def test_on_a_gpu_a_step_and_the_end_of_a_window_wait_for_nothing():
    params = make_params(device="cuda")
    optimizer = ActiveAdamW(params, total_steps=60)
    run(optimizer, params, 20)
    grads = [torch.randn_like(param) for param in params]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
