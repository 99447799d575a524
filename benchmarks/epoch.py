"""An epoch of the quickstart through the whole service, against the same training as a bare torch loop."""

import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.models import resnet18

from activelr_service.config.data import DigitsDataConfig
from activelr_service.data import build_data
from activelr_service.optim import ActiveAdamW
from activelr_service.runs.journal import read_journal
from tests.ranks import run_ranks

EPOCHS = 6


def main() -> None:
    """One and two workers; the first epoch, which warms up, does not count."""
    print(f"epoch of the quickstart, seconds, median of {EPOCHS - 1} after the first")
    print(f"{'':12}{'bare loop':>11}{'service':>9}{'ratio':>7}   service: all that lies between two epoch ends")
    for num_workers, threads in ((1, 2), (2, 1)):
        with tempfile.TemporaryDirectory() as folder:
            bare = median(run_ranks(bare_loop, num_workers, folder, threads)[0][1:])
            service = median(service_epochs(folder, num_workers))
        workers = f"{num_workers} worker" + "s" * (num_workers > 1)
        print(f"{workers:12}{bare:11.2f}{service:9.2f}{service / bare:7.2f}", flush=True)


def service_epochs(folder: str, num_workers: int) -> list[float]:
    """Wall time between successive epoch ends: training, validation, checkpoint, journal, report."""
    settings = [
        f"epochs={EPOCHS}",
        f"output_dir={folder}",
        f"workers.num_workers={num_workers}",
        "global_batch_size=64",
    ]
    options = [text for setting in settings for text in ("--set", setting)]
    command = [sys.executable, "-m", "activelr_service.cli", "train", "configs/quickstart.yaml", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends = [record.timestamp_ms / 1000 for record in read_journal(Path(folder) / "digits" / "001" / "journal.jsonl")]
    return [after - before for before, after in pairwise(ends)]


def bare_loop(rank: int, threads: int) -> list[float]:
    """What a user would write by hand: DDP, sampler, loss, step, validation; nothing is kept."""
    torch.set_num_threads(threads)
    world_size = torch.distributed.get_world_size()
    train, val = build_data(DigitsDataConfig())
    sampler = DistributedSampler(train, world_size, rank, drop_last=True)
    train_loader = DataLoader(train, batch_size=64 // world_size, sampler=sampler, drop_last=True)
    val_loader = DataLoader(val, batch_size=64 // world_size)
    model = resnet18(num_classes=10)
    replica = DistributedDataParallel(model) if world_size > 1 else model
    optimizer = ActiveAdamW(model.parameters(), rule="robust", total_steps=EPOCHS * len(train_loader))
    seconds = []
    for epoch in range(EPOCHS):
        start = time.perf_counter()
        sampler.set_epoch(epoch)
        replica.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            cross_entropy(replica(images), labels).backward()
            optimizer.step()
        validate(model, val_loader, rank, world_size)
        seconds.append(time.perf_counter() - start)
    return seconds


@torch.no_grad()
def validate(model: torch.nn.Module, val_loader: DataLoader, rank: int, world_size: int) -> torch.Tensor:
    model.eval()
    batches = (batch for index, batch in enumerate(val_loader) if index % world_size == rank)
    correct = torch.tensor(sum((model(images).argmax(1) == labels).sum().item() for images, labels in batches))
    torch.distributed.all_reduce(correct)
    return correct
