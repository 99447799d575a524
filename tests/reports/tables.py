"""Small tables in normal form whose numbers can be worked out by hand."""

import numpy as np
from pandas import DataFrame


def trial(optimizer, initial_lr, scores, status="finished", untrained=None, **changes):
    """The rows of a trial: ``scores`` of the epochs from 1 on, after that of the untrained model if there is one."""
    settings = {"workload": "w", "batch_size": 32.0, "seed": 0, "metric": "val_accuracy", "higher_is_better": True}
    settings |= {"optimizer": optimizer, "initial_lr": initial_lr, "status": status, "reason": "", **changes}
    name = "-".join(str(settings[key]) for key in ("workload", "optimizer", "initial_lr", "batch_size", "seed"))
    first = [] if untrained is None else [(0, untrained)]
    return [
        {
            **settings,
            "trial": name,
            "epoch": epoch,
            "score": score,
            "val_loss": settings.get("val_loss", 1 - score),
            "train_loss": np.nan,
            "seconds": 2.0 * (epoch > 0),
            "samples": 100.0 * (epoch > 0),
        }
        for epoch, score in [*first, *enumerate(scores, 1)]
    ]


def table_of(*trials):
    return DataFrame([row for rows in trials for row in rows])


def study(workloads=("w",), labels=("adamw", "active_adamw", "prodigy"), sizes=(32.0, 128.0), epochs=4):
    """Curves of every kind of trial: two learning rates and seeds, one that diverged at once, one that failed."""
    rows = []
    for workload in workloads:
        for place, label in enumerate(labels):
            for rate in (1e-3, 1e-2) if label != "prodigy" else (1.0,):
                for size in sizes:
                    for seed in (0, 1):
                        peak = 0.9 - 0.05 * place - 0.1 * (rate == 1e-2) - 0.02 * seed - size / 1e4
                        scores = [peak * (1 - 0.5**epoch) for epoch in range(1, epochs + 1)]
                        rows += trial(label, rate, scores, untrained=0.1, workload=workload, batch_size=size, seed=seed)
        rows += trial("adamw", 0.1, [0.2, np.nan], "diverged", 0.1, workload=workload, reason="loss is nan")
        rows += trial("adamw", 0.2, [], "failed", np.nan, workload=workload, reason="no data")
    return DataFrame(rows)
