"""Every error that this package raises for its users, and the kinds of failures of a run.

An error with an ``exit_code`` explains itself: the command line prints its text, without a traceback.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

Location = tuple[str | int, ...]

# The kinds of failures of a run that was started, with the exit codes of the command. ``diverged``: the loss was not finite.
EXIT_CODES = {
    "job": 2,
    "training": 3,
    "diverged": 3,
    "checkpoint": 4,
    "workers": 5,
    "environment": 7,  # a full disk, or a file that cannot be read
    "memory": 7,
}
PERMANENT = ("job", "training", "diverged")  # these would only happen again; after the others the run can be continued
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "low on memory", "status_alloc_failed")

# What the extras of pyproject.toml install, by the names that are imported.
EXTRAS = {
    "train": {
        *(
            "PIL",
            "datasets",
            "faster_coco_eval",
            "huggingface_hub",
            "jinja2",
            "matplotlib",
            "mlflow",
            "pandas",
            "pyarrow",
            "pynvml",
            "ray",
        ),
        *("scipy", "sklearn", "tokenizers", "torchmetrics", "torchvision", "transformers"),
    },
    "export": {"onnx", "onnxruntime", "onnxscript"},
    "lightning": {"lightning"},
    "timm": {"timm"},
    "transformers": {"accelerate", "transformers"},
    "peers": {"dadaptation", "parameterfree", "prodigyopt", "schedulefree"},
}


class Problem(NamedTuple):
    """One thing wrong with a job: where (``()`` is the whole document) and what to do about it."""

    location: Location
    message: str


class JobError(ValueError):
    """A job that cannot be run. ``problems`` has them all; the text has one line for each."""

    kind = "job"
    exit_code = EXIT_CODES["job"]

    def __init__(self, problems: Sequence[Problem], places: Sequence[str] | None = None) -> None:
        self.problems = list(problems)
        self.places = list(places) if places is not None else [""] * len(self.problems)
        super().__init__("\n".join(map(_line, self.places, self.problems)))

    @classmethod
    def at(cls, location: str, message: str) -> "JobError":
        """The error of one problem, at a dotted path such as ``data.root``."""
        return cls([Problem(tuple(location.split(".")) if location else (), message)])


class CommandError(RuntimeError):
    """What was asked for cannot be done, for a reason outside the job's text."""

    exit_code = 2


class InputError(ValueError):
    """Input that a model cannot answer. The text says what is wrong with it, and what the model takes."""

    exit_code = 2


class MissingPackageError(ModuleNotFoundError):
    """A package of an extra is not installed. The text names the line that installs it; ``name`` is the package."""

    exit_code = 2


class RunDamagedError(CommandError):
    """A file of a run cannot be read. The text says which one, why, and what to do."""


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite. The same would happen again, so the training is not retried."""

    kind = "diverged"
    exit_code = EXIT_CODES["diverged"]


class ReplicaDivergenceError(RuntimeError):
    """The ranks do not hold the same weights or optimizer state."""

    exit_code = EXIT_CODES["training"]


class CheckpointError(RuntimeError):
    """There are checkpoints, and none of them verifies."""

    kind = "checkpoint"
    exit_code = EXIT_CODES["checkpoint"]


class ClusterError(RuntimeError):
    """There is no Ray cluster to train on, or it was lost."""

    exit_code = EXIT_CODES["workers"]


class WorkersLostError(RuntimeError):
    """The workers were lost more often than the job allows."""

    exit_code = EXIT_CODES["workers"]


class SupersededError(RuntimeError):
    """Another attempt trains this run now, so this process must not write to it."""

    exit_code = EXIT_CODES["workers"]


class TrackingError(RuntimeError):
    """MLflow could not be reached, or it refused what was asked."""

    exit_code = 6


class RunGoneError(TrackingError):
    """MLflow answers, and it does not have the run, or has deleted it."""


class DeadlineError(RuntimeError):
    """A server took too long to answer."""


class DeterministicError(RuntimeError):
    """Ends a Ray Train run whose next worker group would meet the same error again."""


class RunFailedError(RuntimeError):
    """A run that was started and failed; ``kind`` is a key of :data:`EXIT_CODES`."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.exit_code = EXIT_CODES[kind]
        self.status = "failed" if kind in PERMANENT else "interrupted"


def kind_of(error: BaseException) -> str | None:
    """The kind of failure that an error is: a key of :data:`EXIT_CODES`, or None for an error that nothing is known of."""
    if kind := getattr(error, "kind", None):
        return str(kind)
    if is_out_of_memory(error):
        return "memory"
    return "environment" if isinstance(error, OSError) else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on the machine or on a GPU."""
    torch = sys.modules.get("torch")  # where torch was not imported, there is no error of its own
    is_torchs = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return is_torchs or isinstance(error, MemoryError) or says_out_of_memory(str(error))


def says_out_of_memory(text: str) -> bool:
    """Whether the text of an error is one that systems and libraries use when there is no memory left."""
    return any(words in text.lower() for words in OUT_OF_MEMORY)


@contextmanager
def naming_missing_packages(user: str, extra: str | None = None) -> Iterator[None]:
    """Turn the failed import of a package of an extra into :class:`MissingPackageError`.

    ``user`` is what needs the package, as the message names it. Where two of these are nested, the outer name counts.
    ``extra`` is the one that brings all that ``user`` needs, where it is not the first that has the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        wanted = extra or next((extra for extra, packages in EXTRAS.items() if package in packages), None)
        if wanted is None:
            raise
        text = f"`{user}` needs {package}, which is not installed; run `{install_line(wanted)}`"
        raise MissingPackageError(text, name=package) from error


def install_line(extra: str) -> str:
    """The line that installs the packages of an extra."""
    return f"pip install 'activelr-service[{extra}]'"


def dotted(location: Location) -> str:
    """``('model', 'hidden', 0)`` as ``model.hidden[0]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _line(place: str, problem: Problem) -> str:
    return ": ".join(part for part in (place, dotted(problem.location), problem.message) if part)
