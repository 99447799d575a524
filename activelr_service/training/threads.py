"""The number of threads of torch, which belongs to the whole process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def threads_kept() -> Iterator[None]:
    """Inside, a training may set the number of threads of torch. Afterwards the process has its own number again."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
