"""Checkpoints: committed whole or not at all, verified before they are read.

A checkpoint is a folder ``epoch-NNNNNN``, which appears under its name by one rename. Its files are in
:mod:`activelr_service.training.checkpoint_files`. Within a long epoch there is one more, ``epoch-NNNNNN-step-NNNNNN``. The
next one replaces it.
"""

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

from activelr_service.config.task import metrics_of_task
from activelr_service.errors import CheckpointError
from activelr_service.runs.fence import Fence
from activelr_service.runs.files import sync
from activelr_service.runs.journal import append_journal, salvage_journal, write_journal
from activelr_service.runs.record import Record, best_epoch
from activelr_service.training import distributed
from activelr_service.training.batch_size.choice import BatchSizeChoice
from activelr_service.training.build import TrainContext
from activelr_service.training.checkpoint_files import load_checkpoint, save_checkpoint, verify
from activelr_service.training.running_epoch import Part

LATEST_KEPT = 2


class Place(NamedTuple):
    """Where a checkpoint was written: after so many whole epochs, and so many steps of the next one."""

    epochs: int
    steps: int = 0

    @property
    def name(self) -> str:
        return f"epoch-{self.epochs + 1:06d}-step-{self.steps:06d}" if self.steps else f"epoch-{self.epochs:06d}"

    @classmethod
    def of(cls, name: str) -> "Place | None":
        """The place of a checkpoint of this name; None for the name of anything else."""
        found = re.fullmatch(r"epoch-(\d{6,})(?:-step-(\d{6,}))?", name)
        if found is None:
            return None
        return cls(int(found[1])) if found[2] is None else cls(int(found[1]) - 1, int(found[2]))


START = Place(0)


class CheckpointStore:
    """The checkpoints of one run, and the journal that lists its committed epochs. All ranks share the folder.

    With a ``fence`` only the newest attempt writes: an older one raises
    :class:`~activelr_service.runs.fence.SupersededError` and changes nothing.
    """

    def __init__(
        self,
        folder: Path,
        journal: Path,
        log: Callable[[str], None],
        batch_size: BatchSizeChoice | None = None,
        fence: Fence | None = None,
    ) -> None:
        self.folder = folder
        self.journal = journal
        self.log = log
        self.batch_size = batch_size
        self.fence = fence

    def commit(self, training: TrainContext, history: list[Record]) -> None:
        """Write the checkpoint of the last record's epoch; when any rank returns, it is on disk."""
        if distributed.rank() == 0:
            place = Place(history[-1].epoch)
            temporary = self._write(place, training, history[-1], None)
            metrics = metrics_of_task(training.job.task)
            best = best_epoch(history, metrics.score, metrics.higher_is_better)
            with self._alone():
                self._place(temporary, place)
                append_journal(self.journal, history[-1])
                self._prune({best, *range(place.epochs - LATEST_KEPT + 1, place.epochs + 1)})
        distributed.barrier()

    def commit_within(self, training: TrainContext, history: list[Record], steps: int, parts: list[Part]) -> None:
        """Write a checkpoint after so many ``steps`` of the epoch that follows ``history``; ``parts`` are those of all
        ranks. It replaces the one before it. When any rank returns, it is on disk."""
        if distributed.rank() == 0:
            place = Place(history[-1].epoch if history else 0, steps)
            temporary = self._write(place, training, history[-1] if history else None, parts)
            with self._alone():
                self._place(temporary, place)
                self._prune_within(place)
        distributed.barrier()

    def restore(self, training: TrainContext) -> tuple[list[Record], Part | None]:
        """Load the latest checkpoint that verifies into ``training``. Returns its history, empty if no epoch has ended, and
        what it keeps of this rank within an epoch, if it was written there.

        One that does not verify is set aside as ``*.corrupt``; if none is left, :class:`CheckpointError` says why.
        """
        found = (self.find_valid() or Place(-1)) if distributed.rank() == 0 else START
        place = Place(*(distributed.broadcast_int(number, training.device) for number in found))
        if place.epochs < 0:
            raise CheckpointError(f"no valid checkpoint in {self.folder}; restore it, or start a new run")
        history = self.history(place)
        part = None if place == START else load_checkpoint(self.path(place), training, history)
        distributed.barrier()  # no rank may replace the journal before all have read it
        if distributed.rank() == 0:
            with self._alone():
                write_journal(self.journal, history)
        distributed.barrier()
        return history, part

    def find_valid(self) -> Place | None:
        """The latest checkpoint that verifies. Without one: :data:`START` if no epoch was ever ended, else None."""
        places = sorted(self.places(), reverse=True)
        for place in places:
            problem = verify(self.path(place))
            if problem is None:
                return place
            self.log(f"checkpoint {self.path(place)} is set aside: {problem}")
            with self._alone():
                os.replace(self.path(place), self._unused_name(place))
        aside = (Place.of(path.name.partition(".corrupt")[0]) for path in self.folder.glob("*.corrupt*"))
        was_ended = any(place is not None and place.epochs > 0 for place in [*places, *aside])
        return None if was_ended or salvage_journal(self.journal) else START

    def history(self, place: Place) -> list[Record]:
        """The records of the epochs before ``place``, whose checkpoint is valid: the last record is in the checkpoint, those
        before it are in the journal. Lines of the journal that cannot be read are left out, and said."""
        epoch = place.epochs
        if epoch == 0:
            return []
        state = json.loads((self.path(place) / "state.json").read_text())
        if "history" in state:  # checkpoints of version 0.1.0 hold all records
            return [Record.from_json(record) for record in state["history"]]
        before = [record for record in salvage_journal(self.journal) if record.epoch < epoch]
        if len(before) < epoch - 1 and distributed.rank() == 0:
            self.log(
                f"the metrics of {epoch - 1 - len(before)} epochs are lost: their lines in {self.journal} are damaged"
            )
        return [*before, Record.from_json(state["record"])]

    def places(self) -> list[Place]:
        """All checkpoints, in no order."""
        return [place for path in self.folder.glob("epoch-*") if (place := Place.of(path.name))]

    def epochs(self) -> list[int]:
        """The epochs that have a checkpoint of their end."""
        return [place.epochs for place in self.places() if not place.steps]

    def path(self, place: Place | int) -> Path:
        """The folder of a checkpoint; a number means the end of that epoch."""
        return self.folder / (Place(place) if isinstance(place, int) else place).name

    def _alone(self) -> AbstractContextManager[None]:
        return self.fence.held() if self.fence else nullcontext()

    def _write(self, place: Place, training: TrainContext, record: Record | None, parts: list[Part] | None) -> Path:
        temporary = self.folder / f".{place.name}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            save_checkpoint(temporary, training, record, self.batch_size, parts)
        except Exception:
            shutil.rmtree(temporary, ignore_errors=True)  # a full disk: what is left of it would stay in the way
            raise
        return temporary

    def _place(self, temporary: Path, place: Place) -> None:
        final = self.path(place)
        if final.exists():  # another attempt left it, and it was not restored from
            os.replace(final, self._unused_name(place))
        os.rename(temporary, final)
        sync(self.folder)

    def _unused_name(self, place: Place) -> Path:
        """Where a checkpoint that is not to be read again goes."""
        name = f"{self.path(place)}.corrupt"
        numbered = (Path(f"{name}-{number}") for number in itertools.count(2))
        return next(path for path in itertools.chain([Path(name)], numbered) if not path.exists())

    def _prune(self, keep: set[int]) -> None:
        for epoch in self.epochs():
            if epoch not in keep:
                shutil.rmtree(self.path(epoch))
        self._prune_within(None)
        for leftover in self.folder.glob(".epoch-*"):
            shutil.rmtree(leftover)

    def _prune_within(self, keep: Place | None) -> None:
        """Remove the checkpoints within epochs, but for one. Each is renamed first: half of one would look damaged."""
        for place in self.places():
            if place.steps and place != keep:
                hidden = self.folder / f".{place.name}"
                shutil.rmtree(hidden, ignore_errors=True)
                os.rename(self.path(place), hidden)
                shutil.rmtree(hidden)
