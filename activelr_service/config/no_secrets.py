"""A job holds no secrets: it is kept on disk, in the log and in MLflow."""

from collections.abc import Iterator
from typing import Any

from activelr_service.errors import JobError, Location, Problem
from activelr_service.redact import holds_credentials, is_secret_key

IN_ENVIRONMENT = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, the path of a key file,",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS, the path of a key file,",
}


def refuse_secrets(data: Any) -> None:
    """Raise :class:`JobError` for credentials in the URIs of a document and for keys such as ``password``.

    The message does not repeat them.
    """
    problems = list(_problems(data, ()))
    if problems:
        raise JobError(problems)


def _problems(value: Any, location: Location) -> Iterator[Problem]:
    if location[-2:] == ("data", "types"):
        return  # names of columns, whatever they are
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _problems(item, (*location, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _problems(item, (*location, index))
    elif isinstance(value, str) and holds_credentials(value):
        yield Problem(location, f"must not hold credentials; set {_instead(value, location)} in the environment")
    elif value is not None and not isinstance(value, bool) and any(map(is_secret_key, location)):
        where = "a job is kept on disk and in MLflow; have it in an environment variable"
        yield Problem(location, f"must not hold a secret: {where}")


def _instead(uri: str, location: Location) -> str:
    scheme = uri.partition("://")[0].lower()
    if location[0] == "tracking":
        return "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" if scheme in ("http", "https") else "them"
    return IN_ENVIRONMENT.get(scheme, "them")
