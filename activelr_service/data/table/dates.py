"""Finds columns of dates, which are not read."""

from typing import Any

from activelr_service.data.table.numbers import MISSING_WORDS

_DAY = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d{1,2}/\d{1,2}/\d{2}"
_NAMED_DAY = r"\d{1,2}\.?[ -][A-Z][a-z]{2,8}\.?[ -]\d{2,4}|[A-Z][a-z]{2,8}\.? \d{1,2},? \d{4}"
_DATE = rf"^({_DAY}|{_NAMED_DAY})([ T]\d{{1,2}}:\d{{2}}.*)?$"


def example_date(column: Any, missing: list[str]) -> str | None:
    """The first value of an arrow column of dates or times; None for any other column.

    Texts are dates if all are, apart from empty ones, words for a missing value, and those in ``missing``.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_temporal(column.type):
        return next((str(value) for value in column.to_pylist() if value is not None), str(column.type))
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        return None
    texts = pc.utf8_trim_whitespace(column.unique().drop_null().cast(pa.large_string()))
    texts = without_words(texts.filter(pc.not_equal(texts, "")), missing)
    return texts[0].as_py() if len(texts) and pc.all(pc.match_substring_regex(texts, _DATE)).as_py() else None


def without_words(texts: Any, missing: list[str]) -> Any:
    """The texts without the words for a missing value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = pa.array([*MISSING_WORDS, *(text.lower() for text in missing)], pa.large_string())
    return texts.filter(pc.invert(pc.is_in(pc.utf8_lower(texts), value_set=words)))
