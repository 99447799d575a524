"""MLflow: the one place that knows it. The driver tracks; workers only write their journal."""
