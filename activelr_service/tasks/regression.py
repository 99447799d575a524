"""The metrics of a regression, in the unit of the data."""

import torch

from activelr_service.tasks.answers import Answers, Measured


def measure(answers: Answers, target_scale: float = 1.0) -> Measured:
    """``mae``, ``rmse`` and ``r2``: each is computed for every output, then averaged over the outputs, as in scikit-learn.

    ``target_scale``: a difference of 1 in the targets means so much in the unit of the data. ``r2`` is that of the outputs
    whose targets differ; it is left out if there is none. Nothing is measured where there are too many outputs, or where
    one is not finite.
    """
    if answers.outputs is None or answers.targets is None or not answers.outputs.isfinite().all():
        return Measured({}, {})
    targets, errors = answers.targets.double(), answers.outputs.double() - answers.targets.double()
    squares = errors.square().mean(dim=0)
    metrics = {
        "mae": target_scale * errors.abs().mean().item(),
        "rmse": target_scale * squares.sqrt().mean().item(),
    }
    differs = (targets != targets[0]).any(dim=0)
    if differs.any():
        variances = torch.var(targets[:, differs], dim=0, correction=0)
        metrics["r2"] = (1 - squares[differs] / variances).mean().item()
    return Measured(metrics, {})
