"""What a training needs besides its job, made ready at the same time: MLflow in a thread, Ray in the main thread."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from activelr_service.config import ResolvedJob
from activelr_service.errors import ClusterError, CommandError
from activelr_service.service.ray_run import begin_cluster
from activelr_service.service.stopped import end_in_tracking
from activelr_service.tracking.tracker import Tracker


def open_while_ray_starts(open_tracker: Callable[[], Tracker], job: ResolvedJob) -> Tracker:
    """What ``open_tracker`` returns or raises, called in a thread. Meanwhile the main thread starts the Ray of ``job``.

    Ray ends its processes with the thread that started them, so it has the main thread. A Ray that does not start is not
    said here: the training starts it again, and reports it.
    """
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(open_tracker)
        try:
            if threading.current_thread() is threading.main_thread():
                with suppress(ClusterError, CommandError):
                    begin_cluster(job)
            return opening.result()
        except (SystemExit, KeyboardInterrupt):
            with suppress(Exception):  # a tracker that does not open has nothing to end
                end_in_tracking(opening.result())
            raise
