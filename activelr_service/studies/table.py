"""The table of a study: one row per trial and epoch, in the form that :mod:`activelr_service.report` reads."""

import math
from typing import Any

import pandas as pd

from activelr_service.config.task import metrics_of_task
from activelr_service.studies.folder import Outcome, StudyFolder
from activelr_service.studies.plan import Plan
from activelr_service.studies.space import Trial

RENAMED = {"perf/epoch_seconds": "seconds", "perf/rows": "samples"}


def make_table(plan: Plan, folder: StudyFolder) -> pd.DataFrame:
    """All trials of the plan that have ended. Epoch 0 is the untrained model; a trial that diverged or failed has a last row
    without a score for the epoch that it ended in."""
    rows = []
    for trial in plan.trials:
        if trial.id in plan.refused:
            rows += trial_rows(trial, plan, Outcome("failed", plan.refused[trial.id]))
        elif (outcome := folder.read_outcome(trial.id)) is not None:
            rows += trial_rows(trial, plan, outcome)
    return pd.DataFrame(rows)


def trial_rows(trial: Trial, plan: Plan, outcome: Outcome) -> list[dict[str, Any]]:
    job = plan.ready[trial.id][0] if trial.id in plan.ready else trial.job
    task = metrics_of_task(job.task or "classification")
    metric = column_name(task.val_score)
    constant: dict[str, Any] = {
        "workload": trial.workload,
        "optimizer": trial.optimizer,
        "initial_lr": math.nan if job.optimizer.lr is None else job.optimizer.lr,
        "batch_size": job.global_batch_size,
        "seed": job.seed,
        **{path: str(value) for path, value in trial.settings.items()},
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
    return [{**row, "score": row.get(metric, math.nan)} for row in rows]


def table_names(row: dict[str, float]) -> dict[str, float]:
    """The metrics of a row by their column names, without the time stamp."""
    return {column_name(name): value for name, value in row.items() if name != "timestamp_ms"}


def column_name(metric: str) -> str:
    """The column of a metric: ``val/accuracy`` becomes ``val_accuracy``, which every tool takes as a name."""
    return RENAMED.get(metric, metric.replace("/", "_"))
