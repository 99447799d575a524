"""trials a minute of a study: an MLP on the digits for 20 epochs, one worker a trial, after the start"""

import subprocess
import sys
import tempfile
from pathlib import Path

STUDY = """\
kind: study
name: rate
workloads:
  digits: {model: {type: mlp, hidden: [64, 64]}, data: {type: digits, image_size: 8}, epochs: 20, global_batch_size: 64}
optimizers: [active_adamw, adamw]
sweeps: [{optimizer.lr: [1e-3, 1e-2]}]
"""
PACKED, OWN = 60, 8  # trials; the first of each process are not counted


def measure() -> dict[str, float]:
    """Trials that share long-lived processes, and trials that are Ray Train runs of their own."""
    packed = trials_per_minute([f"seeds={list(range(PACKED // 4))}"])
    own = trials_per_minute([f"seeds={list(range(OWN // 4))}", "trials.packed=false"])
    return {"packed in long-lived processes": packed, "each a Ray Train run of its own": own}


def trials_per_minute(options: list[str]) -> float:
    """From when the second outcome was written to the last, so that the processes' start is left out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(STUDY)
        chosen = [part for option in (*options, f"output_dir={folder}") for part in ("--set", option)]
        command = [sys.executable, "-m", "activelr_service.cli", "study", str(path), *chosen]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        outcomes = (Path(folder) / "studies" / "rate" / "trials").glob("*.json")
        ends = sorted(outcome.stat().st_mtime for outcome in outcomes)
    return 60 * (len(ends) - 2) / (ends[-1] - ends[1])
