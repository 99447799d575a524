"""The model that a run leaves: its weights as safetensors, and a recipe to build its module."""
