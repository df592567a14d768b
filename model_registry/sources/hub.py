"""Models on the hub: lists a repository through huggingface_hub, and fetches the few files that one model needs.

Honours HF_ENDPOINT and HF_TOKEN; sends no telemetry. Files come through our own downloader, which hashes what it gets.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from model_registry.addresses import proxy_for, without_credentials
from model_registry.disk import sha256_of
from model_registry.download import Download, download, http_client
from model_registry.errors import ChecksumMismatch, SourceUnavailable
from model_registry.paths import check_distinct, inside, safe_name
from model_registry.progress import Progress
from model_registry.references import HubReference
from model_registry.sources.hub_selection import HubFile, select_files
from model_registry.sources.protocol import ANY_FILES, Fetched, FetchSize, FileChoice, licence_of
from model_registry.telemetry import turn_off_telemetry

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

DEFAULT_ENDPOINT = "https://huggingface.co"
MAX_FILES = 50_000  # of a repository
_OWNER = "The hub's repository"
_REVISION = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


class HubSource:
    """choice: see `select_files`."""

    def __init__(self, reference: HubReference, choice: FileChoice = ANY_FILES) -> None:
        self._reference = reference
        self._choice = choice
        self._endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or DEFAULT_ENDPOINT
        self._shown = without_credentials(self._endpoint)
        self._info: ModelInfo | None = None
        self._listed: list[HubFile] | None = None

    def pin(self) -> str | None:
        """The commit that the revision names now."""
        return str(replace(self._pinned(), sha256=None))

    def size(self) -> FetchSize | None:
        pinned = self._pinned()
        total = sum(file.size_bytes for file in select_files(self._files(pinned), pinned, self._choice).files)
        return FetchSize(downloads=total, scratch=0, model=total)

    def fetch(self, downloads: Path, scratch: Path, progress: Progress) -> Fetched:
        progress.stage(f"looking up {self._reference.repo}")
        pinned = self._pinned()
        selection = select_files(self._files(pinned), pinned, self._choice)
        check_distinct((safe_name(file.path, _OWNER) for file in selection.files), _OWNER)
        targets = [(file, inside(downloads, file.path, _OWNER)) for file in selection.files]
        with http_client() as client:
            for file, target in targets:
                if not _is_whole(target, file):
                    wanted = Download(self._url(pinned, file), target, file.sha256, file.size_bytes, self._headers())
                    download(client, wanted, progress)
        path = inside(downloads, selection.root, _OWNER) if selection.root else downloads
        sha256 = sha256_of(path) if path.is_file() else None
        if self._reference.sha256 not in (None, sha256):
            raise ChecksumMismatch(
                f"{pinned.repo}/{pinned.path} has the sha256 {sha256} and should have {self._reference.sha256}: "
                "the repository changed. Nothing of it was kept."
            )
        return Fetched(path, is_ours=True, source_sha256=sha256, licence=self._licence())

    def _model_info(self) -> ModelInfo:
        """Queried once, so that the pinned revision is the fetched one."""
        if self._info is None:
            with self._clear_errors():
                self._info = self._api().model_info(self._reference.repo, revision=self._reference.revision)
        return self._info

    def _pinned(self) -> HubReference:
        """Raises SourceUnavailable when the endpoint gives no commit that could be one."""
        commit = self._model_info().sha
        if not isinstance(commit, str) or not _REVISION.fullmatch(commit):
            raise SourceUnavailable(f"{self._shown} names no commit of {self._reference.repo}. Check HF_ENDPOINT.")
        return replace(self._reference, revision=commit)

    def _files(self, pinned: HubReference) -> list[HubFile]:
        """Listed once, like the pinned revision."""
        if self._listed is None:
            self._listed = self._list(pinned)
        return self._listed

    def _list(self, pinned: HubReference) -> list[HubFile]:
        from huggingface_hub.hf_api import RepoFile

        with self._clear_errors():
            listed = self._api().list_repo_tree(pinned.repo, recursive=True, revision=pinned.revision)
            tree = list(islice(listed, MAX_FILES + 1))
        if len(tree) > MAX_FILES:
            raise SourceUnavailable(f"{pinned.repo} has more than {MAX_FILES} files. Choose a repository of one model.")
        files = [entry for entry in tree if isinstance(entry, RepoFile)]
        return [HubFile(*self._checked((file.path, file.size, file.lfs.sha256 if file.lfs else None))) for file in files]

    def _checked(self, file: tuple[object, object, object]) -> tuple[str, int, str | None]:
        """The endpoint's metadata of a file, with checked types. Raises SourceUnavailable."""
        path, size, sha256 = file
        if isinstance(path, str) and isinstance(size, int) and isinstance(sha256, str | None):
            return path, size, sha256
        raise SourceUnavailable(
            f"{self._shown} did not answer about {self._reference.repo} as the hub does: it names the file {str(path)[:200]!r} "
            f"with {str(size)[:40]!r} bytes. Check HF_ENDPOINT."
        )

    def _licence(self) -> str | None:
        card = self._model_info().card_data
        licence = card.get("license") if card else None
        return licence_of(licence, _SPDX) if licence else None

    def _url(self, pinned: HubReference, file: HubFile) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(pinned.repo, file.path, revision=pinned.revision, endpoint=self._endpoint)

    def _headers(self) -> dict[str, str]:
        from huggingface_hub import get_token

        token = get_token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _api(self) -> HfApi:
        turn_off_telemetry()
        from huggingface_hub import HfApi

        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings hold addresses with all that is in them
        return HfApi(endpoint=self._endpoint)

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """huggingface_hub's errors become ours, each with a remedy. The most special come first: they inherit."""
        from huggingface_hub import errors

        repo, revision, endpoint = self._reference.repo, self._reference.revision, self._shown
        try:
            yield
        except errors.GatedRepoError as error:
            raise SourceUnavailable(
                f"{repo} is gated: accept its terms at {endpoint}/{repo}, then set HF_TOKEN to a token of that account."
            ) from error
        except errors.RevisionNotFoundError as error:
            raise SourceUnavailable(f"{repo} has no revision {revision!r}. Check the part after the @.") from error
        except errors.RepositoryNotFoundError as error:
            raise SourceUnavailable(
                f"{endpoint} has no repository {repo}, or it is private. Check the spelling; for a private one set HF_TOKEN."
            ) from error
        except (errors.HfHubHTTPError, errors.HFValidationError) as error:
            raise SourceUnavailable(f"{endpoint} could not serve {repo}: {_first_line(error)}. Try again later.") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SourceUnavailable(
                f"{endpoint} did not answer about {repo} as the hub does ({type(error).__name__}: {_first_line(error)}). "
                "Check HF_ENDPOINT."
            ) from error
        except Exception as error:
            if not _is_network_error(error):
                raise
            raise SourceUnavailable(
                f"{endpoint} cannot be reached{proxy_for(self._endpoint)} ({_first_line(error)}). Check the network and proxy "
                "settings, or set HF_ENDPOINT to a mirror. Models that are already here go on working."
            ) from error


_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "llama3.2": "Llama-3.2", "gemma": "Gemma"}


def _is_network_error(error: Exception) -> bool:
    """Whether the HTTP client failed; which client huggingface_hub uses differs between its releases."""
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or package in ("httpx", "httpx2", "httpcore", "httpcore2", "requests")


def _is_whole(target: Path, file: HubFile) -> bool:
    """Left by an interrupted pull; such files were verified when they got their name."""
    return target.is_file() and target.stat().st_size == file.size_bytes


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
