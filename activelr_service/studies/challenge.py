"""``activelr challenge``: is a job as good without a choice as after a random search over AdamW, and what does each cost?

A challenge is a study of one workload, with a random search. So it can be continued, and it stands in MLflow as any study.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame
from scipy import stats

from activelr_service.config import StudyJob
from activelr_service.config.load import JobSource, parse_job, parse_study, read_document
from activelr_service.errors import CommandError, JobError, Problem
from activelr_service.reports.statistics import expected_best
from activelr_service.reports.trials import trials_of
from activelr_service.runs.console import duration
from activelr_service.runs.files import write_text
from activelr_service.studies.run import run_study, show_study
from activelr_service.studies.space import BEST, SEARCHED_LABEL, draw_settings
from activelr_service.studies.table import read_results

DEFAULT = {"type": "active_adamw"}
OF_THE_STUDY = ("kind", "name", "optimizer", "seed", "workers", "tracking", "output_dir")  # not part of a workload
CONFIDENCE = 0.95
POWERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # sizes of a search that are shown

Floats = NDArray[np.float64]


class Side(NamedTuple):
    """The optimizer without a choice, or the winner of the search.

    - ``scores`` (seeds,): on the test samples if there are some, else on the validation samples; of its best epochs;
    - ``trainings``, ``seconds``: what it took to get one such model: a search takes all of its trials and one training more.
    """

    name: str
    scores: Floats
    trainings: int
    seconds: float


class Result(NamedTuple):
    """What came out. ``metric`` is that of ``scores``; ``searches`` are rows of how many trials and their expected best."""

    metric: str
    higher_is_better: bool
    is_test: bool
    default: Side
    searched: Side
    settings: str
    lost: int
    searches: list[tuple[int, float]]


def read_challenge(path: Path, overrides: Sequence[str], trials: int, seeds: int) -> tuple[StudyJob, JobSource]:
    """The study of a job's file: the job's own ActiveLR optimizer, or ``active_adamw``, against AdamW at ``trials`` random
    settings, each with ``seeds`` seeds. Raises :class:`JobError`, with the place in the file, for what a study refuses."""
    data, source = read_document(path, overrides)
    with source.locating():
        job = parse_job(data)
        if job.duration.seconds is not None:
            text = "a challenge must not depend on how busy the machine is; give epochs or budget.steps"
            raise JobError([Problem(("budget", "time"), text)])
        if job.early_stop is not None:
            text = "all trainings of a challenge take their whole length; leave it out, or add --set early_stop=null"
            raise JobError([Problem(("early_stop",), text)])
        own = data.get("optimizer", {})
        own = {"type": own} if isinstance(own, str) else own
        is_active = str(own.get("type", "")).startswith("active_") and own.get("rule", "robust") == "robust"
        workload = {key: value for key, value in data.items() if key not in OF_THE_STUDY}
        study: dict[str, Any] = {
            "kind": "study",
            "name": f"challenge-{job.name}",
            "workloads": {job.name: workload},
            "optimizers": [own if is_active else DEFAULT],
            "random_search": {"trials": trials},
            "seeds": list(range(seeds)),
            **{key: data[key] for key in ("tracking", "output_dir") if key in data},
        }
        return parse_study(study), source


def challenge(study: StudyJob, is_dry: bool) -> list[str]:
    """Run what is left of a challenge. Returns lines that say who won, by how much, and at what cost."""
    if is_dry:
        show_study(study)
        return [f"after them the winner of the search is trained with {_count(len(study.seeds), 'seed')}"]
    folder = run_study(study)
    table, _ = read_results(str(folder.path), study.output_dir, None, None)
    lines = result_lines(read_result(table, study), study)
    write_text(folder.report / "challenge.txt", "\n".join(lines) + "\n")
    return [*lines, f"all trainings: {folder.report / 'results.csv'}; these lines: {folder.report / 'challenge.txt'}"]


def read_result(table: DataFrame, study: StudyJob) -> Result:
    """What came out, from the table of the study. Raises :class:`CommandError` if there is nothing to compare."""
    trials = trials_of(table).reset_index()
    names = trials["optimizer"]
    searched, winner = trials[names == SEARCHED_LABEL], trials[names.str.startswith(BEST)]
    default = trials[(names != SEARCHED_LABEL) & ~names.str.startswith(BEST)]
    if winner.empty:
        raise CommandError(
            f"none of the {len(searched)} trials of the search has a result: there is nothing to compare"
        )
    is_test = bool(trials["test_score"].notna().any())
    column = "test_score" if is_test else "score"
    higher, metric = bool(trials["higher_is_better"].iloc[0]), str(trials["metric"].iloc[0])
    found = searched["score"].dropna().to_numpy()
    sizes = sorted({*(k for k in POWERS if k < len(searched)), len(searched)})
    return Result(
        metric.replace("val_", "test_" if is_test else "validation ", 1).replace("_", " "),
        higher,
        is_test,
        _side(default, column, 1, 0.0),
        _side(winner, column, 1 + len(searched), float(searched["seconds"].sum())),
        settings_of(study, int(searched.loc[_best(searched, higher), "random_trial"])),
        int((searched["status"] != "finished").sum()),
        [(k, expected_best(found, k, higher)) for k in sizes],
    )


def _side(trials: DataFrame, column: str, trainings: int, seconds: float) -> Side:
    scores = trials.sort_values("seed")[column].to_numpy(float)
    return Side(str(trials["optimizer"].iloc[0]), scores, trainings, seconds + float(trials["seconds"].mean()))


def _best(searched: DataFrame, higher_is_better: bool) -> Any:
    finished = searched[searched["status"] == "finished"]["score"]
    return finished.idxmax() if higher_is_better else finished.idxmin()


def result_lines(result: Result, study: StudyJob) -> list[str]:
    """The result in words and numbers."""
    rows = [("", "mean", "standard deviation", "trainings for one model", "time for one model")]
    for side in (result.default, result.searched):
        spread = f"{np.std(side.scores, ddof=1):.2g}" if len(side.scores) > 1 else "-"
        rows.append((side.name, f"{np.mean(side.scores):#.4g}", spread, str(side.trainings), _time(side.seconds)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    seeds = _count(len(study.seeds), "seed")
    better = "higher" if result.higher_is_better else "lower"
    lines = [f"{study.name}: {result.metric}, {better} is better, {seeds}"]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    lines += [f"  {line.rstrip()}" for line in padded]
    lines += [f"  the search chose {result.settings}", verdict(result)]
    if not result.is_test:
        lines.append(
            "the validation samples chose the winner of the search, which favors it; data.test_fraction avoids that"
        )
    if result.lost:
        lines.append(f"{result.lost} of the {result.searches[-1][0]} trials of the search diverged or failed")
    found = ", ".join(f"{size}: {score:.4g}" for size, score in result.searches)
    return [*lines, f"expected validation score of the best of so many trials: {found}"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def verdict(result: Result) -> str:
    """Who won, and by how much: Welch's interval of the difference of the means, and the share of pairs that are won."""
    sign = 1 if result.higher_is_better else -1
    sides = sorted((result.default, result.searched), key=lambda side: -sign * float(np.mean(side.scores)))
    first, second = (sign * side.scores for side in sides)
    ahead = f"{sides[0].name} is ahead by {float(np.mean(first) - np.mean(second)):.4g}"
    if min(len(first), len(second)) < 2:
        return f"{ahead}; one seed does not tell whether that is more than chance"
    low, high = interval(first, second)
    who = f"{sides[0].name} won" if low > 0 else "nobody won: these seeds do not tell the two apart"
    pairs = f"the better one in {win_share(first, second):.0%} of the pairs of trainings"
    return f"{who}. {ahead} (95 % interval {low:.4g} to {high:.4g}), and {pairs}"


def interval(ours: Floats, theirs: Floats) -> tuple[float, float]:
    """The interval of the difference of two means, by Welch's t test (scipy). Without any spread it is the difference."""
    difference = float(np.mean(ours) - np.mean(theirs))
    if not np.ptp(ours) and not np.ptp(theirs):
        return difference, difference
    found = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(CONFIDENCE)
    return float(found.low), float(found.high)


def win_share(ours: Floats, theirs: Floats) -> float:
    """The probability of improvement: the share of all pairs in which ours is higher, ties counted as half (Agarwal et al.
    2021, arXiv 2108.13264, section 4.3)."""
    differences = ours[:, None] - theirs[None, :]
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))


def settings_of(study: StudyJob, number: int) -> str:
    """The settings of a trial of the search, as a job writes them."""
    if study.random_search is None or not math.isfinite(number):
        return ""
    found = draw_settings(study.random_search, number)
    return ", ".join(f"{name}: {value}" for name, value in found.items())
