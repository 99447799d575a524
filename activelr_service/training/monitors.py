"""What is measured beside the loss: the memory of a worker, the energy of its GPU, and the gradient norms of its layers."""

import gc
import os
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from activelr_service.runs.record import GRAD_NORM_PREFIX
from activelr_service.training import distributed


class MemoryMeter:
    """The share of its memory that this worker uses. On a GPU it is a share of the GPU's memory; on the CPU, of the free
    memory of the machine divided by its workers."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.share = psutil.Process().memory_info().rss + available_memory() // workers_here()

    def used(self) -> float:
        """On a GPU: the peak since :meth:`free`, plus what other processes use. On the CPU: what is used now."""
        if self.device.type != "cuda":
            return psutil.Process().memory_info().rss / self.share
        free, total = torch.cuda.mem_get_info(self.device)
        others = total - free - torch.cuda.memory_reserved(self.device)
        return (others + torch.cuda.max_memory_reserved(self.device)) / total

    def free(self) -> None:
        """Free the memory of objects without references, and restart the peak."""
        free_memory(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)


def free_memory(device: torch.device) -> None:
    """Free the memory of objects without references. torch would keep it for this process."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def available_memory(groups: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process can still allocate: the free memory of the machine, or less where the limit of a container
    leaves less. psutil knows the machine only."""
    left = [psutil.virtual_memory().available]
    for folder in _memory_groups(groups, mounts):
        found = (_left_of_group(folder, *files) for files in (FILES_V2, FILES_V1))
        left += [value for value in found if value is not None]
    return max(0, min(left))


# The limit, what is used, and the entry of memory.stat for cached files, which the system takes back when it must.
FILES_V2 = ("memory.max", "memory.current", "inactive_file")
FILES_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _memory_groups(groups: Path, mounts: Path) -> list[Path]:
    """The folders of the control groups, versions 1 and 2, whose limits hold for this process: its own group and all above.

    Some may not exist: in a container the own group may be mounted as the root.
    """
    folders = []
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            root = mounts / kinds
            own = root / path.lstrip("/")
            folders += [own, *(parent for parent in own.parents if parent.is_relative_to(root))]
    return folders


def _left_of_group(folder: Path, limit: str, used: str, cached: str) -> int | None:
    try:
        text = (folder / limit).read_text().strip()
        stat = dict(line.split(maxsplit=1) for line in (folder / "memory.stat").read_text().splitlines())
        return None if text == "max" else int(text) - int((folder / used).read_text()) + int(stat.get(cached, 0))
    except (OSError, ValueError):
        return None  # not this version of control groups, or not for this process to read


def workers_here() -> int:
    """How many workers share this machine. Ray Train and torchrun set it in the environment; without them, all do."""
    return min(int(os.environ.get("LOCAL_WORLD_SIZE", distributed.world_size())), distributed.world_size())


class EnergyMeter:
    """Joules that the GPUs of all ranks used between two calls, as NVML counts them. None if a device does not count."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.handle = _nvml_handle(device)
        self.before = self._read()

    def flush(self) -> float | None:
        """Joules since the last call. Every rank must call it, and all get the same number."""
        if self.device.type != "cuda":  # true on every rank or on none, so that no rank waits in the sum below
            return None
        before, self.before = self.before, self._read()
        used = None if before is None or self.before is None else self.before - before
        return distributed.sum_if_all_have(used, self.device)

    def _read(self) -> float | None:
        if self.handle is None:
            return None
        import pynvml

        try:
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1000  # it counts millijoules
        except pynvml.NVMLError:  # the driver was restarted: the training continues without this number
            return None


def _nvml_handle(device: torch.device) -> object | None:
    """NVML's handle of a CUDA device that counts its energy (Volta and later)."""
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None
    return handle


class GradNorms:
    """The L1 norm of the gradient of every layer (Figure 2 of the paper), as the mean over the steps of an epoch.

    Sums stay on the device: one host synchronization an epoch. A layer is a weight of two or
    more dimensions: of a convolution, a dense layer or an embedding.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.layers = {
            name: param for name, param in model.named_parameters() if param.requires_grad and param.ndim >= 2
        }
        self.sums = torch.zeros(len(self.layers), dtype=torch.float64, device=device)
        self.steps = 0

    @torch.no_grad()
    def add(self) -> None:
        """Add the norms of the gradients that the layers have now; a layer without a gradient adds nothing."""
        self.steps += 1
        for index, param in enumerate(self.layers.values()):
            if param.grad is not None:
                self.sums[index] += param.grad.abs().sum(dtype=torch.float64)

    def to_json(self) -> list[Any]:
        """The steps and sums since the last :meth:`flush`. It waits for the device."""
        return [self.steps, self.sums.tolist()]

    def load(self, kept: list[Any]) -> None:
        """Go on from what :meth:`to_json` returned."""
        self.steps, sums = kept
        self.sums = torch.tensor(sums, dtype=self.sums.dtype, device=self.sums.device)

    def flush(self) -> dict[str, float]:
        """The mean norm of each layer since the last call, under the names of metrics."""
        means = (self.sums / max(self.steps, 1)).tolist()
        self.sums.zero_()
        self.steps = 0
        return {f"{GRAD_NORM_PREFIX}{name}": mean for name, mean in zip(self.layers, means, strict=True)}
