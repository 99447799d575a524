"""The batches of an epoch, which can begin in the middle: then come the samples, and the random numbers, that an epoch which
was never interrupted would have had.

Loader processes draw crops and flips one after the other, from generators of their own. So each sends the state of its
generators along with its batch, and a process that replaces it goes on from there. Generators that a data set keeps for
itself are not seen: their numbers begin anew.
"""

import itertools
import random
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, DistributedSampler

CPU = torch.device("cpu")


class ResumableSampler(DistributedSampler):
    """As torch's, without its first ``start`` samples."""

    start = 0

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(super().__iter__(), self.start, None)


class EpochBatches:
    """An iterator over the batches of one epoch of a seeded loader, after the first ``start`` of them.

    ``states`` is what :attr:`states` was there; without it, the first batches are loaded again and thrown away.
    """

    def __init__(self, loader: DataLoader, start: int = 0, states: Sequence[Any] = ()) -> None:
        is_exact = loader.num_workers == 0 or len(states) == loader.num_workers
        skipped = start if is_exact else 0
        loader.sampler.start = skipped * int(loader.batch_size or 1)  # type: ignore[attr-defined] # a ResumableSampler
        self._sends_states = loader.num_workers > 0
        self._states: deque[Any] = deque(states if is_exact else (), maxlen=loader.num_workers)
        collate = loader.collate_fn
        if self._sends_states:
            loader.collate_fn = WithStates(collate)
            loader.worker_init_fn = partial(_begin_process, list(self._states)) if self._states else None
        self._batches = iter(loader)
        loader.collate_fn, loader.worker_init_fn = collate, None  # the processes have theirs: others see a plain loader
        for _ in range(start - skipped):
            next(self)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        batch = next(self._batches)
        if self._sends_states:
            batch, state = batch
            self._states.append(state)
        return batch

    @property
    def states(self) -> list[Any]:
        """The generators of the loader processes, in the order in which these give their next batches: plain JSON. Empty
        without processes, and as long as one of them has given no batch."""
        return list(self._states) if len(self._states) == self._states.maxlen else []


class WithStates:
    """A collate function that returns the batch, and the states of the generators after it was loaded."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        return self.collate(samples), random_states(CPU)


def _begin_process(states: list[Any], worker: int) -> None:
    set_random_states(states[worker], CPU)


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of the generators of Python, NumPy and torch, and of a CUDA device: plain JSON."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    states = {
        "python": [version, list(words), gauss],
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device).numpy().tobytes().hex()
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Set the generators to what :func:`random_states` returned."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_bytes_of(states["torch"]))
    if device.type == "cuda":
        torch.cuda.set_rng_state(_bytes_of(states["cuda"]), device)


def _bytes_of(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
