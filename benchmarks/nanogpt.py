"""``python -m benchmarks.nanogpt run|score [FILE]``: steps to a loss, in the form of modded-nanogpt's optimizer track.

The track (https://github.com/KellerJordan/modded-nanogpt, records/track_3_optimization) fixes data, batch size and
model. It allows one forward and backward pass a step, and counts steps to a validation loss. The optimizer and its schedule
are free, and each run plans its number of steps. So here: the target is what the track's tuned baseline, Muon, reaches on
average in 400 steps, and what counts is the smallest number of planned steps whose mean final loss is there.

Without ``--train`` and ``--validation`` the data are the bytes of Python's standard library, and the model is tiny. With
them, token files of the track are read. It runs on one device, without DDP.
"""

import argparse
import csv
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from activelr_service.optim import ActiveAdamW, ActiveMuon, muon_groups

RESULTS = Path(__file__).with_suffix(".csv")
LENGTHS, SEEDS = (100, 200, 300, 400, 600), (0, 1, 2)
TARGET_SETTER = ("muon", 400)
HEADER_BYTES = 1024  # of a token file: 256 numbers of 32 bits, the third of which is the number of tokens
FIELDS = ["optimizer", "steps", "seed", "validation_loss", "seconds"]


@dataclass(frozen=True)
class Setup:
    """What a run must not change. ``batch`` is in sequences, of which ``micro_batch`` go through the model at once.

    ``length`` is in tokens, and ``width`` is a multiple of ``2 * heads``.
    """

    vocabulary: int = 256
    layers: int = 2
    width: int = 64
    heads: int = 2
    length: int = 64
    batch: int = 16
    micro_batch: int = 64
    validation_batches: int = 32


class Attention(nn.Module):
    """Causal, with normed and rotated queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (rotate(functional.rms_norm(each, each.shape[-1:])) for each in (q, k))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(mixed.transpose(1, 2).flatten(2))


def rotate(x: Tensor) -> Tensor:
    """Rotary positions for (examples, heads, tokens, channels)."""
    half = x.shape[-1] // 2
    frequencies = 1024.0 ** -torch.linspace(0, 1, half, device=x.device)
    angles = torch.outer(torch.arange(x.shape[-2], device=x.device), frequencies)
    first, second = x.split(half, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.fc, self.proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.proj(self.fc(self.norm2(x)).relu().square())


class GPT(nn.Module):
    """Projections begin at zero, and the logits are capped at 15."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.embed = nn.Embedding(setup.vocabulary, setup.width)
        self.blocks = nn.Sequential(*(Block(setup.width, setup.heads) for _ in range(setup.layers)))
        self.norm1, self.norm2 = nn.RMSNorm(setup.width), nn.RMSNorm(setup.width)
        self.proj = nn.Linear(setup.width, setup.vocabulary)
        for name, param in self.named_parameters():
            if "proj" in name or name.endswith("bias"):
                nn.init.zeros_(param)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        logits = self.proj(self.norm2(self.blocks(self.norm1(self.embed(inputs)))))
        capped = 15 * torch.tanh(logits / 15)
        return functional.cross_entropy(capped.flatten(0, 1), targets.flatten())


Made = tuple[list[Optimizer], Callable[[float], float] | None]  # and the factor of the rates at a share of the run


def active_adamw(model: GPT, steps: int) -> Made:
    return [ActiveAdamW(model.parameters(), total_steps=steps)], None


def active_muon(model: GPT, steps: int) -> Made:
    return [ActiveMuon(muon_groups(model), total_steps=steps)], None


def adamw(model: GPT, steps: int) -> Made:
    """The track's first Adam: its rate and betas, a warm-up of 5 %, and a linear end."""
    optimizer = torch.optim.AdamW(model.parameters(), 0.0015, (0.9, 0.95), weight_decay=0.0)
    return [optimizer], lambda share: min(1.0, share / 0.05, (1 - share) / 0.7)


def muon(model: GPT, steps: int) -> Made:
    """The track's tuned baseline: Muon for the matrices of the blocks, three rates of AdamW for the rest."""
    matrices = [param for param in model.blocks.parameters() if param.ndim == 2]
    vectors = [param for param in model.parameters() if param.ndim < 2]
    groups = [
        {"params": [model.embed.weight], "lr": 0.7},
        {"params": [model.proj.weight], "lr": 0.004},
        {"params": vectors, "lr": 0.015},
    ]
    rest = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.001)
    optimizer = torch.optim.Muon(matrices, lr=0.025, weight_decay=0.05, momentum=0.95)
    return [optimizer, rest], lambda share: min(1.0, (1 - share) / 0.7)


OPTIMIZERS = {"active_adamw": active_adamw, "active_muon": active_muon, "adamw": adamw, "muon": muon}


def train(
    setup: Setup, tokens: tuple[Tensor, Tensor], make: Callable[[GPT, int], Made], steps: int, seed: int
) -> float:
    """One run of a planned number of steps. Returns the mean loss per token on the validation data, in nats."""
    torch.manual_seed(seed)
    model = GPT(setup).to(tokens[0].device)
    optimizers, factor = make(model, steps)
    rates = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    batches = batches_of(tokens[0], setup, seed)
    for step in range(steps):
        if factor:
            for group, rate in rates:
                group["lr"] = rate * factor((step + 0.5) / steps)
        for share, piece in pieces_of(next(batches), setup):
            (share * model(*piece)).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return validate(model, tokens[1], setup)


@torch.no_grad()
def validate(model: GPT, tokens: Tensor, setup: Setup) -> float:
    """The mean loss over the first batches of the validation tokens, the same ones in every run."""
    size = setup.batch * setup.length
    batches = (as_batch(tokens[i * size : (i + 1) * size + 1], setup) for i in range(setup.validation_batches))
    return mean(sum(share * model(*piece).item() for share, piece in pieces_of(batch, setup)) for batch in batches)


def pieces_of(batch: tuple[Tensor, Tensor], setup: Setup) -> Iterator[tuple[float, tuple[Tensor, Tensor]]]:
    """What goes through the model at once, each with its share of the batch: their gradients add up to the batch's."""
    for inputs, targets in zip(*(tensor.split(setup.micro_batch) for tensor in batch), strict=True):
        yield len(inputs) / setup.batch, (inputs, targets)


def batches_of(tokens: Tensor, setup: Setup, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets in the order of the tokens, from a start that the seed draws, round and round."""
    size = setup.batch * setup.length
    start = int(np.random.default_rng(seed).integers(len(tokens) - size))
    while True:
        yield as_batch(tokens[start : start + size + 1], setup)
        start = start + size if start + 2 * size < len(tokens) else 0


def as_batch(piece: Tensor, setup: Setup) -> tuple[Tensor, Tensor]:
    return piece[:-1].view(-1, setup.length), piece[1:].view(-1, setup.length)


def load_tokens(path: Path) -> Tensor:
    """Tokens of a file of the track: its header, then numbers of 16 bits. Raises ``ValueError`` if it is cut off."""
    expected = int(np.fromfile(path, np.int32, 3)[2])
    tokens = np.fromfile(path, np.uint16, offset=HEADER_BYTES)
    if len(tokens) != expected:
        raise ValueError(f"{path}: {len(tokens)} tokens where its header says {expected}; download it again")
    return torch.from_numpy(tokens.astype(np.int64))


def library_bytes() -> tuple[Tensor, Tensor]:
    """The bytes of the standard library's modules, in the order of their names; every tenth module is for validation."""
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [path.read_bytes() for path in modules]
    parts = (b"".join(text for i, text in enumerate(texts) if (i % 10 == 0) == held) for held in (False, True))
    train, validation = (torch.from_numpy(np.frombuffer(part, np.uint8).astype(np.int64)) for part in parts)
    return train, validation


Row = tuple[str, int, int, float]  # optimizer, steps, seed, loss


def run_all(
    path: Path, setup: Setup, tokens: tuple[Tensor, Tensor], lengths: Sequence[int], seeds: Sequence[int]
) -> None:
    """Every run that the file lacks, a line of the file each."""
    known = {row[:3] for row in read(path)}
    for name, make in OPTIMIZERS.items():
        for steps in lengths:
            for seed in seeds:
                if (name, steps, seed) not in known:
                    started = time.perf_counter()
                    loss = train(setup, tokens, make, steps, seed)
                    append(path, [name, steps, seed, f"{loss:.5f}", f"{time.perf_counter() - started:.2f}"])


def append(path: Path, row: list[object]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(FIELDS)
        writer.writerow(row)
    print(*row, flush=True)


def read(path: Path) -> list[Row]:
    """All runs of a file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            (r["optimizer"], int(r["steps"]), int(r["seed"]), float(r["validation_loss"])) for r in csv.DictReader(file)
        ]


def score_lines(rows: list[Row]) -> list[str]:
    """A table in Markdown: the mean final loss for each planned number of steps, and the first at the target."""
    lengths = sorted({row[1] for row in rows})
    names = list(dict.fromkeys(row[0] for row in rows))
    means = {
        (name, steps): mean(row[3] for row in rows if row[:2] == (name, steps)) for name in names for steps in lengths
    }
    target = means[TARGET_SETTER]
    header = ["", *(f"{steps} steps" for steps in lengths), f"steps to {target:.3f}"]
    lines = [f"| {' | '.join(header)} |", "| --- |" + " --- |" * (len(lengths) + 1)]
    for name in names:
        first = next((str(steps) for steps in lengths if means[name, steps] <= target), "-")
        lines.append(f"| `{name}` | " + " | ".join(f"{means[name, steps]:.3f}" for steps in lengths) + f" | {first} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nanogpt", description=__doc__)
    parser.add_argument("action", choices=["run", "score"])
    parser.add_argument("file", nargs="?", type=Path, default=RESULTS, help="the raw table (default: %(default)s)")
    parser.add_argument("--train", type=Path, help="a token file of the track")
    parser.add_argument("--validation", type=Path, help="a token file of the track")
    parser.add_argument("--steps", type=int, nargs="+", default=LENGTHS, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="(default: %(default)s)")
    for name, default in asdict(Setup()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help="(default: %(default)s)")
    asked = vars(parser.parse_args())
    if asked["action"] == "score":
        if not (rows := read(asked["file"])):
            parser.error(f"{asked['file']}: no runs to score; `run` makes them")
        print("\n".join(score_lines(rows)))
        return
    if (asked["train"] is None) != (asked["validation"] is None):
        parser.error("--train and --validation: give both files, or none for the standard library")
    given = asked["train"] is not None
    tokens = (load_tokens(asked["train"]), load_tokens(asked["validation"])) if given else library_bytes()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TensorFloat-32
    setup = Setup(**{name: asked[name] for name in asdict(Setup())})
    run_all(asked["file"], setup, (tokens[0].to(device), tokens[1].to(device)), asked["steps"], asked["seeds"])


if __name__ == "__main__":
    main()
