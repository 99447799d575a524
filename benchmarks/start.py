"""seconds from the command to the first optimizer step: two workers beside a minimal Ray Train script, and one worker"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from activelr_service.runs.journal import read_journal

ROUNDS = 3
LABELS = {
    "two": "the service, two workers",
    "again": "the service, two workers, a second run",
    "one": "the service, one worker without a cluster",
}
JOB = """\
kind: train
name: start
model: {type: mlp}
data: {type: digits, image_size: 8}
epochs: 1
"""


def measure() -> dict[str, float]:
    """In turn, each in a process of its own; the median. The second run of a folder finds MLflow's store there."""
    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            times.setdefault("a minimal Ray Train script", []).append(minimal_script(Path(folder)))
            for run_name, num_workers in (("two", 2), ("again", 2), ("one", 1)):
                times.setdefault(LABELS[run_name], []).append(service_start(Path(folder), run_name, num_workers))
    figures = {label: median(taken) for label, taken in times.items()}
    minimal = figures["a minimal Ray Train script"]
    ratios = {f"{LABELS[name]}, times the minimal script": figures[LABELS[name]] / minimal for name in ("two", "again")}
    return figures | ratios


def minimal_script(folder: Path) -> float:
    start = time.time()
    run([sys.executable, "-m", "benchmarks.minimal_ray_train", str(folder)])
    return float((folder / "first_step").read_text()) - start


def service_start(folder: Path, name: str, num_workers: int) -> float:
    """The first record is written at the end of its epoch, which takes a fraction of a second here."""
    (folder / "job.yaml").write_text(JOB)
    start = time.time()
    command = [sys.executable, "-m", "activelr_service.cli", "train", str(folder / "job.yaml")]
    settings = (f"output_dir={folder}", f"workers.num_workers={num_workers}", f"name={name}")
    run([*command, *(part for setting in settings for part in ("--set", setting))])
    (record,) = read_journal(folder / name / "001" / "journal.jsonl")
    return record.timestamp_ms / 1000 - record.metrics["perf/epoch_seconds"] - start


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
