"""The use of CPU, memory, disk, network and GPUs of a machine, sent to an MLflow run while something runs."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from activelr_service.errors import TrackingError
from activelr_service.tracking.client import connect, talking_to, uri_with_credentials
from activelr_service.tracking.deadline import timed_call

FINISH_S = 5  # how long the last values may take to be sent


@contextmanager
def system_metrics(uri: str, run_id: str, node: str | None, log: Callable[[str], None]) -> Iterator[None]:
    """Send the metrics of this machine, under ``system/`` or ``system/NODE/``, to an MLflow run while the context is open.

    MLflow's own monitor takes them every 10 seconds, or every ``$MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL``. A run that is
    continued goes on with the next step. What fails is logged in one line, and nothing else is disturbed.
    """
    monitor = None
    try:
        monitor = _start(uri, run_id, node)
    except TrackingError as error:
        log(f"system metrics are not tracked: {error}")
    try:
        yield
    finally:
        if monitor is not None:
            try:
                with talking_to(uri, FINISH_S):
                    timed_call(lambda: _finish(monitor))
            except TrackingError as error:
                log(f"the last system metrics are not tracked: {error}")


def _start(uri: str, run_id: str, node: str | None) -> Any:
    connect(uri)
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
    options = {"resume_logging": True, "node_id": node, "tracking_uri": uri_with_credentials(uri)}
    with talking_to(uri):
        monitor = timed_call(lambda: SystemMetricsMonitor(run_id, **options))
    monitor.start()
    return monitor


def _finish(monitor: Any) -> None:
    """Stop the monitor, and send a last sample: a run of seconds would have none."""
    monitor.finish()
    monitor.collect_metrics()
    monitor.publish_metrics(monitor.aggregate_metrics())
    monitor.mlflow_logger.flush()
