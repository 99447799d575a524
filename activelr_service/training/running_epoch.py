"""An epoch while it is trained, on one rank: its batches, its sums, and how far it is. It can be kept and continued."""

import time
from typing import Any

from activelr_service.training.batches import EpochBatches, random_states, set_random_states
from activelr_service.training.build import TrainContext, seed_loader
from activelr_service.training.evaluate import MetricAccumulator

Part = dict[str, Any]


class RunningEpoch:
    """Epoch number ``epoch`` after ``steps`` optimizer steps.

    ``part`` is what :meth:`to_json` returned on this rank when the epoch was interrupted. Then the batches, the sums and
    the random numbers go on from there. ``paused`` counts the seconds that were not spent on training.
    """

    def __init__(self, training: TrainContext, epoch: int, part: Part | None = None) -> None:
        seed_loader(training.train_loader, training.job.seed, epoch)
        self.training = training
        self.epoch = epoch
        self.steps: int = part["steps"] if part else 0
        self.paused: float = part["paused"] if part else 0.0
        self.joules: float | None = part["joules"] if part else None
        self.started = time.monotonic() - (part["seconds"] if part else 0.0)
        self.totals = MetricAccumulator((*training.task.sum_names, "grad_norm"), training.device)
        start = self.steps * training.job.grad_accum_steps
        self.batches = EpochBatches(training.train_loader, start, part["loader"] if part else ())
        if part:
            self.totals.load(part["totals"])
            if training.grad_norms is not None:
                training.grad_norms.load(part["grad_norms"])
            set_random_states(part["random"], training.device)

    @property
    def seconds(self) -> float:
        """Since the epoch began, over all attempts."""
        return time.monotonic() - self.started

    @property
    def train_seconds(self) -> float:
        """Of :attr:`seconds`, those that were spent on training."""
        return self.seconds - self.paused

    def add_joules(self) -> None:
        """Add the energy since the last call; every rank must call it."""
        joules = self.training.energy.flush()
        if joules is not None:
            self.joules = (self.joules or 0.0) + joules

    def to_json(self) -> Part:
        """What of this rank a checkpoint within the epoch keeps."""
        norms = self.training.grad_norms
        return {
            "steps": self.steps,
            "paused": self.paused,
            "joules": self.joules,
            "seconds": self.seconds,
            "totals": self.totals.to_json(),
            "grad_norms": None if norms is None else norms.to_json(),
            "loader": self.batches.states,
            "random": random_states(self.training.device),
        }
