"""What every config class builds on, and the hint that every message about an unknown name ends with."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class StrictConfig(BaseModel):
    """Unknown keys, wrong types, NaN and infinity are errors at every level; instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


def did_you_mean(word: str, known: Iterable[str], otherwise: str, cutoff: float = 0.6) -> str:
    """``did you mean "NAME"?`` for the known name that is most like ``word``; ``otherwise`` if none is like it.

    ``cutoff``: the least similarity, from 0 to 1, as in :func:`difflib.get_close_matches`.
    """
    close = get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f'did you mean "{close[0]}"?' if close else otherwise
