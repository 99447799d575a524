"""seconds of an epoch of the quickstart, and of one that lasts longer, through the service and as a bare torch loop"""

import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise, product
from pathlib import Path
from statistics import median

import torch
import torch.multiprocessing as mp
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.models import resnet18

from activelr_service.config.data import DigitsDataConfig
from activelr_service.data import build_data
from activelr_service.optim import ActiveAdamW
from activelr_service.runs.journal import read_journal

KINDS = {"": (32, 6), "larger images, ": (96, 3)}  # pixels, and epochs; those of 32 are the quickstart


def measure() -> dict[str, float]:
    """One and two workers; the median of the epochs after the first, which warms up."""
    figures: dict[str, float] = {}
    for (label, kind), (num_workers, threads) in product(KINDS.items(), ((1, 2), (2, 1))):
        with tempfile.TemporaryDirectory() as folder:
            bare = run_ranks(num_workers, Path(folder), threads, *kind)
            service = service_epochs(folder, num_workers, *kind)
        workers = f"{label}{num_workers} worker" + "s" * (num_workers > 1)
        taken, plain = median(service), median(bare[1:])
        figures |= {f"{workers}, bare loop": plain, f"{workers}, service": taken}
        figures[f"{workers}, service, times the bare loop"] = taken / plain
    return figures


def run_ranks(world_size: int, folder: Path, threads: int, image_size: int, epochs: int) -> list[float]:
    """The times of rank 0 of the bare loop, in processes of their own that share a process group."""
    mp.spawn(_run_rank, (world_size, folder, threads, image_size, epochs), nprocs=world_size)
    seconds: list[float] = json.loads((folder / "seconds.json").read_text())
    return seconds


def _run_rank(rank: int, world_size: int, folder: Path, threads: int, image_size: int, epochs: int) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/group", rank=rank, world_size=world_size)
    seconds = bare_loop(rank, threads, image_size, epochs)
    if rank == 0:
        (folder / "seconds.json").write_text(json.dumps(seconds))
    torch.distributed.destroy_process_group()


def service_epochs(folder: str, num_workers: int, image_size: int, epochs: int) -> list[float]:
    """Wall time between successive epoch ends: training, validation, checkpoint, journal, report."""
    settings = [
        f"epochs={epochs}",
        f"data.image_size={image_size}",
        f"output_dir={folder}",
        f"workers.num_workers={num_workers}",
        "global_batch_size=64",
    ]
    options = [text for setting in settings for text in ("--set", setting)]
    command = [sys.executable, "-m", "activelr_service.cli", "train", "configs/quickstart.yaml", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends = [record.timestamp_ms / 1000 for record in read_journal(Path(folder) / "digits" / "001" / "journal.jsonl")]
    return [after - before for before, after in pairwise(ends)]


def bare_loop(rank: int, threads: int, image_size: int, epochs: int) -> list[float]:
    """What a user would write by hand: DDP, sampler, loss, step, validation; nothing is kept."""
    torch.set_num_threads(threads)
    world_size = torch.distributed.get_world_size()
    train, val = build_data(DigitsDataConfig(image_size=image_size))
    sampler = DistributedSampler(train, world_size, rank, drop_last=True)
    train_loader = DataLoader(train, batch_size=64 // world_size, sampler=sampler, drop_last=True)
    val_loader = DataLoader(val, batch_size=64 // world_size)
    model = resnet18(num_classes=10)
    replica = DistributedDataParallel(model) if world_size > 1 else model
    optimizer = ActiveAdamW(model.parameters(), total_steps=epochs * len(train_loader))
    seconds = []
    for epoch in range(epochs):
        start = time.perf_counter()
        sampler.set_epoch(epoch)
        replica.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            cross_entropy(replica(images), labels).backward()
            optimizer.step()
            optimizer.end_step(reduce=mean_over_ranks if world_size > 1 else None)
        validate(model, val_loader, rank, world_size)
        seconds.append(time.perf_counter() - start)
    return seconds


def mean_over_ranks(flat: torch.Tensor) -> None:
    """Replace the gradient sums of this rank by their mean over the ranks."""
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()


@torch.no_grad()
def validate(model: torch.nn.Module, val_loader: DataLoader, rank: int, world_size: int) -> torch.Tensor:
    model.eval()
    batches = (batch for index, batch in enumerate(val_loader) if index % world_size == rank)
    correct = torch.tensor(sum((model(images).argmax(1) == labels).sum().item() for images, labels in batches))
    torch.distributed.all_reduce(correct)
    return correct
