"""Tables of results: a row for each trial and epoch, from a study, an MLflow experiment or a file.

The columns are those that :mod:`activelr_service.reports` reads.
"""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from activelr_service.config.task import TaskMetrics, metrics_of_task
from activelr_service.errors import CommandError, naming_missing_packages
from activelr_service.reports import load_table, summary_lines, write_report
from activelr_service.runs.run import output_root
from activelr_service.studies.folder import FOLDER, Outcome, StudyFolder
from activelr_service.studies.plan import Plan
from activelr_service.studies.space import Trial
from activelr_service.tracking.client import TrackedRun, read_experiment
from activelr_service.tracking.store import DATABASE, embedded_store, tracking_uri

RENAMED = {"perf/epoch_seconds": "seconds", "perf/samples": "samples", "perf/rows": "samples"}  # perf/rows: until 0.1


def make_table(plan: Plan, folder: StudyFolder) -> pd.DataFrame:
    """The table of all trials of a plan that have ended, and of those that cannot run.

    Epoch 0 is the untrained model. A trial that diverged or failed has a last row for the epoch in which it ended; that
    row has no score.
    """
    rows = []
    for trial in plan.trials:
        if trial.id in plan.refused:
            rows += trial_rows(trial, plan, Outcome("failed", plan.refused[trial.id]))
        elif (outcome := folder.read_outcome(trial.id)) is not None:
            rows += trial_rows(trial, plan, outcome)
    return pd.DataFrame(rows)


def trial_rows(trial: Trial, plan: Plan, outcome: Outcome) -> list[dict[str, Any]]:
    """The rows of one trial."""
    job = plan.ready[trial.id][0] if trial.id in plan.ready else trial.job
    task = metrics_of_trial(trial, plan)
    metric = column_name(task.val_score)
    constant: dict[str, Any] = {
        "workload": trial.workload,
        "optimizer": trial.optimizer,
        "initial_lr": math.nan if job.optimizer.lr is None else job.optimizer.lr,
        "batch_size": job.global_batch_size,
        "seed": job.seed,
        **{path: str(value) for path, value in trial.settings.items()},
        **({"random_trial": trial.random_trial} if trial.random_trial else {}),
        "trial": trial.id,
        "status": outcome.status,
        "reason": outcome.reason,
        "metric": metric,
        "higher_is_better": task.higher_is_better,
    }
    rows = [{**constant, **table_names(row)} for row in outcome.rows]
    if outcome.status != "finished":
        rows = [row for row in rows if row["epoch"] < outcome.epoch]
        rows.append({**constant, "epoch": outcome.epoch})
    return with_scores(rows, metric)


def with_scores(rows: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """The rows with their ``score``, and with their ``test_score`` if there are test samples: the same metric on these."""
    test = metric.replace("val_", "test_", 1)
    has_test = any(test in row for row in rows)
    columns = {"score": metric, "test_score": test} if has_test else {"score": metric}
    return [{**row, **{name: row.get(column, math.nan) for name, column in columns.items()}} for row in rows]


def metrics_of_trial(trial: Trial, plan: Plan) -> TaskMetrics:
    """The metrics of a trial, and which one is its score. A trial that cannot run has those of its workload."""
    like = [trial, *(other for other in plan.trials if other.workload == trial.workload)]
    for job in (plan.ready[each.id][0] for each in like if each.id in plan.ready):
        return metrics_of_task(job.task, job.metric)
    return metrics_of_task(trial.job.task or "classification")


def report_lines(table: pd.DataFrame, folder: Path) -> list[str]:
    """Lines for the user: the summary of the results, and where the report is."""
    return [*summary_lines(table), f"{folder / 'report.html'}"]


def table_names(row: dict[str, float]) -> dict[str, float]:
    """The metrics of an epoch under the names of columns, without the time stamp."""
    return {column_name(name): value for name, value in row.items() if name != "timestamp_ms"}


def column_name(metric: str) -> str:
    """The column of a metric: ``val/accuracy`` becomes ``val_accuracy``, which every tool takes as a name."""
    return RENAMED.get(metric, metric.replace("/", "_"))


FILES = (".csv", ".parquet")


def read_results(
    target: str, output_dir: str, metric: str | None, higher_is_better: bool | None
) -> tuple[pd.DataFrame, str]:
    """The table of ``target`` and a title for its report.

    ``target``: a .csv or .parquet file, the name or folder of a study, or the name of an MLflow experiment. Raises
    :class:`CommandError` if it is none of them.
    """
    path = Path(target)
    study = find_study(output_dir, target)
    if path.suffix in FILES or path.is_file():
        return load_table(path, metric, higher_is_better), path.stem
    if study is not None:
        results = study.report / "results.parquet"
        if not results.exists():
            raise CommandError(f"no trial of the study {target} has ended yet")
        return load_table(results, metric, higher_is_better), study.path.name
    root = output_root(output_dir)
    uri = tracking_uri(None, root)
    if uri == embedded_store(root) and not (root / DATABASE).exists():
        raise CommandError(
            f"no results {target!r}: no such file, and neither a study nor an MLflow store in {output_dir}"
        )
    return experiment_table(read_experiment(str(uri), target)), target


@naming_missing_packages("activelr_service.report")
def report(
    results: str | Path,
    output: str | Path = "report",
    *,
    metric: str | None = None,
    higher_is_better: bool | None = None,
    output_dir: str = "outputs",
) -> pd.DataFrame:
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
    """
    table, title = read_results(str(results), output_dir, metric, higher_is_better)
    try:
        write_report(table, Path(output), title)
    except OSError as error:
        raise CommandError(f"the report {output} cannot be written: {error.strerror}") from error
    return table


def find_study(output_dir: str, target: str) -> StudyFolder | None:
    """The study with this folder or name, None if there is none."""
    folders = (Path(target), output_root(output_dir) / FOLDER / target)
    return next((StudyFolder(path) for path in folders if (path / "study.yaml").is_file()), None)


def experiment_table(runs: list[TrackedRun]) -> pd.DataFrame:
    """The table of an MLflow experiment: a row for each run and epoch."""
    return pd.DataFrame([row for run in runs for row in run_rows(run)])


def run_rows(run: TrackedRun) -> list[dict[str, Any]]:
    """The rows of one MLflow run, with the columns of :func:`trial_rows`."""
    params, tags = run.params, run.tags
    task = metrics_of_task(params.get("task", "classification"), params.get("metric"))
    metric = column_name(task.val_score)
    status = tags.get("activelr.status", "finished" if run.status == "FINISHED" else "failed")
    constant = {
        "workload": tags.get("activelr.workload", params.get("name", "")),
        "optimizer": tags.get("activelr.optimizer", params["optimizer.type"]),
        "initial_lr": float(params.get("optimizer.lr", "nan")),
        "batch_size": float(params.get("global_batch_size", "nan")),
        "seed": int(params.get("seed", "0")),
        "trial": run.run_id,
        "status": status,
        "reason": tags.get("activelr.reason", ""),
        "metric": metric,
        "higher_is_better": task.higher_is_better,
    }
    epochs = sorted({epoch for values in run.history.values() for epoch in values})
    by_epoch = [{name: values[epoch] for name, values in run.history.items() if epoch in values} for epoch in epochs]
    rows = [{**constant, "epoch": epoch, **table_names(row)} for epoch, row in zip(epochs, by_epoch, strict=True)]
    if status != "finished":
        rows.append({**constant, "epoch": max(epochs, default=-1) + 1})
    return with_scores(rows, metric)
