"""The functions of ``import activelr_service`` that have no other home. The command line calls the same ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from activelr_service.config import TrainJob, read_job
from activelr_service.errors import naming_missing_packages

if TYPE_CHECKING:
    from pandas import DataFrame

    from activelr_service.service.launch import Run


@naming_missing_packages("activelr_service.train")
def train(job: TrainJob | str | Path, overrides: Sequence[str] = ()) -> "Run":
    """Train a job to its end, and return its run.

    If the job has an unfinished run, that run is continued from its last committed epoch, to the same bits as without the
    interruption. Else a new run begins. With other epochs or another budget, the unfinished run becomes longer or shorter.

    Args:
        job: A job that :func:`~activelr_service.load_job` has read, or the path of a YAML file.
        overrides: ``"a.b=value"`` texts, as after ``--set``. They change a job that is read from a file.

    Returns:
        The finished run: ``run.folder`` is its folder, ``run.model`` the folder of the exported model, ``run.state()`` its
        status and its best score.

    Raises:
        JobError: The job, its data or its model cannot be used. A job that is read from a file has the lines in the text.
        TypeError: ``overrides`` are given with a job that has been read already.
        TrackingError: The tracking server does not answer. Nothing was started.
        RunFailedError: The training was started and did not end well.
        MissingPackageError: The extra ``train`` is not installed.
    """
    from activelr_service.service.launch import train as train_job

    if not isinstance(job, TrainJob):
        read, source = read_job(job, overrides)
        with source.locating():
            return train_job(read)
    if overrides:
        raise TypeError("overrides change a job that is read from a file; give them to load_job instead")
    return train_job(job)


@naming_missing_packages("activelr_service.report")
def report(
    results: str | Path,
    output: str | Path = "report",
    *,
    metric: str | None = None,
    higher_is_better: bool | None = None,
    output_dir: str = "outputs",
) -> "DataFrame":
    """Write a report on how robust optimizers are: tables, figures and ``report.html``.

    Args:
        results: A .csv or .parquet file, the name or folder of a study, or the name of an MLflow experiment.
        output: The folder to write.
        metric: The column of a file that is the score.
        higher_is_better: Whether a high score is a good one. Needed for a metric whose name does not say it.
        output_dir: Where the studies are.

    Returns:
        The results as a table, with one row for each trial and epoch.

    Raises:
        CommandError: There are no such results, they cannot be used, or the folder cannot be written.
        MissingPackageError: The extra ``train`` is not installed.
    """
    from activelr_service.studies.table import report_results

    return report_results(str(results), output_dir, Path(output), metric, higher_is_better)
