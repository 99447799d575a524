"""Training: a plain torch loop, its checkpoints and run folder, and the Ray Train glue around it."""
