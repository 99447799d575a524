"""The names of metrics, parameters and tags as MLflow has them.

MLflow's pages put the metrics that share all but the last part of their name into one group, and sort the groups. So what a
person looks at first keeps its name: ``best/``, ``test/``, ``train/`` and ``val/``. What the rule did to the weights is one
group behind them, ``weights/``, with the tensors after a colon. The speed of the workers is the last, ``workers/``.
"""

import hashlib
import re

LONGEST_NAME = 250  # characters that MLflow takes
WEIGHTS, WORKERS = "weights/", "workers/"

_REFUSED = re.compile(r"[^\w/. :-]")


def tracked_metric(name: str) -> str:
    """The name in MLflow of a metric of the journal: ``weights/update_ratio:conv1`` for ``update/update_ratio/conv1``."""
    if name.startswith("update/"):
        field, _, group = name.removeprefix("update/").partition("/")
        return f"{WEIGHTS}{field}:{group}"
    if name.startswith("grad_l1/"):
        return f"{WEIGHTS}grad_l1:{name.removeprefix('grad_l1/')}"
    for ours, theirs in (("optim/", WEIGHTS), ("perf/", WORKERS)):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def journal_metric(tracked: str) -> str:
    """The name in the journal of a metric that MLflow has. It undoes :func:`tracked_metric`; other names stay."""
    if tracked.startswith(WORKERS):
        return f"perf/{tracked.removeprefix(WORKERS)}"
    if not tracked.startswith(WEIGHTS):
        return tracked
    field, colon, group = tracked.removeprefix(WEIGHTS).partition(":")
    if not colon:
        return f"optim/{field}"
    return f"grad_l1/{group}" if field == "grad_l1" else f"update/{field}/{group}"


def tracked_name(name: str) -> str:
    """The name as MLflow takes it: letters, digits and ``_ - . : /``, no ``..`` and no empty part between slashes.

    A name that has to be changed ends in a short hash of the original, so that two names never become the same.
    """
    plain = _REFUSED.sub("_", name)
    plain = "/".join(part for part in plain.split("/") if part.strip(".")) or "_"
    if plain == name and len(name) <= LONGEST_NAME:
        return name
    mark = "-" + hashlib.sha256(name.encode()).hexdigest()[:6]
    return plain[: LONGEST_NAME - len(mark)] + mark
