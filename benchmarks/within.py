"""milliseconds of CPU time of a step of a small MLP, the cheapest there is, with and without what happens within an epoch"""

import json
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
import torch.multiprocessing as mp

from activelr_service.config import CompleteJob, parse_job
from activelr_service.data import inspect_data
from activelr_service.service.resolve import Resources, resolve_job
from activelr_service.training.build import build_training
from activelr_service.training.checkpoint import CheckpointStore
from activelr_service.training.loop import train_epoch
from activelr_service.training.running_epoch import RunningEpoch
from activelr_service.training.within_epoch import WithinEpoch

ROUNDS = 60
JOB = {
    "kind": "train",
    "name": "within",
    "model": {"type": "mlp"},
    "data": {"type": "digits", "image_size": 8},
    "epochs": 10_000,
    "global_batch_size": 64,
}


def measure() -> dict[str, float]:
    """One and two workers: epochs with and without it, in turn. The median of each kind."""
    figures: dict[str, float] = {}
    for num_workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(_run_rank, (num_workers, Path(folder)), nprocs=num_workers)
            found = json.loads((Path(folder) / "figures.json").read_text())
        workers = f"{num_workers} worker" + "s" * (num_workers > 1)
        figures |= {f"{workers}, {name}": value for name, value in found.items()}
        figures[f"{workers}, watched, times plain"] = found["watched"] / found["plain"]
    return figures


def _run_rank(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/group", rank=rank, world_size=world_size)
    figures = compare(world_size, folder)
    if rank == 0:
        (folder / "figures.json").write_text(json.dumps(figures))
    torch.distributed.destroy_process_group()


def compare(num_workers: int, folder: Path) -> dict[str, float]:
    """Milliseconds of CPU time of a step, with and without it."""
    checked = parse_job({**JOB, "workers": {"num_workers": num_workers, "use_gpu": False}})
    info = inspect_data(checked.data)
    job = resolve_job(checked, info, Resources(num_workers, 0))[0]
    assert isinstance(job, CompleteJob)
    training = build_training(job, info, torch.device("cpu"))
    (folder / "checkpoints").mkdir(exist_ok=True)
    within = WithinEpoch(training, CheckpointStore(folder / "checkpoints", folder / "journal.jsonl", print), [])
    times: dict[str, list[float]] = {"plain": [], "watched": []}
    for epoch in range(1, 2 * ROUNDS + 1):
        start = time.process_time()
        train_epoch(training, RunningEpoch(training, epoch), within if epoch % 2 == 0 else None)
        times["watched" if epoch % 2 == 0 else "plain"].append(time.process_time() - start)
    return {name: 1000 * median(taken) / training.steps_per_epoch for name, taken in times.items()}
