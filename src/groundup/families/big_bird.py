"""BigBird: BERT's layers with attention to blocks: neighbours, the first, the last, and some at random.

Source: Zaheer et al. 2020 (arXiv:2007.14062), section 2 and appendix D; the sizes are those of the configurations of
google/bigbird-roberta-base and -large. A configuration has no word for the random blocks: transformers draws them in
training, layer l from the seed l, and reads the first block in their place in evaluation. A configuration is read as
it evaluates (`FirstBlock`), unless ``random_seeds``, which transformers leaves unread, says which are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import bert
from groundup.families.family import Family, Keys
from groundup.mixers.attention import Attention
from groundup.mixers.block_sparse import BlockSparseAttention, DrawnBlocks, FirstBlock, Further
from groundup.model.encoder import Encoder
from groundup.model.layer import Layer
from groundup.model.pool import FirstToken
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.rules import Rule, instead, named
from groundup.specs import override_all

ARCHITECTURES = {
    "BigBirdForPreTraining": (True, FirstToken(classes=2)),
    "BigBirdForMaskedLM": (True, FirstToken()),
    "BigBirdModel": (False, FirstToken()),
}


whole = partial(bert.bert, vocab=50358, context=4096, act="gelu_tanh", pool=FirstToken(classes=2))


def big_bird(*, further: Sequence[Further], block: int = 64, **sizes: Any) -> Encoder:
    """Returns the spec of a BigBird of these sizes.

    Args:
        further: of each layer, which blocks are read besides.
        block: the tokens of a block.
        sizes: the others, as those of `bert.bert`.

    Raises:
        SpecError: ``heads`` does not divide ``width``, or ``block`` the context.
    """
    return in_blocks(whole(layers=len(further), **sizes), further, block=block)


def in_blocks(spec: Encoder, further: Sequence[Further], *, block: int) -> Encoder:
    """Returns the spec with attention to blocks in place of its own, which is to everything."""
    attention = partial(BlockSparseAttention, block=block, length=spec.context)
    return bert.with_mixers(spec, [partial(attention, further=blocks) for blocks in further])


def drawn(layers: int) -> tuple[Further, ...]:
    """Returns the blocks that transformers draws in training, three for each layer."""
    return tuple(DrawnBlocks(seed=layer) for layer in range(layers))


PRESETS = {
    "bigbird-roberta-base": partial(big_bird, width=768, heads=12, further=drawn(12)),
    "bigbird-roberta-large": partial(big_bird, width=1024, heads=16, further=drawn(24)),
}


def read(keys: Keys) -> Encoder:
    """Returns the spec of a BigBird configuration."""
    keys.assume(vocab_size=50358, max_position_embeddings=4096, hidden_act="gelu_new")
    power = 0.5 if keys.flag("rescale_embeddings", default=False) else 0.0
    changes = {"layers.*.mix.mixer.bias": keys.flag("use_bias", default=True), "embed.width_power": power}
    spec = override_all(bert.read(keys, architectures=ARCHITECTURES), changes)
    sparse = keys.choice("attention_type", known={"block_sparse": True, "original_full": False}, default="block_sparse")
    block, count = keys.number("block_size", default=64), keys.number("num_random_blocks", default=3)
    layers, seeds = len(spec.layers), keys.take("random_seeds", default=None)
    if seeds is not None and (not isinstance(seeds, list) or len(seeds) != layers):
        raise SpecError(f"the configuration's random_seeds is {seeds!r}; expected a list with one of each layer")
    drawn = [DrawnBlocks(count=count, seed=seed) for seed in seeds or ()]
    return in_blocks(spec, drawn or [FirstBlock(count=count)] * layers, block=block) if sparse else spec


def write(spec: Encoder) -> dict[str, Any] | None:
    """Returns the configuration of a BigBird spec."""
    match spec:
        case Encoder(
            layers=(Layer(mix=Residual(mixer=BlockSparseAttention() | Attention() as attention)), *_),
            embed=Embed(width_power=power),
        ):
            return bert.write(spec, architectures=ARCHITECTURES) | {
                **_said_of_blocks([layer.parts["mix"].mixer for layer in spec.layers]),
                "use_bias": attention.bias,
                "rescale_embeddings": power != 0.0,
            }
    return None


def _said_of_blocks(mixers: Sequence[Any]) -> dict[str, Any]:
    first = mixers[0]
    if not isinstance(first, BlockSparseAttention):
        return {"attention_type": "original_full"}
    seeds = [mixer.further.seed for mixer in mixers if isinstance(mixer.further, DrawnBlocks)]
    said = {"block_size": first.block, "num_random_blocks": first.further.count, "random_seeds": seeds or None}
    return {"attention_type": "block_sparse"} | said


def rules(spec: Encoder) -> list[Rule]:
    """Returns the weight rules: BERT's, with another name of the pooler."""
    return instead(bert.rules(spec), *named({f"{bert.start(spec, 'bert')}pooler": "pool.dense"}))


FAMILY = Family(
    name="big_bird",
    model_types=("big_bird",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    kind=Encoder,
    prefix="bert.",
    ignored=bert.FAMILY.ignored,
    renamed=bert.FAMILY.renamed,
)
