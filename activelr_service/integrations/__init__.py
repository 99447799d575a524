"""The optimizers in other people's trainers: one module for each, which imports its trainer.

:mod:`~activelr_service.integrations.trainer` is for transformers' ``Trainer``, and ``lightning``, ``timm`` and ``loop`` for
Lightning, timm and a loop of one's own.
"""
