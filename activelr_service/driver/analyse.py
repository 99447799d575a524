"""The paper's analyses: written to a folder and tracked in MLflow."""

import os
from pathlib import Path

from activelr_service.analyses import carbon, write_analysis, write_table
from activelr_service.config import CommandError
from activelr_service.driver.finish import embedded_store, new_tracker
from activelr_service.record import read_journal
from activelr_service.runs import Run

EXPERIMENT = "activelr-analyses"


def analyse(name: str, root: Path, track: bool) -> list[str]:
    """Run an analysis into ``root/analyses/NAME``; returns the lines to read, and where the files are."""
    folder = root / "analyses" / name
    lines, paths = write_analysis(name, folder)
    return [*lines, *_keep(name, root, folder, paths, track)]


def analyse_run(run: Run, root: Path, search_runs: int, watts: float | None, track: bool) -> list[str]:
    """The account of carbon of a run that has finished epochs, and of the search it replaces."""
    history = [record.metrics for record in read_journal(run.journal)]
    if not history:
        raise CommandError(f"{run.label} has no finished epoch yet: its status is {run.status()}")
    workers = run.job().workers
    if workers.use_gpu and watts is None and not carbon.is_measured(history):
        known = ", ".join(f"{power} for {device}" for device, power in carbon.WATTS.items() if device != "CPU")
        raise CommandError(f"no energy was measured on the GPUs of {run.label}; give their power with --watts: {known}")
    devices = (workers.num_workers or 1) if workers.use_gpu else 1
    table = carbon.describe_run(history, devices, carbon.WATTS["CPU"] if watts is None else watts, search_runs)
    folder = root / "analyses" / "carbon" / run.label
    paths = write_table("carbon", folder, table, carbon.draw(table))
    return [*carbon.summarize_run(table), *_keep(f"carbon {run.label}", root, folder, paths, track)]


def _keep(name: str, root: Path, folder: Path, paths: list[Path], track: bool) -> list[str]:
    lines = [f"  {path}" for path in paths]
    if track:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or embedded_store(root)
        tracker = new_tracker(uri, EXPERIMENT, name, root)
        tracker.log_artifacts(folder, paths)
        tracker.finish("finished")
        lines.append(f"  MLflow run {tracker.run_id} in {EXPERIMENT}")
    return lines
