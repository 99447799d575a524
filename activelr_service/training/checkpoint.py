"""Checkpoints at the end of an epoch: committed whole or not at all, verified before they are read.

A checkpoint is a folder ``epoch-NNNNNN``, which appears under its name by one rename. Its files are in
:mod:`activelr_service.training.checkpoint_files`.
"""

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

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

LATEST_KEPT = 2


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
            epoch = history[-1].epoch
            temporary = self._write(training, history[-1])
            metrics = metrics_of_task(training.job.task, training.job.metric)
            best = best_epoch(history, metrics.score, metrics.higher_is_better)
            with self._alone():
                self._place(temporary, epoch)
                append_journal(self.journal, history[-1])
                self._prune({best, *range(epoch - LATEST_KEPT + 1, epoch + 1)})
        distributed.barrier()

    def restore(self, training: TrainContext) -> list[Record]:
        """Load the latest checkpoint that verifies into ``training``; returns its history, empty if there is none.

        One that does not verify is set aside as ``*.corrupt``; if none is left, :class:`CheckpointError` says why.
        """
        found = self.find_valid() if distributed.rank() == 0 else 0
        epoch = distributed.broadcast_int(found, training.device)
        if epoch < 0:
            raise CheckpointError(f"no valid checkpoint in {self.folder}; restore it, or start a new run")
        history = self.history(epoch)
        if history:
            load_checkpoint(self.path(epoch), training, history)
        distributed.barrier()  # no rank may replace the journal before all have read it
        if distributed.rank() == 0:
            with self._alone():
                write_journal(self.journal, history)
        distributed.barrier()
        return history

    def find_valid(self) -> int:
        """The latest epoch whose checkpoint verifies; 0 if no epoch was ever committed, -1 if none of them is left."""
        epochs = sorted(self.epochs(), reverse=True)
        for epoch in epochs:
            problem = verify(self.path(epoch))
            if problem is None:
                return epoch
            self.log(f"checkpoint {self.path(epoch)} is set aside: {problem}")
            with self._alone():
                os.replace(self.path(epoch), self._unused_name(epoch))
        is_lost = epochs or any(self.folder.glob("*.corrupt*")) or salvage_journal(self.journal)
        return -1 if is_lost else 0

    def history(self, epoch: int) -> list[Record]:
        """The records of the epochs up to ``epoch``, whose checkpoint is valid: its own record is in the checkpoint, those
        before it are in the journal. Lines of the journal that cannot be read are left out, and said."""
        if epoch == 0:
            return []
        state = json.loads((self.path(epoch) / "state.json").read_text())
        if "history" in state:  # checkpoints of version 0.1.0 hold all records
            return [Record.from_json(record) for record in state["history"]]
        before = [record for record in salvage_journal(self.journal) if record.epoch < epoch]
        if len(before) < epoch - 1 and distributed.rank() == 0:
            self.log(
                f"the metrics of {epoch - 1 - len(before)} epochs are lost: their lines in {self.journal} are damaged"
            )
        return [*before, Record.from_json(state["record"])]

    def epochs(self) -> list[int]:
        found = (re.fullmatch(r"epoch-(\d{6,})", path.name) for path in self.folder.glob("epoch-*"))
        return [int(match[1]) for match in found if match]

    def path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:06d}"

    def _alone(self) -> AbstractContextManager[None]:
        return self.fence.held() if self.fence else nullcontext()

    def _write(self, training: TrainContext, record: Record) -> Path:
        temporary = self.folder / f".epoch-{record.epoch:06d}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            save_checkpoint(temporary, training, record, self.batch_size)
        except Exception:
            shutil.rmtree(temporary, ignore_errors=True)  # a full disk: what is left of it would stay in the way
            raise
        return temporary

    def _place(self, temporary: Path, epoch: int) -> None:
        final = self.path(epoch)
        if final.exists():  # another attempt left it, and it was not restored from
            os.replace(final, self._unused_name(epoch))
        os.rename(temporary, final)
        sync(self.folder)

    def _unused_name(self, epoch: int) -> Path:
        """Where a checkpoint that is not to be read again goes."""
        name = f"{self.path(epoch)}.corrupt"
        numbered = (Path(f"{name}-{number}") for number in itertools.count(2))
        return next(path for path in itertools.chain([Path(name)], numbered) if not path.exists())

    def _prune(self, keep: set[int]) -> None:
        for epoch in self.epochs():
            if epoch not in keep:
                shutil.rmtree(self.path(epoch))
        for leftover in self.folder.glob(".epoch-*"):
            shutil.rmtree(leftover)
