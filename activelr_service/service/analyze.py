"""The paper's analyses: written to a folder and tracked in MLflow."""

from pathlib import Path

from activelr_service.analyses import carbon, write_analysis, write_table
from activelr_service.errors import CommandError
from activelr_service.export.model import RECIPE, build_from_recipe
from activelr_service.runs.journal import read_journal
from activelr_service.runs.run import Run
from activelr_service.tracking.store import open_tracker, tracking_uri

EXPERIMENT = "activelr-analyses"


def analyze(name: str, root: Path, track: bool) -> list[str]:
    """Run an analysis and write it to ``root/analyses/NAME``; returns lines for the user, with the paths of its files."""
    folder = root / "analyses" / name
    lines, paths = write_analysis(name, folder)
    return [*lines, *_keep(name, root, folder, paths, track)]


def analyze_run(run: Run, root: Path, search_runs: int, watts: float | None, track: bool) -> list[str]:
    """The carbon that a run has emitted, and that the search which it replaces would emit. The run needs one epoch."""
    history = [record.metrics for record in read_journal(run.journal)]
    if not history:
        raise CommandError(f"{run.label} has no finished epoch yet: its status is {run.status()}")
    workers = run.job().workers
    if workers.use_gpu and watts is None and not carbon.is_measured(history):
        known = ", ".join(f"{power} for {device}" for device, power in carbon.WATTS.items() if device != "CPU")
        raise CommandError(f"no energy was measured on the GPUs of {run.label}; give their power with --watts: {known}")
    devices = workers.num_workers if workers.use_gpu else 1
    power = carbon.WATTS["CPU"] if watts is None else watts
    table = carbon.describe_run(history, count_tflop(run, history), devices, power, search_runs)
    folder = root / "analyses" / "carbon" / run.label
    paths = write_table("carbon", folder, table, carbon.draw(table))
    return [*carbon.summarize_run(table), *_keep(f"carbon {run.label}", root, folder, paths, track)]


def count_tflop(run: Run, history: list[dict[str, float]]) -> float | None:
    """Floating-point operations of a run in units of 1e12: for every sample that was trained on, three times those of a
    forward pass (Kaplan et al. 2020, section 2.1).

    None if the model takes images of any size, if it was not exported, or if the samples were not counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if not (run.model / RECIPE).exists() or any("perf/samples" not in metrics for metrics in history):
        return None
    with torch.device("meta"):
        module, info = build_from_recipe(run.model)
        if not info.input_shape:
            return None
        inputs = torch.zeros((1, *info.input_shape), dtype=torch.int64 if info.vocab_size else torch.float32)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module.eval()(inputs)
    rows = sum(metrics["perf/samples"] for metrics in history)
    return 3 * counter.get_total_flops() * rows / 1e12


def _keep(name: str, root: Path, folder: Path, paths: list[Path], track: bool) -> list[str]:
    lines = [f"  {path}" for path in paths]
    if track:
        tracker = open_tracker(tracking_uri(None, root), EXPERIMENT, name, root)
        tracker.log_artifacts(folder, paths)
        tracker.end("finished")
        lines.append(f"  MLflow run {tracker.run_id} in {EXPERIMENT}")
    return lines
