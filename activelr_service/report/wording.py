"""Numbers, settings and caveats of a report in words, the same in the terminal, the figures and the page."""

import math
from collections.abc import Iterable

import pandas as pd
from pandas import DataFrame

from activelr_service.report.metrics import OTHER

AXIS_NAMES = {"initial_lr": "initial learning rate", "batch_size": "batch size"}


def short(number: float, width: int = 6) -> str:
    """Four digits in at most ``width`` characters; a dash for NaN."""
    if math.isnan(number):
        return "-"
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    if number and abs(number) < 1e-3:
        return scientific(number, width)
    whole = len(f"{abs(number):.0f}") if abs(number) >= 1 else 0
    decimals = max(4 - whole, 0)
    while decimals and len(f"{number:.{decimals}f}") > width:
        decimals -= 1
    text = f"{number:.{decimals}f}"
    return text if len(text) <= width else scientific(number, width)


def scientific(number: float, width: int) -> str:
    """3.2e-4: two digits, or one if two do not fit."""
    texts = []
    for decimals in (1, 0):
        mantissa, exponent = f"{number:.{decimals}e}".split("e")
        texts.append(f"{mantissa.removesuffix('.0')}e{int(exponent)}")
    return next((text for text in texts if len(text) <= width), texts[-1])


def setting(value: float) -> str:
    """A learning rate or a batch size: 0.001, 1e-05, 4,096; a dash where none was given."""
    if pd.isna(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def direction(higher_is_better: bool) -> str:
    return "higher is better" if higher_is_better else "lower is better"


def held_text(rows: DataFrame, axis: str) -> str:
    """What the other setting was, from the rows of a summary: "at batch size 128"; nothing where none was given."""
    held = rows["held"].dropna().unique()
    if len(held) == 0:
        return ""
    if len(held) == 1:
        return f"at {AXIS_NAMES[OTHER[axis]]} {setting(held[0])}"
    return "each at its own learning rate"


def caveats(means: DataFrame, axis: str) -> list[str]:
    """What keeps the numbers of one workload from being compared as they stand, from its rows of ``value_means``."""
    found = []
    several = means[means.duplicated("optimizer", keep=False)]
    values = set(several["value"].dropna())
    for label, group in several.groupby("optimizer", sort=False):
        if missing := sorted(values - set(group["value"])):
            found.append(f"{label} was not run at {_listed(missing)}: its numbers are of fewer values than others'")
    unknown = means[means["score"].isna()]
    for label, group in unknown.groupby("optimizer", sort=False):
        at = _listed(sorted(group["value"]))
        found.append(
            f"{label} has a trial without a score at {AXIS_NAMES[axis]} {at}, and no untrained model to count as"
        )
    return found


def _listed(values: Iterable[float]) -> str:
    return ", ".join(map(setting, values))
