"""The memory of one worker: how much there is, how much of its share it uses, and how to give it back."""

import gc
import os
from pathlib import Path

import psutil
import torch

from activelr_service.training import distributed


class MemoryMeter:
    """The share of its memory that this worker uses: of the GPU's, or of what the machine has free for each worker."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.share = psutil.Process().memory_info().rss + available_memory() // workers_here()

    def used(self) -> float:
        """On a GPU the most since :meth:`free`, with what other processes have of it; on the CPU what is used now."""
        if self.device.type != "cuda":
            return psutil.Process().memory_info().rss / self.share
        free, total = torch.cuda.mem_get_info(self.device)
        others = total - free - torch.cuda.memory_reserved(self.device)
        return (others + torch.cuda.max_memory_reserved(self.device)) / total

    def free(self) -> None:
        """Give back what is no longer referred to."""
        free_memory(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)


def free_memory(device: torch.device) -> None:
    """Give back what is no longer referred to: torch would keep it for this process."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def available_memory(groups: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that can still be taken: what the machine has free, or less where a container's limit leaves less. psutil knows
    the machine only."""
    left = [psutil.virtual_memory().available]
    for folder in _memory_groups(groups, mounts):
        found = (_left_of_group(folder, *files) for files in (FILES_V2, FILES_V1))
        left += [value for value in found if value is not None]
    return max(0, min(left))


# The limit, what is used, and the entry of memory.stat for cached files, which the system takes back when it must.
FILES_V2 = ("memory.max", "memory.current", "inactive_file")
FILES_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _memory_groups(groups: Path, mounts: Path) -> list[Path]:
    """The folders of the control groups, versions 1 and 2, whose limits hold for this process: its own and those above it.
    In a container its own may be mounted as the root, so that a path may not exist."""
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
    """How many workers share this machine: Ray Train and torchrun say it; otherwise all of them."""
    return min(int(os.environ.get("LOCAL_WORLD_SIZE", distributed.world_size())), distributed.world_size())
