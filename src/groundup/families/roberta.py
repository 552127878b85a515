"""RoBERTa: BERT without a second text, trained longer; its table of positions begins after the padding id.

Source: Liu et al. 2019 (arXiv:1907.11692), sections 3 and 5. The table has a row of each place and as many unused rows
before them as ids up to that of padding; its head always uses GELU.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import bert
from groundup.families.family import Family, Keys
from groundup.model.encoder import Encoder
from groundup.model.heads import Dense
from groundup.model.pool import FirstToken, NoPool, Pool
from groundup.parts.embed import Embed
from groundup.parts.position import Learned
from groundup.rules import Rule
from groundup.specs import override

ARCHITECTURES = {"RobertaForMaskedLM": (True, NoPool()), "RobertaModel": (False, FirstToken())}
HEAD = {"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "logits": "lm_head"}

roberta = partial(bert.bert, vocab=50265, context=512, offset=2, types=1, eps=1e-5)

PRESETS = {
    "roberta-base": partial(roberta, width=768, layers=12, heads=12),
    "roberta-large": partial(roberta, width=1024, layers=24, heads=16),
}


def read(keys: Keys, *, architectures: Mapping[str, tuple[bool, Pool]] = ARCHITECTURES) -> Encoder:
    """Returns the spec of a RoBERTa configuration, given the heads by the names of transformers' classes."""
    keys.assume(vocab_size=50265)
    padding = keys.token("pad_token_id", default=1)
    if padding is None:
        raise SpecError("the configuration's pad_token_id is null; the table of positions begins after it, so give it")
    spec = bert.read(keys, architectures=architectures, offset=padding + 1)
    return override(spec, "head.transform.act", "gelu") if isinstance(spec.head.transform, Dense) else spec


def write(spec: Encoder, *, architectures: Mapping[str, tuple[bool, Pool]] = ARCHITECTURES) -> dict[str, Any]:
    """Returns the configuration of a RoBERTa spec, given the heads by the names of transformers' classes.

    Raises:
        SpecError: the spec is of other parts.
    """
    match spec.embed:
        case Embed(position=Learned(offset=offset)) if offset:
            return bert.write(spec, architectures=architectures) | {"pad_token_id": offset - 1}
    raise SpecError("no RoBERTa has a table of positions without rows before the first; see groundup.families.roberta")


def rules(spec: Encoder, *, root: str = "roberta") -> list[Rule]:
    """Returns the weight rules: BERT's, with other names of the head, and of the stack where the file holds a head."""
    return bert.rules(spec, root=root, head=HEAD)


FAMILY = Family(
    name="roberta",
    model_types=("roberta",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    kind=Encoder,
    prefix="roberta.",
    ignored=bert.FAMILY.ignored,
    renamed=bert.FAMILY.renamed,
)
