"""The memory of one worker: how much of its share it uses, giving it back, and errors that say there is no more."""

import gc
import os

import psutil
import torch

from activelr_service.training import distributed

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "low on memory", "status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or says_out_of_memory(str(error))


def says_out_of_memory(text: str) -> bool:
    return any(words in text.lower() for words in OUT_OF_MEMORY)


class MemoryMeter:
    """The share of its memory that this worker uses: of the GPU's, or of what the machine has free for each worker."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        available = psutil.virtual_memory().available // workers_here()
        self.share = psutil.Process().memory_info().rss + available

    def used(self) -> float:
        """On a GPU the most since :meth:`free`, with what other processes have of it; on the CPU what is used now."""
        if self.device.type != "cuda":
            return psutil.Process().memory_info().rss / self.share
        free, total = torch.cuda.mem_get_info(self.device)
        others = total - free - torch.cuda.memory_reserved(self.device)
        return (others + torch.cuda.max_memory_reserved(self.device)) / total

    def free(self) -> None:
        """Give back what is no longer referred to."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


def workers_here() -> int:
    """How many workers share this machine: Ray Train and torchrun say it; otherwise all of them."""
    return min(int(os.environ.get("LOCAL_WORLD_SIZE", distributed.world_size())), distributed.world_size())
