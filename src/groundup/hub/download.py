"""Models from the Hugging Face hub, through huggingface_hub's cache (extra ``hub``).

``HF_HUB_OFFLINE``, ``HF_ENDPOINT``, ``HF_HOME`` and ``HF_TOKEN`` are read by huggingface_hub itself. Only safetensors,
configurations and tokenizers at the top of a repository are fetched, and how an encoder's sentences are made (see
`sentences`): no pickles, no code, no second copies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from groundup.errors import MissingExtra, ModelError, StorageError, one_line

ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")

SMALL = ("*.json", "*.jinja", "*.txt", "*.model")
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
BELOW = "[!1]*/*"  # all that lies in folders, but for 1_Pooling


@dataclass(frozen=True, kw_only=True)
class Repo:
    """A model on the hub.

    Attributes:
        id: ``organisation/name``.
        revision: a branch, a tag or a commit; None means the main branch.
        offline: whether only what was fetched before may be used.
    """

    id: str
    revision: str | None = None
    offline: bool = False

    def __str__(self) -> str:
        return f"{self.id}@{self.revision}" if self.revision else self.id


def fetch(repo: Repo, *, weights: bool) -> Path:
    """Returns the folder that holds a repository's files, fetching those that are not there.

    Args:
        repo: the repository.
        weights: whether its weights are needed too, not only what describes the model and its tokenizer.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        ModelError: there is no such repository or revision, it may not be read, or it cannot be reached.
        StorageError: the cache cannot be written.
    """
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as fault:
        raise MissingExtra("huggingface_hub", purpose=f"the hub id {repo.id}", extra="hub") from fault
    try:
        return Path(
            snapshot_download(
                repo.id,
                revision=repo.revision,
                local_files_only=repo.offline,
                allow_patterns=[*SMALL, *WEIGHTS] if weights else list(SMALL),
                ignore_patterns=[BELOW],
            )
        )
    except errors.GatedRepoError as fault:
        terms = f"accept its terms at huggingface.co/{repo.id} and log in with `hf auth login`"
        raise ModelError(f"the hub gives {repo.id} only to those who accepted its terms; {terms}") from fault
    except errors.RevisionNotFoundError as fault:
        raise ModelError(f"the hub has {repo.id}, but no revision {repo.revision!r} of it; name another") from fault
    except errors.RepositoryNotFoundError as fault:
        how = "check the name, or log in with `hf auth login` if it is private"
        raise ModelError(f"the hub has no model {repo.id!r}; {how}") from fault
    except errors.LocalEntryNotFoundError as fault:
        where = "is no folder here, is not (or not whole) in the hub's cache, and the hub was not reached"
        raise ModelError(f"{repo} {where}; connect and unset HF_HUB_OFFLINE and --offline") from fault
    except (errors.HTTPError, errors.HFValidationError, OSError) as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            raise StorageError(f"the hub's cache cannot be written: {fault}; set HF_HOME to another folder") from fault
        raise ModelError(f"{repo} could not be fetched from the hub: {one_line(fault)}; try again") from fault
