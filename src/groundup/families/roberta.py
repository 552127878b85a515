"""RoBERTa: BERT without a second text, trained longer; its table of positions begins after the padding id.

Source: Liu et al. 2019 (arXiv:1907.11692), sections 3 and 5. The table has a row of each place and as many unused rows
before them as ids up to that of padding; its head always uses GELU.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import bert
from groundup.families.family import Family, Keys
from groundup.model.encoder import Encoder
from groundup.model.heads import NoHead
from groundup.model.pool import FirstToken, NoPool
from groundup.parts.embed import Embed
from groundup.parts.position import Learned
from groundup.rules import Rule, rule

ARCHITECTURES = {"RobertaForMaskedLM": (True, NoPool()), "RobertaModel": (False, FirstToken())}

roberta = partial(bert.bert, vocab=50265, context=512, offset=2, types=1, eps=1e-5)

PRESETS = {
    "roberta-base": partial(roberta, width=768, layers=12, heads=12),
    "roberta-large": partial(roberta, width=1024, layers=24, heads=16),
}


def read(keys: Keys) -> Encoder:
    """Returns the spec of a RoBERTa configuration."""
    return bert.read_plain(keys, ARCHITECTURES, vocab=50265, offset=read_padding(keys) + 1, filling_act="gelu")


def read_padding(keys: Keys) -> int:
    """Returns the id of padding, after which the table of positions begins.

    Raises:
        SpecError: the configuration says that there is none.
    """
    padding = keys.token("pad_token_id", default=1)
    if padding is None:
        raise SpecError("the configuration's pad_token_id is null; the table of positions begins after it, so give it")
    return padding


def write(spec: Encoder) -> dict[str, Any]:
    """Returns the configuration of a RoBERTa spec.

    Raises:
        SpecError: the spec is of other parts.
    """
    match spec.embed:
        case Embed(position=Learned(offset=offset)) if offset:
            return {**bert.write(spec, ARCHITECTURES), "pad_token_id": offset - 1}
    raise SpecError("no RoBERTa has a table of positions without rows before the first; see groundup.families.roberta")


def rules(spec: Encoder) -> list[Rule]:
    """Returns the weight rules: BERT's, with other names of the head."""
    start = "" if spec.head == NoHead() else "roberta."
    return [*bert.stack_rules(start), *filling_rules(), *bert.named(f"{start}pooler.dense", "pool.dense")]


def filling_rules() -> list[Rule]:
    """Returns the weight rules of the head that fills in masked tokens."""
    return [
        *bert.named("lm_head.dense", "transform.dense"),
        *bert.named("lm_head.layer_norm", "transform.norm"),
        rule("lm_head.bias", "head.bias"),
        rule("lm_head.decoder.weight", "head.weight"),
    ]


FAMILY = Family(
    name="roberta",
    model_types=("roberta",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    kind=Encoder,
    prefix="roberta.",
    ignored=re.compile(r"(roberta\.)?embeddings\.position_ids|lm_head\.decoder\.bias|(roberta\.)?pooler\..*"),
    renamed=bert.FAMILY.renamed,
)
