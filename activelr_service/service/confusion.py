"""The confusion matrix of the best epoch of a run, from its checkpoint to a picture and a table."""

from collections.abc import Sequence

from activelr_service.runs.record import Record
from activelr_service.runs.run import Run

CONFUSION = "confusion"


def draw_confusion_of(run: Run, best: Record, classes: Sequence[str]) -> None:
    """Write ``confusion.png`` and ``confusion.csv`` to the figures of the run, if the checkpoint of ``best`` has counted
    them: older ones have not, and neither do tasks without classes."""
    from activelr_service.runs.confusion_figure import write_confusion
    from activelr_service.training.checkpoint import CheckpointStore
    from activelr_service.training.checkpoint_files import load_tables

    checkpoint = CheckpointStore(run.checkpoints, run.journal, print).path(best.epoch)
    counts = load_tables(checkpoint).get(CONFUSION)
    if counts is not None:
        names = list(classes) or [str(number) for number in range(len(counts))]
        title = f"{run.label}: validation samples at epoch {best.epoch}"
        write_confusion(run.figures, counts.numpy(), names, title)
