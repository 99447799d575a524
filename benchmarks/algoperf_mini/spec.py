"""The part of AlgoPerf's interface that a PyTorch submission meets, under the published names."""

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch.nn import functional

Tensor: TypeAlias = torch.Tensor
ParameterContainer: TypeAlias = torch.nn.Module
ParameterTypeTree = Any
ModelAuxiliaryState = Any
Hyperparameters = Any
RandomState = int
OptimizerState = dict[str, Any]
UpdateReturn: TypeAlias = tuple[OptimizerState, ParameterContainer, ModelAuxiliaryState]
Batch: TypeAlias = dict[str, Tensor]
Splits: TypeAlias = dict[str, Batch]


class ForwardPassMode(enum.Enum):
    TRAIN = 0
    EVAL = 1


class LossType(enum.Enum):
    SOFTMAX_CROSS_ENTROPY = 0
    SIGMOID_CROSS_ENTROPY = 1
    CTC_LOSS = 3
    MEAN_ABSOLUTE_ERROR = 4


class TrainingCompleteError(Exception):
    """A submission has nothing more to do in this run."""


class Workload(ABC):
    """Data, model, loss and lengths of one workload. The data are made from a seed of their own, once an instance.

    A batch is a dict of tensors, examples first. It has ``targets``; what else it has, the model reads.
    """

    name: str
    loss_type: LossType
    metric = "loss"  # what the target is of, lower is better: "loss" or "error", the share of wrong answers
    batch_size: int
    target_steps: int  # of a run that sets the target

    def __init__(self) -> None:
        self.splits = self.make_data()

    @abstractmethod
    def make_data(self) -> Splits:
        """The examples of ``train``, ``validation`` and ``test``."""

    @abstractmethod
    def build_model(self) -> torch.nn.Module:
        """A model whose ``forward`` takes a batch, with weights from torch's global generator."""

    @property
    def step_hint(self) -> int:
        """Steps that a submission may plan for: a third more than the target took, as in AlgoPerf."""
        return self.target_steps * 4 // 3

    @property
    def max_steps(self) -> int:
        """Steps at most: half as many again, as in the self-tuning ruleset."""
        return self.step_hint * 3 // 2

    def init_model_fn(self, rng: RandomState) -> tuple[torch.nn.Module, None]:
        """A fresh model, and no auxiliary state."""
        torch.manual_seed(rng)
        return self.build_model(), None

    def _build_input_queue(
        self, data_rng: RandomState, split: str, data_dir: str, global_batch_size: int
    ) -> Iterator[Batch]:
        """Batches without end, shuffled anew in each epoch. The last, smaller one of an epoch is left out."""
        data, generator = self.splits[split], torch.Generator().manual_seed(data_rng)
        count = len(data["targets"])
        while True:
            for chosen in torch.randperm(count, generator=generator).split(global_batch_size):
                if len(chosen) == global_batch_size:
                    yield {name: tensor[chosen] for name, tensor in data.items()}

    def model_fn(
        self,
        params: ParameterContainer,
        augmented_and_preprocessed_input_batch: Batch,
        model_state: ModelAuxiliaryState,
        mode: ForwardPassMode,
        rng: RandomState,
        update_batch_norm: bool,
        dropout_rate: float,
    ) -> tuple[Tensor, ModelAuxiliaryState]:
        """The logits. The stand-ins have neither batch normalization nor dropout, so the last two do nothing."""
        params.train(mode is ForwardPassMode.TRAIN)
        return params(augmented_and_preprocessed_input_batch), model_state

    def loss_fn(
        self, label_batch: Tensor, logits_batch: Tensor, mask_batch: Tensor | None = None, label_smoothing: float = 0.0
    ) -> dict[str, Tensor]:
        """``summed`` and ``per_example`` losses, and ``n_valid_examples``: the number of single losses."""
        losses = LOSSES[self.loss_type](logits_batch, label_batch, label_smoothing)
        per_example = losses.flatten(1).sum(1) if losses.dim() > 1 else losses
        valid = torch.tensor(float(losses.numel()))
        return {"summed": losses.sum(), "n_valid_examples": valid, "per_example": per_example}

    @torch.no_grad()
    def evaluate(self, model: torch.nn.Module, split: str) -> float:
        """The metric over a whole split."""
        batch = self.splits[split]
        logits, _ = self.model_fn(model, batch, None, ForwardPassMode.EVAL, 0, False, 0.0)
        if self.metric == "error":
            return (logits.argmax(-1) != batch["targets"]).float().mean().item()
        losses = self.loss_fn(batch["targets"], logits)
        return (losses["summed"] / losses["n_valid_examples"]).item()


def softmax_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    return functional.cross_entropy(logits.movedim(-1, 1), labels, reduction="none", label_smoothing=smoothing)


def sigmoid_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    labels = labels * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")


def absolute_error(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return (outputs - targets).abs()


def ctc_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Of (examples, frames, symbols) and (examples, labels), all of the same length; symbol 0 is the blank."""
    frames = torch.full((len(logits),), logits.shape[1])
    lengths = torch.full((len(logits),), labels.shape[1])
    log_probs = logits.log_softmax(-1).transpose(0, 1)
    return functional.ctc_loss(log_probs, labels, frames, lengths, reduction="none") / labels.shape[1]


LOSSES = {
    LossType.SOFTMAX_CROSS_ENTROPY: softmax_cross_entropy,
    LossType.SIGMOID_CROSS_ENTROPY: sigmoid_cross_entropy,
    LossType.MEAN_ABSOLUTE_ERROR: absolute_error,
    LossType.CTC_LOSS: ctc_loss,
}
