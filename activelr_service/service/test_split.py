"""The test split of a run: measured once, at the end, with the exported model of the best epoch.

Nothing before looks at its samples, so that the number is not optimistic.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from activelr_service.config import CompleteJob, ResolvedJob
from activelr_service.data import build_test, prepare_data
from activelr_service.data.info import DataInfo
from activelr_service.errors import JobError
from activelr_service.export.model import RECIPE, load_model
from activelr_service.runs.record import Record
from activelr_service.runs.run import Run
from activelr_service.service.prepare import check_data

Log = Callable[[str], None]


def measure_test(run: Run, job: ResolvedJob, info: DataInfo, best: Record, log: Log) -> None:
    """Measure the exported model of a run on the test split, and write the result as ``test`` to the state of the run.

    ``best`` is the epoch of the model. Nothing is done without a test split, or if this model was measured before.

    If the samples cannot be read, the reason is logged and kept in place of the metrics: the run is complete without them.
    """
    complete = run.job()
    if not info.num_test or not isinstance(complete, CompleteJob):
        return
    sha256 = json.loads((run.model / RECIPE).read_text()).get("sha256")
    before = run.state().get("test") or {}
    if before.get("sha256") == sha256 and "metrics" in before:
        return
    log(f"run {run.label}: the test split is measured: {info.num_test:,} samples")
    try:
        result = _measure(run, job, complete.micro_batch_size(), log)
    except Exception as error:  # of whatever kind: the data can be a user's own code
        remedy = f"`activelr evaluate {run.folder} --split test` measures it later"
        result = {"error": _one_line(error)}
        log(f"warning: the test split is not measured: {result['error']}; {remedy}")
    run.update(test={**result, "epoch": best.epoch, "timestamp_ms": best.timestamp_ms, "sha256": sha256})
    if "metrics" in result:
        log(f"  test: {describe_test(run.state())}")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, JobError) else f"{type(error).__name__}: {text}"


def _measure(run: Run, job: ResolvedJob, batch_size: int, log: Log) -> dict[str, Any]:
    from activelr_service.training.measure import measure

    if doubt := check_data(run, "the test samples could be among those that were trained on"):
        log(f"run {run.label}: {doubt}")
    data = prepare_data(job.data, Path(job.output_dir) / ".cache", job.task)
    score = measure(job.task, load_model(run.model), build_test(data), batch_size, log)
    return {"samples": score.rows, "metrics": score.metrics, "left_out": score.left_out}


def row_of_test(state: dict[str, Any]) -> list[dict[str, float]]:
    """The metrics on the test split as one row for a tracker, under ``test/``; no row if they were not measured."""
    test = state.get("test") or {}
    if "metrics" not in test:
        return []
    metrics = {f"test/{name}": value for name, value in test["metrics"].items()}
    return [{**metrics, "epoch": test["epoch"], "timestamp_ms": test["timestamp_ms"]}]


def describe_test(state: dict[str, Any]) -> str:
    """The result on the test split in one line, the score first; empty if there is no test split."""
    test = state.get("test") or {}
    if "metrics" not in test:
        return f"not measured: {test['error']}" if test else ""
    score = str(state.get("score_name") or "").removeprefix("val/")
    names = dict.fromkeys([name for name in (score, "loss") if name in test["metrics"]])
    shown = ", ".join(f"{name} {test['metrics'][name]:.4f}" for name in names)
    left_out = "".join(f"; left out: {count:,} {reason}" for reason, count in test["left_out"].items())
    return f"{shown} on {test['samples']:,} samples{left_out}"
