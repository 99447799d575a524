"""Collectives: buffers reach every rank in one broadcast, and a fingerprint knows every bit."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from activelr_service.training import distributed
from tests.ranks import run_ranks

CPU = torch.device("cpu")


def with_buffers(rank):
    model = nn.BatchNorm2d(3)
    torch.manual_seed(rank)
    buffers = {
        "brief": torch.randn(5, dtype=torch.bfloat16),
        "wide": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "turned": torch.randn(3, 2, dtype=torch.float64).T,
        "mask": torch.rand(7) > 0.5,
        "none": torch.empty(0, 3),
        "single": torch.tensor(rank + 0.5),
    }
    for name, buffer in buffers.items():
        model.register_buffer(name, buffer)
    return model


def broadcast(rank):
    model, sent = with_buffers(rank), []
    model.running_mean += rank + 1
    original = dist.broadcast
    dist.broadcast = lambda tensor, src: (sent.append(tensor), original(tensor, src=src))
    distributed.broadcast_buffers(model, CPU)
    dist.broadcast = original
    distributed.broadcast_buffers(nn.Linear(2, 2), CPU)  # no buffers: nothing is sent
    return len(sent), {name: buffer.clone() for name, buffer in model.named_buffers()}, model.wide.stride()


@pytest.mark.slow
def test_buffers_of_every_type_reach_the_other_ranks_in_one_broadcast(tmp_path):
    (count, expected, stride), *others = run_ranks(broadcast, 2, tmp_path)
    assert count == 1
    for other_count, found, other_stride in others:
        assert (other_count, other_stride) == (1, stride)
        assert found.keys() == expected.keys()
        for name, buffer in expected.items():
            assert found[name].dtype == buffer.dtype
            assert torch.equal(found[name], buffer), name


TENSORS = {
    "float32, even": torch.randn(6),
    "float32, odd": torch.randn(7),
    "float64": torch.randn(3, dtype=torch.float64),
    "bfloat16": torch.randn(8, dtype=torch.bfloat16),
    "bool": torch.rand(16) > 0.5,
    "complex": torch.randn(3, dtype=torch.complex64),
    "a number": torch.tensor(2.5),
    "a part that begins within a word": torch.randn(9)[1:],
    "turned": torch.randn(4, 3).T,
    "channels last": torch.randn(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "with gaps": torch.randn(4, 6)[:, ::2],
    "one value for all": torch.randn(3, 1).expand(3, 2),
}


@pytest.mark.parametrize("name", list(TENSORS))
def test_one_changed_bit_changes_the_fingerprint_wherever_it_is(name):
    tensor = TENSORS[name]
    before = distributed.fingerprint(tensor)
    for place in range(tensor.numel()):
        for byte in range(tensor.element_size()):
            changed = tensor.clone()
            index = torch.unravel_index(torch.tensor(place), tensor.shape) if tensor.ndim else ()
            element = changed[index].reshape(1).view(torch.uint8)
            element[byte] ^= 1
            changed[index] = element.view(tensor.dtype)[0]
            assert distributed.fingerprint(changed) != before, (place, byte)
    assert distributed.fingerprint(tensor.clone()) == before
