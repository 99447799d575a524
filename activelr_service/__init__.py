"""Training deep networks without choosing a learning rate or a batch size.

The optimizers are in :mod:`activelr_service.optim`. The functions here do what the command ``activelr`` does::

    from activelr_service import Predictor, load_job, train

    job = load_job("job.yaml", overrides=["epochs=5"])
    run = train(job)
    answers = Predictor.load(run.model).predict(rows)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from activelr_service.config import load_job
    from activelr_service.export.model import load_model
    from activelr_service.inference.predictor import Predictor
    from activelr_service.service.launch import train
    from activelr_service.studies.table import report

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "load_job", "load_model", "report", "train"]

_MODULES = {
    "Predictor": "inference.predictor",
    "load_job": "config",
    "load_model": "export.model",
    "report": "studies.table",
    "train": "service.launch",
}


def __getattr__(name: str) -> Any:
    """Import a function when it is first asked for (PEP 562), so that the package itself imports nothing heavy."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from activelr_service.errors import naming_missing_packages

    with naming_missing_packages(f"{__name__}.{name}"):
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
