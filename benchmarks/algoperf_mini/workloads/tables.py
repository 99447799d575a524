"""Click-through rates with embeddings (Criteo), and small graphs with several binary labels (OGBG)."""

import torch
from torch import Tensor, nn

from benchmarks.algoperf_mini.spec import Batch, LossType, Splits, Workload


def split(data: Batch, sizes: dict[str, int]) -> Splits:
    """Successive parts of the given sizes, by name."""
    parts = {name: tensor.split([*sizes.values()]) for name, tensor in data.items()}
    return {split: {name: part[i] for name, part in parts.items()} for i, split in enumerate(sizes)}


class Criteo(Workload):
    """Eight categorical columns whose values have hidden vectors, four numbers, and clicks drawn from their products."""

    name, loss_type = "criteo1tb", LossType.SIGMOID_CROSS_ENTROPY
    batch_size, target_steps = 256, 300
    columns, values = 8, 100

    def make_data(self) -> Splits:
        g = torch.Generator().manual_seed(1)
        sizes = {"train": 65_536, "validation": 4096, "test": 4096}
        count = sum(sizes.values())
        popularity = 1 / torch.arange(1.0, self.values + 1)
        categories = torch.multinomial(popularity.expand(self.columns, -1), count, replacement=True, generator=g).T
        numbers = torch.randn(count, 4, generator=g)
        hidden = torch.randn(self.columns, self.values, 3, generator=g)
        vectors = hidden[torch.arange(self.columns), categories]
        pairs = (vectors[:, ::2] * vectors[:, 1::2]).sum((1, 2))
        logits = 0.6 * pairs + numbers @ torch.tensor([1.0, -0.5, 0.3, 0.0]) - 1
        clicks = (torch.rand(count, generator=g) < logits.sigmoid()).float()
        return split({"categories": categories, "numbers": numbers, "targets": clicks}, sizes)

    def build_model(self) -> nn.Module:
        return DLRM(self.columns, self.values)


class DLRM(nn.Module):
    """Embeddings and a net for the numbers; their dot products go into the upper net."""

    def __init__(self, columns: int, values: int, dim: int = 8) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(values, dim) for _ in range(columns))
        self.lower = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, dim))
        pairs = (columns + 1) * columns // 2
        self.upper = nn.Sequential(
            nn.Linear(pairs + dim, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1)
        )
        self.register_buffer("pairs", torch.triu_indices(columns + 1, columns + 1, offset=1))

    def forward(self, batch: Batch) -> Tensor:
        numbers = self.lower(batch["numbers"])
        vectors = [embed(column) for embed, column in zip(self.embeddings, batch["categories"].unbind(1), strict=True)]
        stacked = torch.stack([numbers, *vectors], 1)
        products = (stacked @ stacked.mT)[:, self.pairs[0], self.pairs[1]]
        return self.upper(torch.cat([numbers, products], 1)).squeeze(1)


class Ogbg(Workload):
    """Random graphs of ten nodes of four types; a label asks for many paths over three given types; 5 % are wrong."""

    name, loss_type = "ogbg", LossType.SIGMOID_CROSS_ENTROPY
    batch_size, target_steps = 64, 300
    nodes, types, labels = 10, 4, 6

    def make_data(self) -> Splits:
        g = torch.Generator().manual_seed(2)
        sizes = {"train": 8192, "validation": 1024, "test": 1024}
        count = sum(sizes.values())
        upper = (torch.rand(count, self.nodes, self.nodes, generator=g) < 0.3).float().triu(1)
        edges = upper + upper.mT
        types = torch.randint(self.types, (count, self.nodes), generator=g)
        nodes = nn.functional.one_hot(types, self.types).float()
        paths = torch.randint(self.types, (self.labels, 3), generator=g)
        counts = torch.stack([self.count_paths(edges, nodes, path) for path in paths], 1)
        labels = (counts > counts.median(0).values).float()
        wrong = torch.rand(labels.shape, generator=g) < 0.05
        return split({"edges": edges, "nodes": nodes, "targets": (labels - wrong.float()).abs()}, sizes)

    @staticmethod
    def count_paths(edges: Tensor, nodes: Tensor, path: Tensor) -> Tensor:
        first, middle, last = (nodes[:, :, kind] for kind in path)
        return torch.einsum("bi,bij,bj,bjk,bk->b", first, edges, middle, edges, last)

    def build_model(self) -> nn.Module:
        return GraphNet(self.types, self.labels)


class GraphNet(nn.Module):
    """Three rounds of messages between neighbors, then the sum over the nodes."""

    def __init__(self, types: int, labels: int, dim: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(types, dim)
        self.own = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))
        self.neighbors = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, labels))

    def forward(self, batch: Batch) -> Tensor:
        nodes = self.embed(batch["nodes"])
        for own, neighbors, norm in zip(self.own, self.neighbors, self.norms, strict=True):
            messages = batch["edges"] @ neighbors(nodes)
            nodes = nodes + norm(own(nodes) + messages).relu()
        return self.head(nodes.sum(1) / nodes.shape[1])
