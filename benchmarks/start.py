"""seconds from the command to the first optimizer step, with two workers"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from activelr_service.runs.journal import read_journal

ROUNDS = 3
JOB = """\
kind: train
name: start
model: {type: mlp}
data: {type: digits, image_size: 8}
epochs: 1
"""


def measure() -> dict[str, float]:
    """In turn, each in a process of its own; the median."""
    minimal, service = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            minimal.append(minimal_script(Path(folder)))
            service.append(service_start(Path(folder)))
    return {"a minimal Ray Train script": median(minimal), "the service": median(service)}


def minimal_script(folder: Path) -> float:
    start = time.time()
    run([sys.executable, "-m", "benchmarks.minimal_ray_train", str(folder)])
    return float((folder / "first_step").read_text()) - start


def service_start(folder: Path) -> float:
    """The first record is written at the end of its epoch, which takes a fraction of a second here."""
    (folder / "job.yaml").write_text(JOB)
    start = time.time()
    command = [sys.executable, "-m", "activelr_service.cli", "train", str(folder / "job.yaml")]
    run([*command, "--set", f"output_dir={folder}", "--set", "workers.num_workers=2"])
    (record,) = read_journal(folder / "start" / "001" / "journal.jsonl")
    return record.timestamp_ms / 1000 - record.metrics["perf/epoch_seconds"] - start


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
