"""The least that trains one DDP step on two Ray Train workers: what the start of the service is measured against."""

import sys
import time
from pathlib import Path

import ray
import torch
from ray.train import RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchTrainer, prepare_model


def train_loop_per_worker(config: dict[str, str]) -> None:
    model = prepare_model(torch.nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    if get_context().get_world_rank() == 0:
        (Path(config["folder"]) / "first_step").write_text(str(time.time()))


if __name__ == "__main__":
    ray.init(address="local", num_cpus=2)
    folder = sys.argv[1]
    TorchTrainer(
        train_loop_per_worker,
        train_loop_config={"folder": folder},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="minimal", storage_path=folder),
    ).fit()
