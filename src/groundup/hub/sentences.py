"""How the vector of a text is made of those of its tokens, as folders of sentence-transformers say it.

modules.json lists what comes after the encoder: a folder with a pooling's config.json, and perhaps a normalisation.
Source: Reimers and Gurevych 2019 (arXiv:1908.10084), section 3.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from groundup.errors import ModelError, writing
from groundup.files import read_limited

MODULES, SETTINGS, POOLING = "modules.json", "sentence_bert_config.json", "1_Pooling"
FILES = (MODULES, SETTINGS, POOLING)  # what `write_sentences` writes
MOST_BYTES = 2**20

Pooling = Callable[[Tensor, Tensor], Tensor]


def _mean(hidden: Tensor, real: Tensor) -> Tensor:
    return (hidden * real).sum(1) / real.sum(1)


POOLINGS: dict[str, Pooling] = {
    "mean": _mean,
    "first": lambda hidden, real: hidden[:, 0],
    "max": lambda hidden, real: hidden.masked_fill(~real, -torch.inf).amax(1),
}
THEIRS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first", "pooling_mode_max_tokens": "max"}


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """How the vector of a text is made.

    Attributes:
        pooling: a key of `POOLINGS`.
        unit: whether the vector is scaled to length 1.
        context: the most tokens of a text that are read; None means the model's context.
    """

    pooling: str = "mean"
    unit: bool = True
    context: int | None = None

    def pooled(self, hidden: Float[Tensor, "B T D"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B D"]:
        """Returns the vectors of texts of these lengths, given those of their tokens."""
        real = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
        made = POOLINGS[self.pooling](hidden, real[..., None])
        return F.normalize(made, dim=-1) if self.unit else made


def read_sentences(folder: Path) -> Sentences:
    """Returns what a folder says of sentences; the mean, scaled to length 1, where it says nothing.

    Raises:
        ModelError: it says what is not known here, or cannot be read.
    """
    if not (folder / MODULES).is_file():
        return Sentences()
    modules = _json(folder / MODULES, list)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules if isinstance(module, dict)]
    strange = set(kinds) - {"Transformer", "Pooling", "Normalize"}
    if strange or kinds.count("Pooling") != 1:
        raise ModelError(f"{folder / MODULES} holds {', '.join(kinds)}; known are Transformer, one Pooling, Normalize")
    pooling = _json(folder / str(modules[kinds.index("Pooling")].get("path")) / "config.json", dict)
    chosen = [name for name, on in pooling.items() if name.startswith("pooling_mode") and on is True]
    if len(chosen) != 1 or chosen[0] not in THEIRS:
        raise ModelError(f"{folder} pools by {', '.join(chosen) or 'nothing'}; known are {', '.join(THEIRS)}")
    settings = _json(folder / SETTINGS, dict) if (folder / SETTINGS).is_file() else {}
    longest = settings.get("max_seq_length")
    context = longest if isinstance(longest, int) and longest > 1 else None
    return Sentences(pooling=THEIRS[chosen[0]], unit="Normalize" in kinds, context=context)


def write_sentences(said: Sentences, folder: Path, *, width: int, context: int) -> None:
    """Writes what `read_sentences` reads, and sentence-transformers too.

    Args:
        said: how the vector of a text is made.
        folder: that of a model.
        width: of a vector.
        context: the model's, in tokens.

    Raises:
        StorageError: the folder cannot be written.
    """
    kinds = {"": "Transformer", POOLING: "Pooling"} | ({"2_Normalize": "Normalize"} if said.unit else {})
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    pooling = {"word_embedding_dimension": width} | {name: ours == said.pooling for name, ours in THEIRS.items()}
    settings = {"max_seq_length": said.context or context, "do_lower_case": False}
    with writing(folder):
        (folder / POOLING).mkdir()
        for name, data in ((MODULES, modules), (f"{POOLING}/config.json", pooling), (SETTINGS, settings)):
            (folder / name).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _json(file: Path, kind: type) -> Any:
    try:
        data = json.loads(read_limited(file, most_bytes=MOST_BYTES))
    except (OSError, ValueError, RecursionError) as fault:
        raise ModelError(f"{file} cannot be read: {fault}") from fault
    if not isinstance(data, kind):
        raise ModelError(f"{file} is no {kind.__name__}; take it from the model's maker again")
    return data
