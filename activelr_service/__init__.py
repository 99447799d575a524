"""Training deep networks without choosing a learning rate or a batch size."""

__version__ = "0.1.0"
