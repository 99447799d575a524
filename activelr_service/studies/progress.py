"""What a study says while it runs."""

import math
import time
from collections.abc import Callable

from activelr_service.config.task import metrics_of_task
from activelr_service.runs.console import duration
from activelr_service.studies.folder import Outcome, StudyFolder
from activelr_service.studies.plan import Plan
from activelr_service.studies.table import column_name

TABLE_EVERY_S = 15.0


class Progress:
    """Counts the trials that have ended; says at once what did not finish, and every few seconds a table of all."""

    def __init__(self, plan: Plan, folder: StudyFolder, done: list[str], say: Callable[[str], None]) -> None:
        self.plan = plan
        self.outcomes = {trial_id: outcome for trial_id in done if (outcome := folder.read_outcome(trial_id))}
        self.folder = folder
        self.say = say
        self.done_before = len(done)
        self.start = self.last_table = time.monotonic()
        self.first_end: float | None = None

    def end(self, trial_id: str) -> None:
        """A trial has ended."""
        outcome = self.folder.read_outcome(trial_id)
        if outcome is None:
            return
        self.outcomes[trial_id] = outcome
        self.first_end = self.first_end or time.monotonic()
        if outcome.status != "finished":
            trial = self.plan.trial(trial_id).describe()
            self.say(f"  {trial}: {outcome.status} in epoch {outcome.epoch} ({outcome.reason[:120]})")
        if time.monotonic() - self.last_table >= TABLE_EVERY_S:
            self.last_table = time.monotonic()
            self.say("\n".join(self.table()))

    def trials_per_minute(self) -> float:
        minutes = (time.monotonic() - self.start) / 60
        return (len(self.outcomes) - self.done_before) / minutes

    def table(self) -> list[str]:
        """How far every workload and optimizer is, and its best score so far."""
        total, ended = len(self.plan.ready), len(self.outcomes)
        lines = [f"{ended} of {total} trials, {self.trials_per_minute():.1f} a minute{self._left(total - ended)}"]
        lines.append(f"  {'':44}{'ended':>9}{'diverged':>9}{'other':>7}   best")
        groups: dict[tuple[str, str], list[str]] = {}
        for trial in self.plan.trials:
            if trial.id in self.plan.ready:
                groups.setdefault((trial.workload, trial.optimizer), []).append(trial.id)
        return lines + [self._line(*group, ids) for group, ids in groups.items()]

    def _left(self, count: int) -> str:
        """Without the time that the processes took to start."""
        since_first = len(self.outcomes) - self.done_before - 1
        if count == 0 or self.first_end is None or since_first < 1:
            return ""
        seconds = (time.monotonic() - self.first_end) / since_first * count
        return f", about {duration(seconds)} left"

    def _line(self, workload: str, optimizer: str, ids: list[str]) -> str:
        ended = [self.outcomes[trial_id] for trial_id in ids if trial_id in self.outcomes]
        diverged = sum(outcome.status == "diverged" for outcome in ended)
        other = sum(outcome.status not in ("diverged", "finished") for outcome in ended)
        task = metrics_of_task(self.plan.ready[ids[0]][0].task or "classification")
        best = best_score(ended, task.val_score, task.higher_is_better)
        shown = f"{column_name(task.val_score)} {best:.4f}" if math.isfinite(best) else ""
        name = f"{workload}, {optimizer}"[:44]
        return f"  {name:44}{f'{len(ended)}/{len(ids)}':>9}{diverged:>9}{other:>7}   {shown}"


def best_score(outcomes: list[Outcome], metric: str, higher_is_better: bool) -> float:
    """The best of all epochs of all outcomes; not finite if there is none."""
    pick, none = (max, -math.inf) if higher_is_better else (min, math.inf)
    scores = [row[metric] for outcome in outcomes for row in outcome.rows if row["epoch"] > 0 and metric in row]
    return pick(scores, default=none)
