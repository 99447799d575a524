"""The collectives that a training needs. Without a process group, each leaves its input as it is."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from activelr_service.errors import ReplicaDivergenceError

Named = dict[str, Tensor]


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def mean_(tensor: Tensor) -> Tensor:
    """In place: the mean over ranks, as a sum and a division, because gloo has no average."""
    if world_size() > 1:
        dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor


def sum_(tensor: Tensor) -> Tensor:
    """In place: the sum over ranks."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def max_(tensor: Tensor) -> Tensor:
    """In place: the maximum over ranks."""
    if world_size() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor


def broadcast_int(value: int, device: torch.device) -> int:
    """Rank 0's value, on every rank. One rank alone waits for no device."""
    if world_size() == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.int64, device=device)
    dist.broadcast(tensor, src=0)
    return int(tensor.item())


def gather_objects(value: Any) -> list[Any] | None:
    """The values of all ranks, on rank 0; None on the others. Tensors in them must be on the CPU."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(value, gathered)
    return gathered


def broadcast_object(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
    return values[0]


def gather_texts(text: str, device: torch.device) -> list[str]:
    """The text of every rank, by rank, on every rank."""
    if world_size() == 1:
        return [text]
    mine = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).to(device)
    longest = int(max_(torch.tensor([len(mine)], device=device)).item())
    padded = torch.nn.functional.pad(mine, (0, longest - len(mine)), value=ord(" "))
    gathered = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(gathered, padded)
    return [bytes(part.cpu().numpy()).decode().rstrip(" ") for part in gathered]


def sum_if_all_have(value: float | None, device: torch.device) -> float | None:
    """The sum over ranks of a number that a rank may not have. If a rank does not have it, None on every rank."""
    mine = [0.0, 1.0] if value is None else [value, 0.0]
    total, lacking = sum_(torch.tensor(mine, dtype=torch.float64, device=device)).tolist()
    return None if lacking else total


def broadcast_buffers(model: nn.Module, device: torch.device) -> None:
    """Give every rank the buffers of rank 0, such as the running statistics of batch normalization, in one broadcast.

    They are sent from ``device``, wherever they are: NCCL takes no tensor of a CPU.
    """
    buffers = list(model.buffers())
    if world_size() == 1 or not buffers:
        return
    sent = torch.cat([buffer.contiguous().reshape(-1).view(torch.uint8).to(device) for buffer in buffers])
    dist.broadcast(sent, src=0)
    if rank() > 0:
        for buffer, part in zip(buffers, sent.split([buffer.nbytes for buffer in buffers]), strict=True):
            buffer.copy_(part.clone().view(buffer.dtype).reshape(buffer.shape))  # a clone begins with a whole element


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


@torch.no_grad()
def check_replicas(tensors: Named, epoch: int, device: torch.device, step: int | None = None) -> None:
    """Raise :class:`ReplicaDivergenceError` naming the first tensor that is not bit-identical on every rank, at the end of
    an epoch or after a ``step`` of it.

    ``tensors`` must have the same names in the same order on every rank, on any device. The ranks exchange 8 bytes per
    tensor, through ``device``, with one host synchronization.
    """
    if world_size() == 1 or not tensors:
        return
    mine = fingerprints(list(tensors.values()), device)
    gathered = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(gathered, mine)
    place = f"the end of epoch {epoch}" if step is None else f"epoch {epoch}, step {step}"
    first, *others = torch.stack(gathered).tolist()
    for other, theirs in enumerate(others, start=1):
        differing = [name for name, one, two in zip(tensors, first, theirs, strict=True) if one != two]
        if differing:
            raise ReplicaDivergenceError(
                f"replicas diverged at {place}: rank {other} differs from rank 0 in {differing[0]}"
                f" ({len(differing)} of {len(tensors)} tensors differ); every rank must take the same steps"
            )


def fingerprints(tensors: list[Tensor], device: torch.device) -> Tensor:
    """:func:`fingerprint` of each tensor: int64 (n,) on ``device``.

    Some tensors are on the CPU and others on the GPU. Those of one device are stacked there and moved together.
    """
    places: dict[torch.device, list[int]] = {}
    for index, tensor in enumerate(tensors):
        places.setdefault(tensor.device, []).append(index)
    found = torch.empty(len(tensors), dtype=torch.int64, device=device)
    for indices in places.values():
        values = torch.stack([fingerprint(tensors[index]) for index in indices])
        found[torch.tensor(indices, device=device)] = values.to(device)
    return found


def fingerprint(tensor: Tensor) -> Tensor:
    """The sum of the tensor's words as integers, modulo 2**64: 0-dim int64 on its device. One changed bit changes it.

    Words have 8 bytes where the size of the tensor allows it, and else the size of an element. Ranks compare fingerprints
    and keep none. The elements are taken as they lie in memory, so that a tensor in channels last is not copied.
    """
    by_stride = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    flat = tensor.detach().permute(by_stride).contiguous().reshape(-1)
    if flat.nbytes % 8:
        return flat.view(_WORDS[flat.element_size()]).sum(dtype=torch.int64)
    if flat.storage_offset() * flat.element_size() % 8:  # a part of a larger tensor, which begins within a word
        flat = flat.clone()
    return flat.view(torch.int64).sum()


_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
