"""Pretrained weights that a job asks for by name. They are kept where torch and the Hugging Face libraries keep them.

A file that is there is used without a net. Else it is downloaded by the library, by one process at a time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from filelock import FileLock

from activelr_service.errors import JobError

PATIENCE_S = 10.0  # for a server to answer at all
HUB_FILES = ("config.json", "preprocessor_config.json", "processor_config.json", "model*.safetensors", "*.index.json")


def torch_file(url: str, place: str) -> Path:
    """The local file of a URL, in the cache of ``torch.hub``: $TORCH_HOME/hub/checkpoints.

    A file whose name holds its hash, as those of torchvision do, is compared with it. Raises :class:`JobError` at
    ``place`` if it is not there and cannot be downloaded.
    """
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    _check_reachable(url, place, f"put the file {path.name} into {path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.is_file():
            _download_torch(url, path, place)
    return path


def _download_torch(url: str, path: Path, place: str) -> None:
    import torch

    hashed = torch.hub.HASH_REGEX.search(path.name)
    try:
        torch.hub.download_url_to_file(url, str(path), hashed.group(1) if hashed else None)
    except (OSError, RuntimeError) as error:
        raise _not_downloaded(url, place, error, f"put the file {path.name} into {path.parent}") from error


def hub_file(repository: str, names: Sequence[str], place: str) -> Path:
    """The local file of the first of ``names`` that a repository of the Hugging Face Hub has, in the cache of its library.

    Raises :class:`JobError` at ``place`` as :func:`torch_file` does.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, revision = repository.partition("@")
    at: dict[str, Any] = {"revision": revision or None}
    for name in names:
        if isinstance(path := try_to_load_from_cache(repository, name, **at), str):
            return Path(path)
    _check_hub_reachable(repository, place)
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, **at))
        except LocalEntryNotFoundError as error:  # no answer, and nothing in the cache
            raise _not_downloaded(repository, place, error, _hub_remedy(repository)) from error
        except EntryNotFoundError:
            continue
        except Exception as error:
            raise _not_downloaded(repository, place, error, _hub_remedy(repository)) from error
    raise JobError.at(place, f"{repository} on the Hugging Face Hub has none of the files {', '.join(names)}")


def hub_folder(repository: str, place: str) -> Path:
    """The local folder of a model of the Hugging Face Hub: its config, its image processor's and its safetensors."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, allow_patterns=[*HUB_FILES], local_files_only=True))
        if (folder / "config.json").is_file() and list(folder.glob("*.safetensors")):
            return folder
    except LocalEntryNotFoundError:
        pass
    _check_hub_reachable(repository, place)
    try:
        return Path(snapshot_download(repository, allow_patterns=[*HUB_FILES]))
    except Exception as error:
        raise _not_downloaded(repository, place, error, _hub_remedy(repository)) from error


def _check_hub_reachable(repository: str, place: str) -> None:
    """The library itself tries for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        offline = ConnectionError("HF_HUB_OFFLINE is set")
        raise _not_downloaded(repository, place, offline, _hub_remedy(repository))
    _check_reachable(constants.ENDPOINT, place, _hub_remedy(repository), repository)


def _hub_remedy(repository: str) -> str:
    from huggingface_hub import constants

    return f"put it into the cache {constants.HF_HUB_CACHE} (`hf download {repository}` on a machine with a net)"


def _check_reachable(url: str, place: str, remedy: str, shown: str | None = None) -> None:
    """Raise :class:`JobError` if the server does not answer within seconds. Any answer will do."""
    import urllib.request

    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - URLs of the libraries, not of the job
    try:
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()  # noqa: S310
    except HTTPError:
        return
    except OSError as error:
        raise _not_downloaded(shown or url, place, error, remedy) from error


def _not_downloaded(source: str, place: str, error: BaseException, remedy: str) -> JobError:
    reason = error.reason if type(error) is URLError else error  # an HTTPError says more than its reason
    line = " ".join(str(reason).split())[:200] or type(error).__name__
    text = f"{source} is not on this machine and cannot be downloaded ({line})"
    return JobError.at(
        place, f"{text}; give the path of a local {'folder' if place == 'model.path' else 'file'}, or {remedy}"
    )
