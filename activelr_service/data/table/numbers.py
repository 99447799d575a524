"""Parses texts as numbers, with decimal points or commas, and knows the words for a missing value."""

from typing import Any, NamedTuple

import numpy as np

from activelr_service.data.table.file import TableFile

# Words for a missing value in a column of numbers, in lower case. In a column of texts they are texts like any other.
MISSING_WORDS = {
    *("?", "??", "-", "--", ".", "na", "n/a", "n.a.", "n.d.", "#n/a", "#na", "<na>", "nil", "null", "(null)", "none"),
    *("nan", "+nan", "-nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"),
    *("missing", "(missing)", "blank", "(blank)"),
    *("#null!", "#div/0!", "#value!", "#ref!", "#num!", "#name?"),
}
_SAMPLE_ROWS = 10_000
_LEAST_NUMBERS = 0.95  # the least share of numbers among the texts of a column that shows the decimal sign

Gaps = dict[str, tuple[int, int]]


class Parsed(NamedTuple):
    """A column as float64 ``values``, NaN where one is missing.

    ``gaps`` maps each text that counts as missing (``""`` is an empty cell) to (number of rows, first row from 1).
    ``odd_rows`` are the indices of the cells that are neither a number nor missing. ``grouped`` is an example of a number
    whose digits are grouped.
    """

    values: np.ndarray
    gaps: Gaps
    odd_rows: np.ndarray
    grouped: str | None = None


def parse_numbers(column: Any, decimal: str, missing: list[str]) -> Parsed:
    """Parse an arrow array of numbers or of trimmed large_string. The texts in ``missing`` count as missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_large_string(column.type):
        values = to_numpy(pc.cast(column, pa.float64(), safe=False))
        return _with_missing(values, np.isnan(values), missing)
    plain = _cast_texts(column, decimal)
    if plain is not None:
        return _with_missing(plain, np.isnan(plain), missing)
    encoded = column.dictionary_encode()
    texts, codes = encoded.dictionary, to_numpy(encoded.indices.fill_null(-1))
    values = np.append(_values(texts, decimal), np.nan)  # the last is that of code -1, an empty cell
    words = np.array([*missing, *{text for text in texts.to_pylist() if text.lower() in MISSING_WORDS}], dtype=object)
    is_word = np.append(np.isin(np.array(texts.to_pylist(), dtype=object), words), False)
    parsed = _with_missing(np.where(is_word, np.nan, values)[codes], codes < 0, missing)
    gaps = parsed.gaps
    for code in np.flatnonzero(is_word):
        gaps = count_gap(gaps, texts[code].as_py(), codes == code)
    is_odd = np.isnan(values)[codes] & ~is_word[codes] & (codes >= 0)
    return Parsed(parsed.values, gaps, np.flatnonzero(is_odd), _first_grouped(texts, decimal))


def count_gap(gaps: Gaps, text: str, is_gap: np.ndarray) -> Gaps:
    """Add the rows where ``is_gap`` is true to ``gaps``, if there are any."""
    rows = np.flatnonzero(is_gap)
    return {**gaps, text: (len(rows), int(rows[0]) + 1)} if len(rows) else gaps


def to_numpy(column: Any) -> np.ndarray:
    """The arrow array as a NumPy array, in which a null number is NaN."""
    return np.asarray(column.to_numpy(zero_copy_only=False))


def infer_decimal(file: TableFile, names: list[str]) -> tuple[str, str | None]:
    """The decimal sign of the texts in the columns ``names``, and a warning if both signs would be possible.

    Raises :class:`JobError` if some numbers have points and others commas.
    """
    if not file.can_hold_commas:
        return ".", None
    styles = [_Style.of(name, file.table.column(name).slice(0, _SAMPLE_ROWS)) for name in names]
    comma = next((style for style in styles if style.comma), None)
    point = next((style for style in styles if style.point), None)
    if comma and point:
        text = f"decimal commas in the column {comma.name!r} ({comma.comma}) and decimal points in {point.name!r}"
        raise file.error(f"{text} ({point.point}); write them one way, or set data.decimal to the right sign")
    either = next((style for style in styles if style.either), None)
    if comma or either is None or point or file.separator in (",", None):
        return ("," if comma else "."), None
    sign, word, other = (",", "comma", ".") if "," in (either.either or "") else (".", "point", ",")
    if word == "point" and file.separator != ";":  # which is common where the comma is the decimal sign
        return sign, None
    text = f"{either.either!r} in the column {either.name!r} of {file.path} is read with a decimal {word}"
    return sign, f"{text}; if the {word} groups thousands, set data.decimal: '{other}'"


def shown_decimal(file: TableFile, names: list[str]) -> str | None:
    """The decimal sign that the texts in the columns ``names`` show; None if they show none, or both."""
    if not file.can_hold_commas:
        return "."
    styles = [_Style.of(name, file.table.column(name).slice(0, _SAMPLE_ROWS)) for name in names]
    signs = {sign for style in styles for sign, shown in ((",", style.comma), (".", style.point)) if shown}
    return signs.pop() if len(signs) == 1 else None


class _Style(NamedTuple):
    """Examples of numbers of a column: with a decimal comma, with a decimal point, or possible with either."""

    name: str
    comma: str | None = None
    point: str | None = None
    either: str | None = None

    @classmethod
    def of(cls, name: str, column: Any) -> "_Style":
        import pyarrow as pa
        import pyarrow.compute as pc

        if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
            return cls(name)
        texts = pc.utf8_trim_whitespace(column.unique().drop_null()).cast(pa.large_string())
        known = pa.array([*MISSING_WORDS, ""], pa.large_string())
        texts = texts.filter(pc.invert(pc.is_in(pc.utf8_lower(texts), value_set=known)))
        is_point, is_comma = (~np.isnan(_values(texts, decimal)) for decimal in ".,")
        if len(texts) == 0 or (is_point | is_comma).mean() < _LEAST_NUMBERS:
            return cls(name)
        has_sign = to_numpy(pc.match_substring_regex(texts, "[.,]"))
        found = (is_comma & ~is_point, is_point & ~is_comma, is_point & is_comma & has_sign)
        return cls(name, *(texts[int(np.argmax(mask))].as_py() if mask.any() else None for mask in found))


def _first_grouped(texts: Any, decimal: str) -> str | None:
    import pyarrow.compute as pc

    is_grouped = to_numpy(pc.match_substring_regex(texts, _patterns(decimal)[1]))
    return texts[int(np.argmax(is_grouped))].as_py() if is_grouped.any() else None


def _cast_texts(column: Any, decimal: str) -> np.ndarray | None:
    """Cast a column that has only plain finite numbers and empty cells, which is fast; None for any other column."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if decimal == ",":
        if pc.any(pc.match_substring(column, ".")).as_py():
            return None
        column = pc.replace_substring(column, ",", ".")
    try:
        numbers = pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        return None
    return to_numpy(numbers) if pc.all(pc.is_finite(numbers)).as_py() is not False else None


def _with_missing(values: np.ndarray, is_empty: np.ndarray, missing: list[str]) -> Parsed:
    """Make the parsed column. Infinity and the numbers in ``missing`` count as missing, too."""
    import pyarrow as pa

    gaps = count_gap({}, "", is_empty)
    for text in missing:
        is_it = values == _values(pa.array([text], pa.large_string()), ".")[0]
        gaps = count_gap(gaps, text, is_it)
        values = np.where(is_it, np.nan, values)
    gaps = count_gap(gaps, "infinity", np.isinf(values))
    return Parsed(np.where(np.isinf(values), np.nan, values), gaps, np.array([], dtype=np.int64))


def _values(texts: Any, decimal: str) -> np.ndarray:
    """The float64 values of trimmed texts, NaN where a text is no finite number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    plain, grouped, group = _patterns(decimal)
    is_grouped = pc.match_substring_regex(texts, grouped)
    is_number = pc.or_(pc.match_substring_regex(texts, plain), is_grouped)
    cleaned = pc.if_else(is_grouped, pc.replace_substring_regex(texts, group, ""), texts)
    cleaned = pc.replace_substring(cleaned, ",", ".") if decimal == "," else cleaned
    values = to_numpy(pc.cast(pc.if_else(is_number, cleaned, pa.scalar(None, cleaned.type)), pa.float64()))
    return np.where(np.isfinite(values), values, np.nan)


def _patterns(decimal: str) -> tuple[str, str, str]:
    """Regular expressions for a plain number, for a number in groups of three digits, and for the sign between the groups.

    That sign is a comma (a point if the comma is the decimal sign), an apostrophe or a space.
    """
    point, group = (r"\.", ",") if decimal == "." else (",", r"\.")
    group = f"[{group}' \u00a0\u202f]"
    plain = rf"^[+-]?(?:\d+{point}?\d*|{point}\d+)(?:[eE][+-]?\d+)?$"
    return plain, rf"^[+-]?[1-9]\d{{0,2}}(?:{group}\d{{3}})+(?:{point}\d*)?$", group
