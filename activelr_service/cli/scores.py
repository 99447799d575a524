"""The metrics of a model, split by split, as a table and as JSON."""

from typing import Any

Scores = dict[str, Any]  # the service's Score of each split; it is not imported, since it needs torch


def to_json(scores: Scores) -> dict[str, Any]:
    """The number of samples, those left out by reason, and the metrics of each split."""
    return {name: {"rows": score.rows, "left_out": score.left_out, **score.metrics} for name, score in scores.items()}


def table(scores: Scores) -> list[str]:
    """A line for each metric and a column for each split, then a line for each reason why samples were left out."""
    names = dict.fromkeys(name for score in scores.values() for name in score.metrics if name != "count")
    rows = {"": list(scores), "samples": [f"{score.rows:,}" for score in scores.values()]}
    rows["left out"] = [f"{sum(score.left_out.values()):,}" for score in scores.values()]
    rows |= {name: [_number(score.metrics.get(name)) for score in scores.values()] for name in names}
    width = max(map(len, rows))
    lines = [f"{name:<{width}}" + "".join(f"  {cell:>12}" for cell in cells) for name, cells in rows.items()]
    left_out = [(name, *item) for name, score in scores.items() for item in score.left_out.items()]
    return [*lines, *(f"left out of {name}: {count:,} {reason}" for name, reason, count in left_out)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4f}" if abs(value) < 1e6 else f"{value:.4g}"
