"""What the families between GPT-3 and LLaMA do not have is refused by name, and what is peculiar to them is there."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.errors import SpecError
from groundup.families import PRESETS, family_of_config
from groundup.families.family import Config, attention_of
from groundup.parts.position import ALiBi

NEOX = {"model_type": "gpt_neox", "hidden_size": 32, "num_attention_heads": 4}
BLOOM = {"model_type": "bloom", "hidden_size": 32, "n_head": 4}
OPT = {"model_type": "opt", "hidden_size": 32, "num_attention_heads": 4}
GPTJ = {"model_type": "gptj", "n_embd": 32, "n_head": 4, "rotary_dim": 4}
FALCON = {"model_type": "falcon", "hidden_size": 32, "num_attention_heads": 4}
MPT = {"model_type": "mpt", "d_model": 32, "n_heads": 4}


@pytest.mark.parametrize(
    ("base", "name", "value"),
    [
        (NEOX, "num_attention_heads", 5),
        (BLOOM, "apply_residual_connection_post_layernorm", True),
        (BLOOM, "n_inner", 64),
        (BLOOM | {"pretraining_tp": 2}, "slow_but_exact", True),
        (NEOX, "rope_theta", 500.0),
        (NEOX, "partial_rotary_factor", 0.5),
        (GPTJ, "n_ctx", 7),
        (OPT, "layerdrop", 0.1),
        (GPTJ, "rotary", False),
        (FALCON, "alibi", 1),
        (FALCON, "hidden_dropout", 0.1),
        (FALCON, "multi_query", None),
        (FALCON, "parallel_attn", None),
        (FALCON, "num_ln_in_parallel_attn", 2),
        (MPT, "no_bias", False),
        (MPT, "attn_config", {"clip_qkv": 0}),
        (MPT, "attn_config", {"qk_ln": True}),
        (MPT, "attn_config", {"alibi": False}),
        (MPT, "attn_config", "torch"),
    ],
)
def test_what_a_family_does_not_have_is_refused_by_name(base: Config, name: str, value: object):
    config = dict(base)
    read: Any = family_of_config(config).spec(config)
    assert read.width == 32
    said = next(iter(value)) if isinstance(value, dict) else name.removeprefix("num_attention_")
    with pytest.raises(SpecError, match=rf"^[^\n]*{said}[^\n]*$"):
        family_of_config(config).spec(config | {name: value})


def test_an_odd_number_of_turned_values_is_refused():
    with pytest.raises(SpecError, match="even number"):
        family_of_config(GPTJ).spec(GPTJ | {"rotary_dim": 3})


def test_slopes_that_transformers_does_not_know_are_read_and_not_written():
    family = family_of_config(MPT)
    spec = family.spec(MPT | {"attn_config": {"alibi_bias_max": 16}})
    assert attention_of(spec).position == ALiBi(steepest=16.0)
    assert not family.describes(spec)


def test_heads_of_keys_are_shared_as_published():
    kv_heads = {name: attention_of(PRESETS[name]()).kv_heads for name in ("falcon-7b", "falcon-40b", "palm-540b")}
    assert kv_heads == {"falcon-7b": 1, "falcon-40b": 8, "palm-540b": 1}
