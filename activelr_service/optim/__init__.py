"""The ActiveLR optimizers: SGD, AdamW, RAdam, AdaBelief and Muon with gains that replace the choice of a learning rate.

Names are imported when they are first used, so that :mod:`activelr_service.optim.constants` is read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from activelr_service.optim.adabelief import ActiveBelief
    from activelr_service.optim.adamw import ActiveAdamW
    from activelr_service.optim.base import ActiveOptimizer
    from activelr_service.optim.constants import RobustConstants
    from activelr_service.optim.misuse import ActiveLRWarning
    from activelr_service.optim.muon import ActiveMuon, muon_groups
    from activelr_service.optim.radam import ActiveRAdam
    from activelr_service.optim.sgd import ActiveSGD

__all__ = [
    "ActiveAdamW",
    "ActiveBelief",
    "ActiveLRWarning",
    "ActiveMuon",
    "ActiveOptimizer",
    "ActiveRAdam",
    "ActiveSGD",
    "RobustConstants",
    "muon_groups",
]
_MODULES = {
    "ActiveAdamW": "adamw",
    "ActiveBelief": "adabelief",
    "ActiveLRWarning": "misuse",
    "ActiveMuon": "muon",
    "ActiveOptimizer": "base",
    "ActiveRAdam": "radam",
    "ActiveSGD": "sgd",
    "RobustConstants": "constants",
    "muon_groups": "muon",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
