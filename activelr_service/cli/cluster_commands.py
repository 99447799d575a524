"""The jobs of a Ray cluster: send, follow, stop and list them through Ray's Jobs API."""

import asyncio
import http.client
import os
import shlex
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from activelr_service.config import StudyJob, TrainJob, dump_job
from activelr_service.errors import CommandError, JobError
from activelr_service.redact import redact

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANSWER_S = 10


def submit_document(address: str, job: TrainJob | StudyJob, *, follow: bool, insecure: bool, check: bool) -> None:
    """Send a validated job or study as one YAML file, and print how to follow it.

    With ``check``, and if the cluster is on this machine, the data are checked first. A cluster elsewhere may have data
    that this machine does not have.
    """
    address = dashboard_url(address)
    if not _is_loopback(address) and urlsplit(address).scheme != "https" and not insecure:
        raise JobError.at(
            "", f"{address} is another machine and not https: its token would be readable; --insecure allows it"
        )
    job = _with_absolute_paths(job)
    if check and _is_loopback(address):
        _check(job)
    submission_id = f"{job.name}-{uuid.uuid4().hex[:8]}"
    with connect(address) as client, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.yaml").write_text(dump_job(job))
        client.submit_job(
            entrypoint=shlex.join(["python", "-m", "activelr_service.cli", job.kind, "job.yaml"]),
            submission_id=submission_id,
            runtime_env={"working_dir": folder, "env_vars": {"ACTIVELR_SUBMISSION_ID": submission_id}},
            metadata={"activelr_name": job.name},
        )
    print(f"submitted {submission_id} to {address}")
    for command in ("status", "logs --follow", "stop"):
        print(f"  activelr {command} {submission_id} --address {address}")
    if follow:
        show_logs(address, submission_id, follow=True)


def _with_absolute_paths(job: TrainJob | StudyJob) -> TrainJob | StudyJob:
    """The job with absolute paths. In a study these are the paths of the data and models of its workloads."""
    from activelr_service.service.check import absolute_paths, with_absolute_paths

    if isinstance(job, TrainJob):
        return with_absolute_paths(job)
    workloads = {
        name: {
            key: {**part, **absolute_paths(part)} if key in ("data", "model") and isinstance(part, dict) else part
            for key, part in workload.items()
        }
        for name, workload in job.workloads.items()
    }
    return job.model_copy(update={"workloads": workloads})


def _check(job: TrainJob | StudyJob) -> None:
    from activelr_service.service.check import check_before_start
    from activelr_service.studies.space import make_trials

    if isinstance(job, StudyJob):
        make_trials(job)
        return
    try:
        check_before_start(job)
    except JobError as error:
        hint = "; if only the cluster has these data, --no-check sends the job without a look at them"
        problems = [
            problem._replace(message=problem.message + hint) if problem.location[:1] == ("data",) else problem
            for problem in error.problems
        ]
        raise JobError(problems) from None


def show_status(address: str, submission_id: str) -> None:
    with connect(address) as client:
        details = client.get_job_info(submission_id)
    print(f"{submission_id}: {details.status.value}")
    if details.message:
        print(details.message.strip().splitlines()[0])


def show_logs(address: str, submission_id: str, follow: bool) -> None:
    """Print the log of a job. With ``follow``, print until the job ends; raise :class:`CommandError` if it failed."""
    with connect(address) as client:
        if not follow:
            return print(redact(client.get_job_logs(submission_id)), end="")
        asyncio.run(_tail(client, submission_id))
        status = client.get_job_status(submission_id)
    if status.value != "SUCCEEDED":
        raise CommandError(f"{submission_id}: {status.value}")
    return None


def stop_job(address: str, submission_id: str) -> None:
    with connect(address) as client:
        stopped = client.stop_job(submission_id)
    print(f"{submission_id} " + ("is asked to stop" if stopped else "had ended already"))


def list_jobs(address: str) -> None:
    with connect(address) as client:
        jobs = sorted(client.list_jobs(), key=lambda details: details.start_time or 0)
    for details in jobs:
        print(f"{details.submission_id or details.job_id}  {details.status.value}  {details.entrypoint}")


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """A client of the Jobs API. Each error of it becomes a :class:`CommandError` of one line with a remedy."""
    address = dashboard_url(address)
    _use_token_of_this_machine(address)
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray prefers the environment to the argument
    _check_that_it_answers(address)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        yield JobSubmissionClient(address)
    except AuthenticationError as error:
        hint = "set RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        raise CommandError(f"the cluster at {address} refused this client's token or lack of one; {hint}") from error
    except ConnectionError as error:
        raise _nobody_there(address) from error
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, JobError | CommandError):
            raise
        text = str(error).strip().splitlines()
        raise CommandError(f"the cluster at {address} says: {(text or ['nothing'])[-1][:300]}") from error


def dashboard_url(address: str) -> str:
    """The address as Ray's client needs it: with a scheme, and in lower case.

    Raises :class:`CommandError` if it is not the address of a dashboard, or if it holds a password or token.
    """
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_url = False
    if not is_url:
        raise CommandError(f"{redact(address)} is no dashboard's address; write it as http://HOST:8265")
    if "@" in parts.netloc:
        raise CommandError(f"{redact(address)} holds credentials; set the token in RAY_AUTH_TOKEN instead")
    return parts._replace(netloc=parts.netloc.lower()).geturl().rstrip("/")


def _check_that_it_answers(address: str) -> None:
    """Raise :class:`CommandError` if nothing answers in :data:`ANSWER_S` seconds. Ray's client would wait for ever."""
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=ANSWER_S):  # noqa: S310 - http or https
            pass
    except urllib.error.HTTPError:
        return  # the cluster wants a token, which Ray's client sends later
    except (OSError, http.client.HTTPException) as error:
        raise _nobody_there(address) from error


def _nobody_there(address: str) -> CommandError:
    return CommandError(f"no Ray cluster answers at {address}; `make cluster-up` starts one here")


async def _tail(client: Any, submission_id: str) -> None:
    async for lines in client.tail_job_logs(submission_id):
        print(redact(lines), end="", flush=True)


def _is_loopback(address: str) -> bool:
    return urlsplit(address).hostname in LOOPBACK


def _use_token_of_this_machine(address: str) -> None:
    """Let Ray's client send its token. By default it sends none; a cluster on this machine may always have it."""
    has_token = "RAY_AUTH_TOKEN" in os.environ or (Path.home() / ".ray" / "auth_token").exists()
    if _is_loopback(address) and has_token:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
