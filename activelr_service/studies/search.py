"""A random search over AdamW, for comparison: what would tuning have found, and at what cost?

A trial of the search has settings drawn at random. When all of a workload have ended, the settings that were the best on
the validation samples are trained again with the seeds of the study. They had another seed in the search, so that the
luck of the draw does not count for them.
"""

import math
from dataclasses import replace

import numpy as np

from activelr_service.config import StudyJob
from activelr_service.config.task import metrics_of_task
from activelr_service.studies.folder import StudyFolder
from activelr_service.studies.plan import Plan
from activelr_service.studies.space import Trial, trial_of_winner
from activelr_service.studies.track import best_score


def with_winners(plan: Plan, study: StudyJob, folder: StudyFolder) -> Plan:
    """The plan with the trials of the winners of its random searches, as far as these have ended.

    Returns ``plan`` itself if it has them all.
    """
    if study.random_search is None:
        return plan
    known = {trial.id for trial in plan.trials}
    trials, ready = list(plan.trials), dict(plan.ready)
    for workload in study.workloads:
        winner = find_winner(plan, workload, folder)
        if winner is None:
            continue
        job, info = plan.ready[winner.id]
        for seed in study.seeds:
            trial = trial_of_winner(winner, seed, study.random_search.trials)
            if trial.id not in known:
                trials.append(trial)
                ready[trial.id] = (job.model_copy(update={"seed": seed}), info)
    return plan if len(trials) == len(plan.trials) else replace(plan, trials=trials, ready=ready)


def find_winner(plan: Plan, workload: str, folder: StudyFolder) -> Trial | None:
    """The trial of a workload's random search with the best validation score, the first of several.

    None before all have ended, and if none has a score.
    """
    searched = [trial for trial in plan.trials if trial.workload == workload and trial.random_trial]
    searched = [trial for trial in searched if trial.id in plan.ready]
    outcomes = [folder.read_outcome(trial.id) for trial in searched]
    if not searched or None in outcomes:
        return None
    job = plan.ready[searched[0].id][0]
    metrics = metrics_of_task(job.task, job.metric)
    costs = []
    for outcome in outcomes:
        lasting = [outcome] if outcome is not None and outcome.status == "finished" else []
        score = best_score(lasting, metrics.val_score, metrics.higher_is_better)
        costs.append(-score if metrics.higher_is_better else score)
    best = int(np.argmin(costs))
    return searched[best] if math.isfinite(costs[best]) else None
