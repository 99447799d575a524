"""The few collectives a training needs. Without a process group each is the identity."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

Named = dict[str, Tensor]


class ReplicaDivergenceError(RuntimeError):
    """The ranks no longer hold the same weights or optimizer state."""


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def mean_(tensor: Tensor) -> Tensor:
    """In place: the mean over ranks. A sum and a division, since gloo knows no average."""
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
    """Rank 0's value, on every rank."""
    tensor = torch.tensor([value], dtype=torch.int64, device=device)
    if world_size() > 1:
        dist.broadcast(tensor, src=0)
    return int(tensor.item())


def broadcast_buffers(model: nn.Module) -> None:
    """Give every rank rank 0's buffers, such as the running statistics of batch normalisation."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


@torch.no_grad()
def check_replicas(tensors: Named, epoch: int) -> None:
    """Raise :class:`ReplicaDivergenceError` naming the first tensor that is not bit-identical on every rank.

    One exchange of 8 bytes per tensor; ``tensors`` has the same names in the same order on every rank.
    """
    if world_size() == 1 or not tensors:
        return
    mine = torch.stack([fingerprint(tensor) for tensor in tensors.values()])
    everyone = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(everyone, mine)
    for other, theirs in enumerate(everyone):
        differing = (theirs != everyone[0]).nonzero().flatten().tolist()
        if differing:
            name = list(tensors)[differing[0]]
            raise ReplicaDivergenceError(
                f"replicas diverged at the end of epoch {epoch}: rank {other} differs from rank 0 in {name}"
                f" ({len(differing)} of {len(tensors)} tensors differ); every rank must take the same steps"
            )


def fingerprint(tensor: Tensor) -> Tensor:
    """The sum of the tensor's words as integers, modulo 2**64: 0-dim int64 on its device. Any one changed bit shows."""
    words = _WORDS[tensor.element_size()]
    return tensor.detach().contiguous().reshape(-1).view(words).sum(dtype=torch.int64)


_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
