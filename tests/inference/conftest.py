"""Small models of every kind of data, exported as the end of a run exports them, without a training in Ray."""

import json

import torch

from activelr_service.config import parse_job
from activelr_service.data import build_data
from activelr_service.data.example import write_example
from activelr_service.data.raw_inputs import describe_inputs
from activelr_service.export.model import WEIGHTS, sha256_of, write_recipe
from activelr_service.models import build_model
from activelr_service.service.check import prepare_job
from activelr_service.service.resolve import Resources, resolve_job

MLP = {"type": "mlp", "hidden": [8]}


def export(folder, data, model=MLP, steps=30, temperature=1.0, **more):
    """Train a little, and export. Return the folder of the model, the resolved job and the validation dataset."""
    from safetensors.torch import save_model

    job = parse_job({"kind": "train", "name": "x", "epochs": 1, "model": model, "data": data,
                     "output_dir": str(folder), "global_batch_size": 4, "workers": {"num_workers": 1}, **more})  # fmt: skip
    job, info = prepare_job(job)
    job, _ = resolve_job(job, info, Resources(1, 0))
    torch.manual_seed(0)
    module = build_model(job.model, info, job.task)
    train, val = build_data(job.data)
    if job.task in ("classification", "regression") and steps:
        fit(module, train, job.task, steps)
    out = folder / "model"
    out.mkdir(parents=True, exist_ok=True)
    save_model(module, str(out / WEIGHTS))
    inputs = describe_inputs(job.data)
    json.dumps(inputs)
    write_recipe(out, job.model, info, job.task, sha256_of(out / WEIGHTS), inputs, temperature)
    write_example(out, job.data, print)
    return out, job, val


def fit(module, train, task, steps):
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    module.train()
    loader = torch.utils.data.DataLoader(train, batch_size=min(64, len(train)))
    while steps > 0:
        for inputs, targets in loader:
            outputs = module(inputs)
            if task == "classification":
                loss = torch.nn.functional.cross_entropy(outputs, targets)
            else:
                loss = torch.nn.functional.mse_loss(outputs, targets.view_as(outputs))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps -= 1


def inputs_of(val):
    """The inputs of a dataset of (input, target), as one tensor."""
    return torch.stack([val[index][0] for index in range(len(val))])


def targets_of(val):
    return torch.as_tensor([val[index][1] for index in range(len(val))])
