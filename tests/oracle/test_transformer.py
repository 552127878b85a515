"""The first Transformer computes what torch's own encoder and decoder layers compute with the same weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from groundup.families import PRESETS
from groundup.families.transformer import original
from laws.examples import lively, some_ids
from oracle.pair import TOLERANCE, distance

WIDTH, HEADS, HIDDEN, VOCAB = 48, 4, 80, 97
SIDES = ("weight", "bias")
SETTINGS: dict[str, Any] = {"d_model": WIDTH, "nhead": HEADS, "dim_feedforward": HIDDEN, "batch_first": True}

# By hand: tables of 37,000; layers 4 D^2 + 4 D a kind of attention, 2 D F + D + F, 2 D a norm.
SIZES = {"transformer-base": 63_082_496, "transformer-big": 214_245_376}


def small() -> Any:
    spec = original(width=WIDTH, heads=(HEADS, HEADS), hidden=(HIDDEN, HIDDEN), vocab=VOCAB, layers=(2, 3))
    return lively(spec, torch.float32)


def attention(ours: Any) -> dict[str, Tensor]:
    """The weights of attention by torch's names: queries, keys and values in one matrix."""
    named = {f"in_proj_{end}": torch.cat([getattr(ours.get_submodule(x), end) for x in "qkv"]) for end in SIDES}
    return named | {f"out_proj.{end}": getattr(ours.out, end) for end in SIDES}


def layer(ours: Any) -> dict[str, Tensor]:
    """The weights of a layer by torch's names."""
    parts = {"mix": "self_attn", "cross": "multihead_attn"}
    held: dict[str, Tensor] = {}
    for place, name in enumerate(ours.names, start=1):
        part = ours.part(name)
        held |= {f"norm{place}.{end}": getattr(part.out, end) for end in SIDES}
        if name == "ffn":
            maps = {"linear1": part.mixer.up, "linear2": part.mixer.down}
            held |= {f"{name}.{end}": getattr(map, end) for name, map in maps.items() for end in SIDES}
        else:
            held |= {f"{parts[name]}.{key}": weight for key, weight in attention(part.mixer).items()}
    return held


def waves(tokens: int) -> Tensor:
    """Section 3.5, place by place."""
    pairs = [[place / 10_000 ** (2 * i / WIDTH) for i in range(WIDTH // 2)] for place in range(tokens)]
    return torch.tensor([[wave(angle) for angle in row for wave in (math.sin, math.cos)] for row in pairs])


@torch.no_grad()
def test_logits_of_targets_after_padded_sources_are_those_of_torch():
    model = small()
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**SETTINGS), 2, enable_nested_tensor=False).eval()
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**SETTINGS), 3).eval()
    for theirs, ours in ((encoder, model.encoder), (decoder, model.decoder)):
        for one, two in zip(theirs.layers, ours.layers, strict=True):
            one.load_state_dict(layer(two))
    source, ids, lengths = some_ids(3, 11), some_ids(3, 7, seed=1), torch.tensor([11, 4, 9])
    padding = torch.arange(11) >= lengths[:, None]
    table = model.encoder.embed.weight
    read, written = (table[tokens] * WIDTH**0.5 + waves(tokens.shape[1]) for tokens in (source, ids))
    hidden = decoder(
        written,
        encoder(read, src_key_padding_mask=padding),
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(7),
        tgt_is_causal=True,
        memory_key_padding_mask=padding,
    )
    told = hidden @ table.T
    assert distance(model(ids, source=source, source_lengths=lengths), told) < TOLERANCE * max(1, told.abs().max())


def test_its_sizes_are_those_of_the_paper():
    with torch.device("meta"):
        totals = {name: sum(p.numel() for p in PRESETS[name]().build().parameters()) for name in SIZES}
    assert totals == SIZES
