"""BigBird: BERT's layers with attention to blocks: neighbours, the first, the last, and some at random.

Source: Zaheer et al. 2020 (arXiv:2007.14062), section 2 and appendix D; the sizes are those of the configurations of
google/bigbird-roberta-base and -large. A configuration has no word for the random blocks: transformers draws them in
training, layer l from the seed l, and reads the first block in their place in evaluation. A configuration is read as
it evaluates (`FirstBlock`), unless ``random_seeds``, which transformers leaves unread, says which are drawn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import bert
from groundup.families.family import Family, Keys, head_width
from groundup.mixers.attention import Attention
from groundup.mixers.block_sparse import BlockSparseAttention, DrawnBlocks, FirstBlock, Further
from groundup.model.encoder import Encoder
from groundup.model.heads import NoHead
from groundup.model.layer import Layer
from groundup.model.pool import FirstToken, Pool
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.mask import Everything
from groundup.parts.position import Learned, NoPosition
from groundup.rules import Rule

ARCHITECTURES = {
    "BigBirdForPreTraining": (True, FirstToken(classes=2)),
    "BigBirdForMaskedLM": (True, FirstToken()),
    "BigBirdModel": (False, FirstToken()),
}


def big_bird(
    *,
    width: int,
    heads: int,
    further: Sequence[Further | None],
    block: int = 64,
    context: int = 4096,
    hidden: int | None = None,
    vocab: int = 50358,
    types: int = 2,
    act: str = "gelu_tanh",
    eps: float = 1e-12,
    bias: bool = True,
    scaled: bool = False,
    filling: bool = True,
    pool: Pool = FirstToken(classes=2),  # noqa: B008 - a spec is a value
    deviation: float = 0.02,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> Encoder:
    """Returns the spec of a BigBird of these sizes.

    Args:
        width: the width of the residual stream.
        heads: attention heads, each ``width / heads`` wide.
        further: of each layer, which blocks are read besides; None means attention to everything.
        block: the tokens of a block.
        context: the number of learnt positions.
        hidden: the width inside the feed-forward part; None means four times ``width``.
        vocab: the number of token ids.
        types: the number of token types.
        act: the activation.
        eps: of the norms.
        bias: whether queries, keys and values have a bias.
        scaled: whether the table's vectors are multiplied by the root of the width.
        filling: whether it has the head that fills in masked tokens.
        pool: what makes one vector of a text.
        deviation: of the first weights.
        dropout: of what goes into the stream.
        attention_dropout: of attention weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``, or ``block`` the context.
    """
    sizes: dict[str, Any] = {"heads": heads, "head_width": head_width(width, heads)}
    sizes |= {"bias": bias, "out_bias": True, "dropout": attention_dropout}
    full = Attention(kv_heads=heads, mask=Everything(), position=NoPosition(), **sizes)
    return bert.post_norm(
        [
            BlockSparseAttention(block=block, length=context, further=blocks, **sizes) if blocks else full
            for blocks in further
        ],
        width=width,
        hidden=hidden or 4 * width,
        vocab=vocab,
        position=Learned(context),
        types=types,
        act=act,
        eps=eps,
        filling=filling,
        pool=pool,
        deviation=deviation,
        dropout=dropout,
        width_power=0.5 if scaled else 0.0,
    )


def drawn(layers: int) -> tuple[Further, ...]:
    """Returns the blocks that transformers draws in training, three for each layer."""
    return tuple(DrawnBlocks(seed=layer) for layer in range(layers))


PRESETS = {
    "bigbird-roberta-base": partial(big_bird, width=768, heads=12, further=drawn(12)),
    "bigbird-roberta-large": partial(big_bird, width=1024, heads=16, further=drawn(24)),
}


def read(keys: Keys) -> Encoder:
    """Returns the spec of a BigBird configuration."""
    keys.only("is_decoder", False)
    sparse = keys.choice("attention_type", known={"block_sparse": True, "original_full": False}, default="block_sparse")
    layers = keys.layers("num_hidden_layers", default=12)
    count = keys.number("num_random_blocks", default=3)
    seeds = keys.take("random_seeds", default=None)
    further: Sequence[Further | None] = [FirstBlock(count=count) if sparse else None] * layers
    if seeds is not None and (not isinstance(seeds, list) or len(seeds) != layers):
        raise SpecError(f"the configuration's random_seeds is {seeds!r}; expected a list with one of each layer")
    if sparse and seeds:
        further = [DrawnBlocks(count=count, seed=seed) for seed in seeds]
    return big_bird(
        heads=keys.number("num_attention_heads", default=12),
        further=further,
        block=keys.number("block_size", default=64),
        context=keys.number("max_position_embeddings", default=4096),
        bias=keys.flag("use_bias", default=True),
        scaled=keys.flag("rescale_embeddings", default=False),
        attention_dropout=keys.number("attention_probs_dropout_prob", default=0.1, whole=False),
        **bert.common(keys, ARCHITECTURES, vocab=50358, act="gelu_new"),
    )


def write(spec: Encoder) -> dict[str, Any]:
    """Returns the configuration of a BigBird spec.

    Raises:
        SpecError: the spec is of other parts.
    """
    match spec:
        case Encoder(
            layers=(Layer(mix=Residual(mixer=BlockSparseAttention() | Attention() as attention)), *_),
            embed=Embed(width_power=power),
        ):
            return bert.said(spec, ARCHITECTURES) | {
                **_said_of_blocks([layer.parts["mix"].mixer for layer in spec.layers]),
                "max_position_embeddings": spec.context,
                "num_attention_heads": attention.heads,
                "use_bias": attention.bias,
                "rescale_embeddings": power != 0.0,
                "attention_probs_dropout_prob": attention.dropout,
            }
    raise SpecError("no BigBird of transformers is made of these parts; see groundup.families.big_bird")


def _said_of_blocks(mixers: Sequence[Any]) -> dict[str, Any]:
    first = mixers[0]
    if not isinstance(first, BlockSparseAttention):
        return {"attention_type": "original_full"}
    seeds = [mixer.further.seed for mixer in mixers if isinstance(mixer.further, DrawnBlocks)]
    said = {"block_size": first.block, "num_random_blocks": first.further.count, "random_seeds": seeds or None}
    return {"attention_type": "block_sparse"} | said


def rules(spec: Encoder) -> list[Rule]:
    """Returns the weight rules: names only, for theirs and ours are laid out alike."""
    start = "" if spec.head == NoHead() else "bert."
    return [*bert.stack_rules(start), *bert.filling_rules(), *bert.named(f"{start}pooler", "pool.dense")]


FAMILY = Family(
    name="big_bird",
    model_types=("big_bird",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    kind=Encoder,
    prefix="bert.",
    ignored=re.compile(r"(bert\.)?embeddings\.(position|token_type)_ids|cls\.predictions\.decoder\.bias"),
)
