"""What an optimizer's label says: whether it is an ActiveLR variant, of which base, and how it is drawn."""

import re
from collections.abc import Iterable
from typing import NamedTuple

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # without yellow: too pale
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "*")
BASES = {"belief": "adabelief"}  # where the name of the base is not that of the variant without "active"


class Style(NamedTuple):
    """How a line of an optimizer is drawn: a family's colour and marker, solid and filled for the ActiveLR variant."""

    color: str
    marker: str
    linestyle: str
    markerfacecolor: str


def family_of(label: str) -> tuple[str, str]:
    """The normalised name of the base and the suffix in parentheses: ("adamw", "schedule=cosine"), or ""."""
    name, suffix = re.fullmatch(r"([^(]*)(?:\((.*)\))?.*", label, re.DOTALL).groups()  # type: ignore[union-attr]
    name = _letters(name)
    if is_active(label):
        name = name.removeprefix("active")
        name = BASES.get(name, name)
    return name, (suffix or "").strip()


def is_active(label: str) -> bool:
    return bool(re.match("active.", _letters(label)))


def pairs(labels: Iterable[str]) -> dict[str, str]:
    """The base of each ActiveLR label, among these; one without its base here is left out.

    The base of "active_adamw (schedule=cosine)" is "AdamW (schedule=cosine)": case and punctuation do not matter, the
    suffix does.
    """
    bases = {family_of(label): label for label in sorted(labels, reverse=True) if not is_active(label)}
    found = {label: bases.get(family_of(label)) for label in sorted(labels) if is_active(label)}
    return {label: base for label, base in found.items() if base is not None}


def ordered(labels: Iterable[str]) -> list[str]:
    """Each base before its ActiveLR variant, families by name; optimizers without a partner last."""
    labels = sorted(set(labels))
    partners = {label for pair in pairs(labels).items() for label in pair}
    return sorted(labels, key=lambda label: (label not in partners, family_of(label), is_active(label)))


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """A style for each label; two families never share both colour and marker while they are fewer than 77."""
    families = list(dict.fromkeys(family_of(label) for label in ordered(labels)))
    places = {family: place for place, family in enumerate(families)}
    return {label: _style(places[family_of(label)], is_active(label)) for label in ordered(labels)}


def _style(place: int, active: bool) -> Style:
    color, marker = OKABE_ITO[place % len(OKABE_ITO)], MARKERS[place % len(MARKERS)]
    return Style(color, marker, "-", color) if active else Style(color, marker, "--", "white")


def _letters(label: str) -> str:
    return re.sub("[^a-z0-9]", "", label.lower())
