"""Measuring a trained model on data."""

import torch
from torch.utils.data import DataLoader

from activelr_service.config import CommandError, TrainJob
from activelr_service.data import build_data
from activelr_service.driver.check import prepare_job
from activelr_service.export import load_model
from activelr_service.runs import Run
from activelr_service.tasks import TASKS
from activelr_service.training.evaluate import evaluate


def evaluate_run(run: Run, job: TrainJob) -> dict[str, float]:
    """The metrics of the run's best model on the held-out rows of the job's data."""
    job, _ = prepare_job(job)
    if not run.model.exists():
        raise CommandError(f"{run.label} has no model yet: its status is {run.status()}")
    assert job.task is not None
    task = TASKS[job.task]
    _, val = build_data(job.data)
    batches = DataLoader(val, batch_size=job.micro_batch_size(), collate_fn=task.collate)
    metrics = evaluate(task, load_model(run.model), batches, torch.device("cpu"), "float32")
    return {"rows": len(val), **metrics}
