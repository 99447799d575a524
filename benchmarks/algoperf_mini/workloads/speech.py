"""Made utterances, whose symbols a conformer and a recurrent net find with the CTC loss (LibriSpeech)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.algoperf_mini.spec import Batch, LossType, Splits, Workload
from benchmarks.algoperf_mini.workloads.tables import split


class Utterances(Workload):
    """Six of eight symbols, each for three to five frames of its own spectrum, with a speaker's offset and noise."""

    loss_type = LossType.CTC_LOSS
    batch_size = 32
    symbols, length, frames, bands = 8, 6, 32, 12

    def make_data(self) -> Splits:
        g = torch.Generator().manual_seed(5)
        sizes = {"train": 4096, "validation": 512, "test": 512}
        count = sum(sizes.values())
        spectra = torch.randn(self.symbols + 1, self.bands, generator=g)
        spectra[0] = 0  # silence
        labels = torch.randint(1, self.symbols + 1, (count, self.length), generator=g)
        ends = torch.randint(3, 6, (count, self.length), generator=g).cumsum(1)
        place = torch.searchsorted(ends, torch.arange(self.frames).expand(count, -1).contiguous(), right=True)
        spoken = functional.pad(labels, (0, 1)).gather(1, place)
        speakers = 0.3 * torch.randn(count, 1, self.bands, generator=g)
        noise = 0.7 * torch.randn(count, self.frames, self.bands, generator=g)
        return split({"inputs": spectra[spoken] + speakers + noise, "targets": labels}, sizes)


class LibriSpeechConformer(Utterances):
    name, target_steps = "librispeech_conformer", 240

    def build_model(self) -> nn.Module:
        return Conformer(self.bands, self.symbols + 1, self.frames // 2)


def feed_forward(dim: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))


class ConformerBlock(nn.Module):
    """Half a feed-forward, attention, a gated depthwise convolution, and half a feed-forward."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first, self.last = feed_forward(dim), feed_forward(dim)
        self.attention_norm, self.conv_norm, self.norm = (nn.LayerNorm(dim) for _ in range(3))
        self.attention = nn.MultiheadAttention(dim, 4, batch_first=True)
        self.gate = nn.Linear(dim, 2 * dim)
        self.conv = nn.Conv1d(dim, dim, 5, padding=2, groups=dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x) / 2
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        gated = functional.glu(self.gate(self.conv_norm(x)))
        x = x + self.out(functional.silu(self.conv(gated.mT).mT))
        return self.norm(x + self.last(x) / 2)


class Conformer(nn.Module):
    def __init__(self, bands: int, symbols: int, frames: int, dim: int = 32) -> None:
        super().__init__()
        self.subsample = nn.Conv1d(bands, dim, 3, 2, 1)
        self.positions = nn.Parameter(0.02 * torch.randn(frames, dim))
        self.blocks = nn.Sequential(ConformerBlock(dim), ConformerBlock(dim))
        self.head = nn.Linear(dim, symbols)

    def forward(self, batch: Batch) -> Tensor:
        features = self.subsample(batch["inputs"].mT).relu().mT
        return self.head(self.blocks(features + self.positions))


class LibriSpeechDeepSpeech(Utterances):
    name, target_steps = "librispeech_deepspeech", 240

    def build_model(self) -> nn.Module:
        return DeepSpeech(self.bands, self.symbols + 1)


class DeepSpeech(nn.Module):
    """A convolution that halves the frames, and two layers of LSTM in both directions."""

    def __init__(self, bands: int, symbols: int, dim: int = 32) -> None:
        super().__init__()
        self.subsample = nn.Conv1d(bands, dim, 3, 2, 1)
        self.norm = nn.LayerNorm(dim)
        self.recurrent = nn.LSTM(dim, dim // 2, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(dim, symbols)

    def forward(self, batch: Batch) -> Tensor:
        features = self.norm(self.subsample(batch["inputs"].mT).relu().mT)
        return self.head(self.recurrent(features)[0])
