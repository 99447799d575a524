"""Files that are written and hashed in one pass: the bytes are those that the safetensors library writes."""

import hashlib
import os
import resource

import pytest
import torch
from safetensors.torch import load_model, save_file, save_model
from torch import nn

from activelr_service.training import tensor_file
from activelr_service.training.tensor_file import TYPES, write_file, write_model, write_tensors


def described(path):
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def of_every_type():
    shapes = {"b/two": (1, 3), "a/none": (0, 4), "scalar": ()}
    tensors = {
        "transposed é": torch.arange(6.0).reshape(2, 3).T,
        "last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    for index, dtype in enumerate(TYPES):
        values = torch.arange(48, dtype=torch.uint8).view(dtype)
        for name, shape in shapes.items():
            count = torch.Size(shape).numel()
            tensors[f"{name}/{index}"] = values[:count].reshape(shape).clone()
    return tensors


@pytest.mark.parametrize("metadata", [None, {"kept": "é"}])
def test_tensors_are_written_as_the_library_writes_them(tmp_path, metadata):
    tensors = of_every_type()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "expected", metadata)
    assert write_tensors(tmp_path / "found", tensors, metadata) == described(tmp_path / "expected")
    assert (tmp_path / "found").read_bytes() == (tmp_path / "expected").read_bytes()


def test_a_model_whose_names_share_a_tensor_is_written_as_the_library_writes_it(tmp_path):
    model = nn.ModuleDict({"embed": nn.Embedding(5, 4), "norm": nn.BatchNorm1d(4), "head": nn.Linear(4, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    save_model(model, str(tmp_path / "expected"))
    assert write_model(tmp_path / "found", model) == described(tmp_path / "expected")
    weight = model["embed"].weight.detach().clone()
    nn.init.zeros_(model["embed"].weight)
    load_model(model, tmp_path / "found")
    assert torch.equal(model["head"].weight, weight)


def test_tensors_that_share_memory_are_refused_by_name(tmp_path):
    table = torch.arange(6.0)
    write_tensors(tmp_path / "views", {"a": table[:3], "b": table[3:]})
    with pytest.raises(ValueError, match="a and b share memory; keep a copy"):
        write_tensors(tmp_path / "shared", {"b": table, "a": table})


def test_a_file_of_many_parts_is_synced_while_it_is_written_and_its_hash_is_that_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_file, "PART", 10)
    monkeypatch.setattr(tensor_file, "SYNC_EVERY", 64)
    sizes, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (sizes.append(os.fstat(number).st_size), fsync(number)))
    found = write_file(tmp_path / "file", [b"abc", memoryview(os.urandom(505)), b"", b"z"])
    assert found == described(tmp_path / "file")
    assert found["size"] == sizes[-1] == 509
    assert len(sizes) == 8


def test_a_disk_that_is_full_or_fails_is_an_error_with_the_path(tmp_path, monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="file cannot be written: File too large"):
            write_file(tmp_path / "file", [bytes(100_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def fail(number):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="file cannot be written: Input/output error"):
        write_file(tmp_path / "file", [b"abc"])
