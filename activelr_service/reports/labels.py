"""Words of a report: labels of optimizers and how they form pairs, names of axes, numbers as text, and caveats.

The terminal, the figures and the page use the same words.
"""

import math
import re
from collections.abc import Iterable

import pandas as pd
from pandas import DataFrame

BASELINES = {"belief": "adabelief"}  # variants that are not called "active" and the name of their baseline
AXIS_NAMES = {"initial_lr": "initial learning rate", "batch_size": "batch size"}
METRIC_NAMES = {"map_50": "mAP@0.5"}
OTHER = {"initial_lr": "batch_size", "batch_size": "initial_lr"}


def family_of(label: str) -> tuple[str, str]:
    """The normalized name of the baseline, and the suffix in parentheses or "": ("adamw", "schedule=cosine")."""
    name, suffix = re.fullmatch(r"([^(]*)(?:\((.*)\))?.*", label, re.DOTALL).groups()  # type: ignore[union-attr]
    name = _letters(name)
    if is_active(label):
        name = name.removeprefix("active")
        name = BASELINES.get(name, name)
    return name, (suffix or "").strip()


def is_active(label: str) -> bool:
    """Whether the label is that of an ActiveLR variant."""
    return bool(re.match("active.", _letters(label)))


def pairs(labels: Iterable[str]) -> dict[str, str]:
    """The baseline of each ActiveLR label, if these ``labels`` have it: {"active_adamw": "adamw"}.

    Case and punctuation do not matter, the suffix does: the baseline of "active_adamw (schedule=cosine)" is
    "AdamW (schedule=cosine)".
    """
    baselines = {family_of(label): label for label in sorted(labels, reverse=True) if not is_active(label)}
    found = {label: baselines.get(family_of(label)) for label in sorted(labels) if is_active(label)}
    return {label: baseline for label, baseline in found.items() if baseline is not None}


def ordered(labels: Iterable[str]) -> list[str]:
    """The labels in the order of a report: pairs by name, each baseline before its ActiveLR variant, then all others."""
    labels = sorted(set(labels))
    partners = {label for pair in pairs(labels).items() for label in pair}
    return sorted(labels, key=lambda label: (label not in partners, family_of(label), is_active(label)))


def _letters(label: str) -> str:
    return re.sub("[^a-z0-9]", "", label.lower())


def short(number: float, width: int = 6) -> str:
    """A number with four digits in at most ``width`` characters. NaN is a dash."""
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
    """A number as 3.2e-4, with two digits, or with one if two do not fit into ``width`` characters."""
    texts = []
    for decimals in (1, 0):
        mantissa, exponent = f"{number:.{decimals}e}".split("e")
        texts.append(f"{mantissa.removesuffix('.0')}e{int(exponent)}")
    return next((text for text in texts if len(text) <= width), texts[-1])


def setting(value: float) -> str:
    """A learning rate or a batch size as text: 0.001, 1e-05, 4,096. NaN, which means that none was given, is a dash."""
    if pd.isna(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def metric_name(metric: str) -> str:
    """A metric in words: "validation accuracy" for val_accuracy. Names of other forms stay as they are."""
    name = metric.removeprefix("val_")
    return metric if name == metric else f"validation {METRIC_NAMES.get(name, name.replace('_', ' '))}"


def direction(higher_is_better: bool) -> str:
    return "higher is better" if higher_is_better else "lower is better"


def held_text(rows: DataFrame, axis: str) -> str:
    """The value of the other setting, from the rows of a summary: "at batch size 128". Empty if none was given."""
    held = rows["held"].dropna().unique()
    if len(held) == 0:
        return ""
    if len(held) == 1:
        return f"at {AXIS_NAMES[OTHER[axis]]} {setting(held[0])}"
    return "each at its own learning rate"


def caveats(means: DataFrame, axis: str) -> list[str]:
    """Reasons why the numbers of one workload cannot simply be compared, from its rows of ``value_means``."""
    found = []
    several = means[means.duplicated("optimizer", keep=False)]
    values = set(several["value"].dropna())
    for label, group in several.groupby("optimizer", sort=False):
        if missing := sorted(values - set(group["value"])):
            found.append(f"{label} was not run at {_listed(missing)}, so its numbers are means over fewer values")
    unknown = means[means["score"].isna()]
    for label, group in unknown.groupby("optimizer", sort=False):
        at = _listed(sorted(group["value"]))
        found.append(
            f"{label} has a trial without a score at {AXIS_NAMES[axis]} {at}, and its untrained model was not measured"
        )
    return found


def _listed(values: Iterable[float]) -> str:
    return ", ".join(map(setting, values))
