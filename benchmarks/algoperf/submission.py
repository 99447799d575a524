"""ActiveAdamW as a submission to the self-tuning ruleset of MLCommons AlgoPerf, in PyTorch.

It has no hyperparameters: the only number that it takes is the ``step_hint`` of the workload. It takes the list form of the
step, which is torch's own foreach functions, on any device. Under DDP the sums of gradients are averaged over the ranks when
they are due. ``hyperparameters`` is read nowhere.

Functions and signatures: https://github.com/mlcommons/algorithmic-efficiency, docs/DOCUMENTATION.md. Where the package
``algoperf`` is not installed, the types are those of :mod:`benchmarks.algoperf_mini.spec`.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn as dist_nn

from activelr_service.optim import ActiveAdamW

try:
    from algoperf import spec
except ImportError:
    from benchmarks.algoperf_mini import spec

BATCH_SIZES = {
    "criteo1tb": 262_144,
    "fastmri": 32,
    "finewebedu_lm": 64,
    "imagenet_resnet": 1024,
    "imagenet_vit": 1024,
    "librispeech_conformer": 256,
    "librispeech_deepspeech": 256,
    "mnist": 16,
    "ogbg": 512,
    "wmt": 128,
}
DROPOUT_RATE = 0.1


def get_batch_size(workload_name: str) -> int:
    """The global batch size in training. Raises ``ValueError`` for a workload that is not of the benchmark."""
    if workload_name not in BATCH_SIZES:
        raise ValueError(f"no batch size for the workload {workload_name!r}; there are {', '.join(BATCH_SIZES)}")
    return BATCH_SIZES[workload_name]


def init_optimizer_state(
    workload: spec.Workload,
    model_params: spec.ParameterContainer,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    rng: spec.RandomState,
) -> spec.OptimizerState:
    """The optimizer, which knows the length of the run and nothing else of the workload."""
    return {"optimizer": ActiveAdamW(model_params.parameters(), total_steps=workload.step_hint, fused=False)}


def update_params(
    workload: spec.Workload,
    current_param_container: spec.ParameterContainer,
    current_params_types: spec.ParameterTypeTree,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    batch: dict[str, spec.Tensor],
    loss_type: spec.LossType,
    optimizer_state: spec.OptimizerState,
    eval_results: list[tuple[int, float]],
    global_step: int,
    rng: spec.RandomState,
    train_state: dict[str, Any] | None = None,
) -> spec.UpdateReturn:
    """One step on the mean loss of the batch over all ranks. Past ``step_hint`` the run is declared complete."""
    if global_step >= workload.step_hint:
        raise spec.TrainingCompleteError(f"step {global_step}: the run was planned for {workload.step_hint}")
    model, optimizer = current_param_container, optimizer_state["optimizer"]
    model.train()
    optimizer.zero_grad()
    logits, model_state = workload.model_fn(
        params=model,
        augmented_and_preprocessed_input_batch=batch,
        model_state=model_state,
        mode=spec.ForwardPassMode.TRAIN,
        rng=rng,
        update_batch_norm=True,
        dropout_rate=DROPOUT_RATE,
    )
    losses = workload.loss_fn(label_batch=batch["targets"], logits_batch=logits, mask_batch=batch.get("weights"))
    mean_loss(losses).backward()
    optimizer.step()
    if is_distributed():
        optimizer.end_step(reduce=mean_over_ranks)
    return optimizer_state, model, model_state


def prepare_for_eval(
    workload: spec.Workload,
    current_param_container: spec.ParameterContainer,
    current_params_types: spec.ParameterTypeTree,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    loss_type: spec.LossType,
    optimizer_state: spec.OptimizerState,
    eval_results: list[tuple[int, float]],
    global_step: int,
    rng: spec.RandomState,
) -> spec.UpdateReturn:
    """Nothing to prepare: the weights that are trained are those that are evaluated."""
    return optimizer_state, current_param_container, model_state


def data_selection(
    workload: spec.Workload,
    input_queue: Iterator[dict[str, spec.Tensor]],
    optimizer_state: spec.OptimizerState,
    current_param_container: spec.ParameterContainer,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    global_step: int,
    rng: spec.RandomState,
) -> dict[str, spec.Tensor]:
    """The next batch of the queue as it is."""
    return next(input_queue)


def mean_loss(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean over the valid examples of all ranks: DDP then averages gradients that are of the right scale."""
    summed, valid = losses["summed"], losses["n_valid_examples"]
    if is_distributed():
        summed, valid = dist_nn.all_reduce(summed), dist_nn.all_reduce(valid)  # type: ignore[no-untyped-call]
    return summed / valid


def mean_over_ranks(flat: torch.Tensor) -> None:
    """Make a flat tensor the mean over the ranks, in place."""
    dist.all_reduce(flat)
    flat /= dist.get_world_size()


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
