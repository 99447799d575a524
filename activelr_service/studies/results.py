"""Results to report on, wherever they are: a file, a study, or an MLflow experiment."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from activelr_service.config.task import metrics_of_task
from activelr_service.errors import CommandError
from activelr_service.report import load_table
from activelr_service.runs.run import output_root
from activelr_service.studies.folder import FOLDER, StudyFolder
from activelr_service.studies.table import column_name, table_names
from activelr_service.tracking.client import TrackedRun, read_experiment
from activelr_service.tracking.store import DATABASE, embedded_store, tracking_uri

FILES = (".csv", ".parquet")


def read_results(
    target: str, output_dir: str, metric: str | None, higher_is_better: bool | None
) -> tuple[pd.DataFrame, str]:
    """The table of ``target`` in the form of a report, and a title.

    ``target``: a .csv or .parquet file, a study's name or folder, or an MLflow experiment's name. Raises
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
    return make_table(read_experiment(str(uri), target)), target


def find_study(output_dir: str, target: str) -> StudyFolder | None:
    """A study by its folder or name."""
    folders = (Path(target), output_root(output_dir) / FOLDER / target)
    return next((StudyFolder(path) for path in folders if (path / "study.yaml").is_file()), None)


def make_table(runs: list[TrackedRun]) -> pd.DataFrame:
    """One row per run and epoch of the trainings of an experiment."""
    return pd.DataFrame([row for run in runs for row in run_rows(run)])


def run_rows(run: TrackedRun) -> list[dict[str, Any]]:
    params, tags = run.params, run.tags
    task = metrics_of_task(params.get("task", "classification"))
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
    return [{**row, "score": row.get(metric, math.nan)} for row in rows]
