"""The model that a run leaves: safetensors and a recipe that says how to build it."""
