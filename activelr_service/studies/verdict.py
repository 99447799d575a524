"""What came out of a challenge, in words and numbers: who won, by how much, and at what cost."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from activelr_service.runs.console import duration

CONFIDENCE = 0.95
SIZES = (1, 10, 100)  # of searches, in the table of several workloads

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
    """What came out on a workload. ``metric`` is that of ``scores``; ``searches`` are rows of how many trials and their
    expected best."""

    workload: str
    metric: str
    higher_is_better: bool
    is_test: bool
    default: Side
    searched: Side
    settings: str
    lost: int
    searches: list[tuple[int, float]]


def result_lines(result: Result) -> list[str]:
    """The result of one workload in words and numbers."""
    rows = [("", "mean", "standard deviation", "trainings for one model", "time for one model")]
    for side in (result.default, result.searched):
        rows.append(
            (side.name, f"{np.mean(side.scores):#.4g}", _spread(side), str(side.trainings), _time(side.seconds))
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    better = "higher" if result.higher_is_better else "lower"
    lines = [f"{result.workload}: {result.metric}, {better} is better, {count(len(result.default.scores), 'seed')}"]
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


def count(number: int, noun: str) -> str:
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


def table_lines(results: list[Result]) -> list[str]:
    """The results of several workloads as a table in Markdown, and how many each side has won.

    A side has won a workload where Welch's test says so at 5 % after Holm's correction for all workloads.
    """
    sizes = [size for size in SIZES if size <= max(size for result in results for size, _ in result.searches)]
    best = f"best of {results[0].searches[-1][0]}"
    head = ["workload", "score", "default", f"search, {best}", "default ahead by", "p, Holm"]
    head += [f"expected best of {size}" for size in sizes]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    adjusted = holm([p_value(result.default.scores, result.searched.scores) for result in results])
    won = {"the default": 0, "the search": 0, "nobody": 0}
    for result, p in zip(results, adjusted, strict=True):
        ahead = (1 if result.higher_is_better else -1) * _difference(result)
        won["nobody" if not p < 1 - CONFIDENCE else "the default" if ahead > 0 else "the search"] += 1
        arrow = "higher" if result.higher_is_better else "lower"
        cells = [result.workload, f"{result.metric}, {arrow} is better"]
        cells += [f"{np.mean(side.scores):#.4g} ± {_spread(side)}" for side in (result.default, result.searched)]
        cells += [f"{ahead:+.2g}", f"{p:.2g}"]
        found = dict(result.searches)
        lines.append(f"| {' | '.join([*cells, *(f'{found[size]:#.4g}' for size in sizes)])} |")
    tally = ", ".join(f"{who} won {number}" for who, number in won.items())
    lines += ["", f"{tally} of {count(len(results), 'workload')} (Welch's test at 5 %, corrected by Holm)"]
    return [*lines, *aggregate_lines(results)]


def aggregate_lines(results: list[Result]) -> list[str]:
    """All workloads together: the interquartile mean of scores on one scale, its interval by a bootstrap that is stratified
    by workload (Agarwal et al. 2021, arXiv 2108.13264, section 4), and the probability of improvement."""
    if any(min(len(result.default.scores), len(result.searched.scores)) < 2 for result in results):
        return []
    scaled = [on_one_scale(result) for result in results]
    if None in scaled:
        return ["no mean over all workloads: on one of them the search's winner is no better than a random AdamW"]
    ours, theirs = zip(*(pair for pair in scaled if pair), strict=True)
    low, high = bootstrap_interval(ours, theirs)
    pairs = np.mean([win_share(*pair) for pair in zip(ours, theirs, strict=True)])
    means = interquartile_mean(*ours), interquartile_mean(*theirs)
    return [
        "interquartile mean over all workloads, where 0 is one random AdamW on validation samples and 1 is the mean of the "
        f"search: the default {means[0]:.3f}, the search {means[1]:.3f}. "
        f"The default is ahead by {means[0] - means[1]:+.3f} (95 % interval {low:+.3f} to {high:+.3f}, stratified bootstrap)"
        f", and the better one in {pairs:.0%} of the pairs of trainings, mean over the workloads",
    ]


def on_one_scale(result: Result) -> tuple[Floats, Floats] | None:
    """The scores of the default and of the search: 0 is the expected score of one random AdamW, 1 the mean of the search.
    None where the second is not better than the first."""
    sign = 1 if result.higher_is_better else -1
    low, high = dict(result.searches)[1], float(np.mean(result.searched.scores))
    if not sign * (high - low) > 0:
        return None
    return (result.default.scores - low) / (high - low), (result.searched.scores - low) / (high - low)


def interquartile_mean(*samples: Floats) -> float:
    """The mean of the middle half of all scores together."""
    return float(stats.trim_mean(np.concatenate(samples), 0.25))


def bootstrap_interval(ours: Sequence[Floats], theirs: Sequence[Floats]) -> tuple[float, float]:
    """The interval of the difference of two interquartile means. Each sample is drawn anew by itself (scipy, percentiles of
    2,000 draws)."""

    def difference(*samples: Floats, axis: int) -> Floats:
        halves = samples[: len(ours)], samples[len(ours) :]
        means = [stats.trim_mean(np.concatenate(half, axis=axis), 0.25, axis=axis) for half in halves]
        return np.asarray(means[0] - means[1])

    found = stats.bootstrap(
        (*ours, *theirs),
        difference,
        n_resamples=2000,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def holm(p_values: list[float]) -> list[float]:
    """The p-values after Holm's correction (1979), in their order: each is multiplied by how many are not smaller."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    rising = np.maximum.accumulate(np.minimum(1.0, np.array(p_values)[order] * factors))
    adjusted = np.empty(len(p_values))
    adjusted[order] = rising
    return [float(p) for p in adjusted]


def p_value(ours: Floats, theirs: Floats) -> float:
    """Of the difference of two means, by Welch's t test (scipy); 1 where there are too few scores for it."""
    if min(len(ours), len(theirs)) < 2:
        return 1.0
    if not np.ptp(ours) and not np.ptp(theirs):
        return float(np.mean(ours) == np.mean(theirs))
    return float(stats.ttest_ind(ours, theirs, equal_var=False).pvalue)


def _difference(result: Result) -> float:
    return float(np.mean(result.default.scores) - np.mean(result.searched.scores))


def _spread(side: Side) -> str:
    return f"{np.std(side.scores, ddof=1):.2g}" if len(side.scores) > 1 else "-"
