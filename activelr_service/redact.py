"""Secrets are taken out of every text before it is printed, logged, kept or sent to MLflow."""

import json
import os
import re
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

HIDDEN = "***"
SHORTEST = 6  # a shorter value may be an ordinary word
LONGEST_WORD = 12

_WORDS = r"password|passwd|passphrase|secret|secret_?key|api_?key|access_?key(?:_id)?|private_?key|account_?key"
_WORDS += r"|(?:auth|access|session|security|refresh|api|hf|hub|github)_?token|bearer|credentials?"
_SECRET_KEY = re.compile(rf"(?:^|.*[_.-])(?:{_WORDS})|(?:.*\.)?(?:token|pwd)", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(
    r"TOKEN(?!IZER)|SECRET|PASSW|PASSPHRASE|_PWD$|PGPASS|(?:^|_)(?:PASS|PAT|COOKIE)(?:_|$)|CREDENTIAL|API_?KEY|ACCESS_?KEY"
    r"|_KEY$|CONNECTION_STRING|AUTH(?!OR(?!IZ))",
    re.IGNORECASE,
)
_NO_SECRET_VARIABLE = re.compile(
    r"_(?:PATH|FILE|DIR|MODE|SOCK|TYPE|ENABLED|TIMEOUT\w*|EXPIR\w*|URL|URI)$", re.IGNORECASE
)
_QUERY_KEY = r"[\w.-]*(?:password|passwd|secret|token|key|sig|auth|credential|x-amz)[\w.-]*"

_IN_TEXT = [
    # scheme://user:password@host: up to the last @ before a slash, or the last @ of all after a colon that begins no port
    (re.compile(r"""(://)(?:[^\s/?#"'<>]*|[^\s/?#"'<>:]*:(?!\d{1,5}(?:[/?#\s]|$))[^\s"'<>]*)@"""), rf"\1{HIDDEN}@"),
    # the same where a slash was lost, as in a path, or the scheme was forgotten
    (re.compile(r"""(\w:/|(?:^|[\s='"(])(?=\w))[^\s/?#"'<>:@=]*:[^\s/?#"'<>@]+@(?=[\w-]+[.:/])"""), rf"\1{HIDDEN}@"),
    (re.compile(rf"""([?&]{_QUERY_KEY}=)[^&\s"'<>#]*[^&\s"'<>#:;,]""", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(rf"""((['"])[\w.-]*(?:{_WORDS})\2\s*[:=]\s*(['"])).*?\3""", re.IGNORECASE), rf"\1{HIDDEN}\3"),
    (re.compile(rf"""([{{,]\s*[\w.-]*(?:{_WORDS})\s*:\s*)[^\s"',}}]+""", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(rf"""(\b[\w.-]*(?:{_WORDS})\s?=\s?['"]?)[^\s"',;&}}]*[^\s"',;&}}:]""", re.IGNORECASE), rf"\1{HIDDEN}"),
    (
        re.compile(r"""(\bauthorization['"]?\s*[:=]\s*['"]?(?:basic|bearer|digest|token)\s+)[^\s'"]+""", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"""(\bBearer\s+)[\w.~+/=-]{8,}"""), rf"\1{HIDDEN}"),
]


def redact(text: str) -> str:
    """The text without the credentials in URIs, without bearer tokens, without what stands behind names such as
    ``password``, and without the values of the environment variables that are secrets by their names."""
    for value in _secrets():
        text = re.sub(rf"\b{value}\b", HIDDEN, text) if _is_word(value) else text.replace(value, HIDDEN)
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def redact_values(value: Any) -> Any:
    """The same for all texts in dicts and lists; what stands under a key such as ``password`` is hidden as a whole."""
    if isinstance(value, dict):
        return {key: HIDDEN if is_secret_key(key) else redact_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def is_secret_key(key: object) -> bool:
    """Whether a key of a document announces a secret by its name."""
    return isinstance(key, str) and _SECRET_KEY.fullmatch(key) is not None


def without_credentials(uri: str) -> str:
    """A URI without its user, password and secret options: what may be kept of it."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return redact(uri)
    if "://" not in uri:  # its scheme was forgotten, or it is a path
        user, _, host = uri.rpartition("@")
        return host if ":" in user and "/" not in user else uri
    options = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(key, value) for key, value in options if not re.fullmatch(_QUERY_KEY, key, re.IGNORECASE)]
    query = parts.query if len(kept) == len(options) else urlencode(kept)
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query)
    return urlunsplit(plain) if plain != parts else uri


def holds_credentials(uri: str) -> bool:
    """Whether there is something to hide in a URI."""
    return "://" in uri and (without_credentials(uri) != uri or any(p.sub("", uri) != uri for p, _ in _IN_TEXT[:3]))


def _secrets() -> list[str]:
    """The secret values of the environment as they may be written, the longest first."""
    values = {value for name, text in os.environ.items() for value in _values_of(name, text) if len(value) >= SHORTEST}
    written = {form for value in values for form in (value, quote(value, safe=""), json.dumps(value)[1:-1])}
    return sorted(written, key=len, reverse=True)


def _is_word(value: str) -> bool:
    """Whether a secret may also be a part of ordinary words, such as ``train`` in ``training``: those stay."""
    return value.isalpha() and value.isascii() and len(value) <= LONGEST_WORD


def _values_of(name: str, text: str) -> list[str]:
    text = text.strip()
    if re.match(r"[\w.+-]+://", text):
        return _credentials_in(text)
    is_secret = _SECRET_VARIABLE.search(name) and not _NO_SECRET_VARIABLE.search(name)
    return [text] if is_secret and not _is_path(name, text) else []


def _is_path(name: str, text: str) -> bool:
    """Whether the value of a variable is the path of a secret. A secret key of AWS may begin with a slash, too."""
    is_named_so = text.startswith("/") and ("CREDENTIAL" in name.upper() or os.path.exists(text))
    return is_named_so or text.startswith(("~/", "./"))


def _credentials_in(uri: str) -> list[str]:
    """The password of a URI, or the user where it stands alone, as a token does; and the secret options."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return []
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    options = [value for key, value in parse_qsl(parts.query) if re.fullmatch(_QUERY_KEY, key, re.IGNORECASE)]
    return [password or user, unquote(password or user), *options]
