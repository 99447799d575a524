"""Undersampled images made whole (fastMRI), and shifted, noisy digits with a residual net and with a ViT (ImageNet)."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.algoperf_mini.spec import Batch, LossType, Splits, Workload
from benchmarks.algoperf_mini.workloads.tables import split


class FastMRI(Workload):
    """Images of a few blobs, of whose Fourier rows seven of 16 are kept. The target is the whole image."""

    name, loss_type = "fastmri", LossType.MEAN_ABSOLUTE_ERROR
    batch_size, target_steps = 16, 240
    size, rows = 16, (0, 1, 2, 5, 10, 14, 15)

    def make_data(self) -> Splits:
        g = torch.Generator().manual_seed(3)
        sizes = {"train": 2048, "validation": 256, "test": 256}
        count, blobs = sum(sizes.values()), 6
        line = torch.arange(self.size) / self.size
        centers = torch.rand(count, blobs, 2, 1, generator=g)
        widths = 0.03 + 0.12 * torch.rand(count, blobs, 2, 1, generator=g)
        heights = 0.3 + torch.rand(count, blobs, 1, 1, generator=g)
        rows, columns = torch.exp(-(((line - centers) / widths) ** 2)).unbind(2)
        images = (heights * (rows.unsqueeze(3) * columns.unsqueeze(2) > 0.4)).amax(1)
        mask = torch.zeros(self.size, 1).index_fill(0, torch.tensor(self.rows), 1.0)
        kept = torch.fft.ifft2(torch.fft.fft2(images) * mask).abs()
        return split({"inputs": kept, "targets": images}, sizes)

    def build_model(self) -> nn.Module:
        return UNet()


def conv_block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(1, outputs), nn.ReLU())


class UNet(nn.Module):
    """Two levels down and up again, with skips; the output is added to the input."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv_block(1, width), conv_block(width, 2 * width)])
        self.bottom = conv_block(2 * width, 4 * width)
        self.up = nn.ModuleList([conv_block(6 * width, 2 * width), conv_block(3 * width, width)])
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, batch: Batch) -> Tensor:
        images = batch["inputs"].unsqueeze(1)
        features, skips = images, []
        for block in self.down:
            features = block(features)
            skips.append(features)
            features = functional.avg_pool2d(features, 2)
        features = self.bottom(features)
        for block in self.up:
            features = block(torch.cat([functional.interpolate(features, scale_factor=2), skips.pop()], 1))
        return (images + self.head(features)).squeeze(1)


class ShiftedDigits(Workload):
    """The 8 x 8 digits of scikit-learn at nine places of 12 x 12 noisy pixels. No original is in two splits."""

    loss_type, metric = LossType.SOFTMAX_CROSS_ENTROPY, "error"
    batch_size = 64
    size = 12

    def make_data(self) -> Splits:
        g = torch.Generator().manual_seed(4)
        digits = load_digits()
        images, labels = torch.tensor(digits.images).float() / 16, torch.tensor(digits.target)
        originals = torch.randperm(len(labels), generator=g).split([1197, 300, 300])
        names = {"train": 8192, "validation": 1024, "test": 1024}
        return {
            name: self.place(images[chosen], labels[chosen], count, g)
            for (name, count), chosen in zip(names.items(), originals, strict=True)
        }

    def place(self, images: Tensor, labels: Tensor, count: int, g: torch.Generator) -> Batch:
        chosen = torch.randint(len(labels), (count,), generator=g)
        canvas = 0.1 * torch.randn(count, self.size, self.size, generator=g)
        tops, lefts = torch.randint(1, 4, (2, count), generator=g).tolist()
        for target, image, top, left in zip(canvas, images[chosen], tops, lefts, strict=True):
            target[top : top + 8, left : left + 8] += image
        return {"inputs": canvas, "targets": labels[chosen]}


class ImageNetResNet(ShiftedDigits):
    name, target_steps = "imagenet_resnet", 240

    def build_model(self) -> nn.Module:
        return ResNet()


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(1, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(1, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm1(self.conv1(x)).relu()
        return (self.skip(x) + self.norm2(self.conv2(inner))).relu()


class ResNet(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = conv_block(1, width)
        self.blocks = nn.Sequential(
            Residual(width, width, 1), Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2)
        )
        self.head = nn.Linear(4 * width, 10)

    def forward(self, batch: Batch) -> Tensor:
        return self.head(self.blocks(self.stem(batch["inputs"].unsqueeze(1))).mean((2, 3)))


class ImageNetViT(ShiftedDigits):
    name, target_steps = "imagenet_vit", 300

    def build_model(self) -> nn.Module:
        return ViT(self.size)


class ViT(nn.Module):
    """Patches of 3 x 3, two layers, and the mean over the patches."""

    def __init__(self, size: int, dim: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, 3, 3)
        self.positions = nn.Parameter(0.3 * torch.randn((size // 3) ** 2, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.head = nn.Linear(dim, 10)

    def forward(self, batch: Batch) -> Tensor:
        patches = self.patches(batch["inputs"].unsqueeze(1)).flatten(2).mT
        return self.head(self.layers(patches + self.positions).mean(1))
