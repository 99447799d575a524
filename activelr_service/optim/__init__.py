"""The ActiveLR optimizers: SGD, AdamW, RAdam and AdaBelief with a gain per parameter on the learning rate."""

from activelr_service.optim.adabelief import ActiveBelief
from activelr_service.optim.adamw import ActiveAdamW
from activelr_service.optim.base import ActiveOptimizer
from activelr_service.optim.radam import ActiveRAdam
from activelr_service.optim.robust import Constants
from activelr_service.optim.sgd import ActiveSGD

__all__ = ["ActiveAdamW", "ActiveBelief", "ActiveOptimizer", "ActiveRAdam", "ActiveSGD", "Constants"]
