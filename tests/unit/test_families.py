"""Presets have the published sizes, configurations say what they mean, and what they do not mean is refused by name."""

from __future__ import annotations

import csv
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.errors import SpecError
from groundup.families import FAMILIES, PRESETS, bert, family_of, family_of_config, gpt2, llama, palm
from groundup.families.family import Config
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied
from groundup.model.model import Model
from groundup.model.pool import FirstToken
from groundup.parts.norm import LayerNorm, RMSNorm
from groundup.parts.position import LinearScaling, Llama3Scaling, LongRoPE, NoScaling, NTKScaling, RoPE, Scaling, YaRN
from groundup.planner import books
from groundup.specs import diff, override

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

DATA = Path(__file__).parent.parent / "data"
CONFIGS = {path.stem: json.loads(path.read_text()) for path in sorted((DATA / "configs").glob("*.json"))}


def read(config: Config) -> Any:
    return family_of_config(config).spec(config)


@cache
def parameters(spec: Model) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in spec.build().parameters())


def first_layer(spec: Decoder) -> Any:
    """The first layer as a value whose fields no type checker knows."""
    return spec.layers[0]


# The rows of the table that are no presets.
UNLEARNT = LayerNorm(weight=False, bias=False)
OTHERS = {
    "mpt-7b-recipe": lambda: gpt2.mpt_recipe(width=4096, layers=32, heads=32),
    "bert-base-pooled": lambda: bert.bert(width=768, layers=12, heads=12, filling=False, pool=FirstToken()),
    "bert-base-both": lambda: bert.bert(width=768, layers=12, heads=12, pool=FirstToken(classes=2)),
    "bert-large-both": lambda: bert.bert(width=1024, layers=24, heads=16, pool=FirstToken(classes=2)),
    "palm-8b-without-norms": lambda: palm.palm(width=4096, layers=32, heads=16, norm=UNLEARNT),
    "palm-540b-without-norms": lambda: palm.palm(width=18432, layers=118, heads=48, norm=UNLEARNT),
    "nanogpt-without-biases": lambda: gpt2.gpt2(width=768, layers=12, heads=12, bias=False, act="gelu"),
    "gpt3-13b-as-printed": lambda: gpt2.gpt3(width=5140, layers=40, heads=20),  # attention as wide as the stream
    "swiglu-65b": lambda: read(CONFIGS["swiglu-65b"]),
    "swiglu-65b-tied": lambda: read(CONFIGS["swiglu-65b"] | {"tie_word_embeddings": True}),
}

with (DATA / "model_params.csv").open(newline="") as file:
    PUBLISHED = {row["model"]: int(row["total_params"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_model(name: str):
    assert parameters((PRESETS | OTHERS)[name]()) == PUBLISHED[name]


def closed_form(spec: Decoder) -> int:
    """Counts by hand: matrices, norms and tables, without a look at the modules."""
    attention, mlp = first_layer(spec).mix.mixer, first_layer(spec).ffn.mixer
    d, rows = spec.width, attention.heads * attention.head_width
    columns = attention.kv_heads * attention.head_width
    if isinstance(spec.norm, LayerNorm):
        layer = 4 * d * d + 2 * d * mlp.hidden + 4 * d + mlp.hidden + d + 4 * d
        return (spec.vocab + spec.context) * d + len(spec.layers) * layer + 2 * d
    layer = 2 * d * rows + 2 * d * columns + 3 * d * mlp.hidden + 2 * d
    return (1 if spec.head == Tied() else 2) * spec.vocab * d + len(spec.layers) * layer + d


@pytest.mark.parametrize("name", [*gpt2.PRESETS, *llama.PRESETS])
def test_parameters_of_every_preset_have_the_closed_form(name: str):
    spec: Any = PRESETS[name]()
    assert parameters(spec) == closed_form(spec)


def test_sizes_that_differ_in_context_only_have_the_same_parameters():
    for size in ("8b", "70b"):
        assert parameters(PRESETS[f"llama-3-{size}"]()) == parameters(PRESETS[f"llama-3.1-{size}"]())


# What was published, in billions, beside each; the units are transformers' (5.23) where it has the class.
@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("mixtral-8x7b", 46_702_792_704, 12_879_925_248),  # 47, 13: Jiang et al. 2024 (arXiv:2401.04088), section 3
        ("mixtral-8x22b", 140_620_634_112, 39_152_031_744),  # 141, 39: its model card
        ("qwen3-30b-a3b", 30_532_122_624, 3_353_032_704),  # 30, 3: Yang et al. 2025 (arXiv:2505.09388), section 2
        ("qwen3-235b-a22b", 235_093_634_560, 22_190_763_520),  # 235, 22: the same
        # 20.91, 3.61 without the table of tokens: OpenAI 2025 (arXiv:2508.10925), table 1
        ("gpt-oss-20b", 20_914_757_184, 4_187_440_704),
        ("gpt-oss-120b", 116_829_156_672, 5_711_982_912),  # 116.83, 5.13 without it: the same
        ("deepseek-v2-lite", 15_706_484_224, 2_661_150_208),  # 15.7, 2.4: DeepSeek-AI 2024 (arXiv:2405.04434)
        ("deepseek-v2", 235_741_434_880, 21_375_800_320),  # 236, 21: the same
        ("deepseek-v3", 671_026_404_352, 37_552_282_624),  # 671, 37: DeepSeek-AI 2024 (arXiv:2412.19437)
        ("qwen3-next-80b-a3b", 79_674_391_296, 3_874_929_408),  # 80, 3: its model card
        ("jamba-v0.1", 51_570_323_328, 12_110_311_296),  # 52, 12: Lieber et al. 2024 (arXiv:2403.19887), section 3
        ("jamba-1.5-large", 398_555_145_696, 94_149_338_592),  # 398, 94: Jamba Team 2024 (arXiv:2408.12570), section 2
        # 7, 26, 1571: Fedus et al. 2021 (arXiv:2101.03961), table 9
        ("switch-base-128", 7_415_217_408, 224_083_200),
        ("switch-large-128", 26_309_291_008, 740_813_824),
        ("switch-c-2048", 1_571_308_972_448, 1_728_326_048),
    ],
)
def test_parameters_of_mixtures_that_are_there_and_that_take_part(name: str, total: int, active: int):
    assert books.params(PRESETS[name]()) == total
    assert books.active_params(PRESETS[name]()) == active


# Totals to the digits that were published: Lieber et al. 2021, table 1; Zhang et al. 2022; BLOOM's model cards;
# Biderman et al. 2023, table 1; Chowdhery et al. 2022, table 1; Ren et al. 2024 (arXiv:2406.07522), section 3.
@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("j1-large", "7.5"),
        ("j1-jumbo", "178"),
        ("opt-350m", "0.33"),
        ("opt-2.7b", "2.7"),
        ("opt-6.7b", "6.7"),
        ("opt-30b", "30"),
        ("opt-66b", "66"),
        ("bloom-1b7", "1.722"),
        ("bloom-7b1", "7.069"),
        ("pythia-1.4b", "1.41"),
        ("palm-8b", "8.63"),
        ("palm-62b", "62.50"),
        ("samba-421m", "0.42"),
        ("samba-1.3b", "1.3"),
    ],
)
def test_parameters_round_to_what_was_published(name: str, billions: str):
    digits = len(billions.partition(".")[2])
    assert f"{parameters(PRESETS[name]()) / 1e9:.{digits}f}" == billions


# Zamba2's units are transformers' (5.23).
@pytest.mark.parametrize(
    ("name", "total"),
    [("zamba2-1.2b", 1_215_064_704), ("zamba2-2.7b", 2_662_214_560), ("zamba2-7b", 7_356_749_648)],
)
def test_shared_blocks_count_once(name: str, total: int):
    assert books.params(PRESETS[name]()) == parameters(PRESETS[name]()) == total


def test_small_llamas_tie_their_embeddings_and_large_ones_do_not():
    tied = {name for name, make in llama.PRESETS.items() if make().head == Tied()}
    assert tied == {"llama-3.2-1b", "llama-3.2-3b", "smollm2-135m", "smollm2-360m", "smollm2-1.7b"}


@pytest.mark.parametrize("name", [name for family in FAMILIES if family.model_types for name in family.presets])
def test_configuration_of_a_preset_says_all_that_it_says(name: str):
    spec = PRESETS[name]()
    family = next(family for family in FAMILIES if name in family.presets)
    config = json.loads(json.dumps(family.config(spec)))
    assert read(config) == spec


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() & PRESETS.keys()))
def test_published_configuration_is_the_preset(name: str):
    changed = diff(read(CONFIGS[name]), PRESETS[name]())
    # The presets start from the papers' weights and train without dropout; neither changes what the model computes.
    assert all(path.endswith(("dropout", "init.deviation")) for path in changed)


def test_every_key_of_the_swiglu_configuration_is_honoured():
    spec = read(CONFIGS["swiglu-65b"])
    attention, mlp = first_layer(spec).mix.mixer, first_layer(spec).ffn.mixer
    assert (spec.vocab, spec.context, spec.width, len(spec.layers)) == (64000, 32768, 8192, 60)
    assert (attention.heads, attention.kv_heads, attention.head_width) == (64, 64, 128)
    assert attention.bias and attention.out_bias and not mlp.bias
    assert (mlp.hidden, mlp.act) == (32768, "silu")
    assert attention.position == RoPE(theta=10000.0, fraction=1.0)
    assert spec.norm == first_layer(spec).mix.pre == first_layer(spec).ffn.pre == RMSNorm(eps=1e-6)
    for key, value in {"rotary_emb_fraction": 0.5, "layer_norm_eps": 1e-5, "rope_theta": 20000}.items():
        assert read(CONFIGS["swiglu-65b"] | {key: value}) != spec


SMALL = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
FACTORS = {"short_factor": [1, 1.5, 2, 3], "long_factor": [4.0, 5.0, 6.0, 7.0]}
LONG = LongRoPE(short=(1.0, 1.5, 2.0, 3.0), long=(4.0, 5.0, 6.0, 7.0), factor=4.0, original=16)
SMALL_GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 100}


@pytest.mark.parametrize("base", [SMALL, SMALL_GPT2], ids=["llama", "gpt2"])
@pytest.mark.parametrize(
    "key", ["sliding_window", "logit_softcap", "quantization_config", "n_experts", "head_width", "ROPE_THETA", "kind"]
)
def test_unknown_key_is_refused_by_name(base: Config, key: str):
    with pytest.raises(SpecError, match=key):
        read(dict(base) | {key: 1})


def test_unknown_key_is_told_the_nearest():
    with pytest.raises(SpecError, match="'num_key_value_heads'"):
        read(SMALL | {"num_key_value_head": 2})


def test_unknown_key_inside_rope_parameters_is_refused_by_name():
    with pytest.raises(SpecError, match="low_freq_factor"):
        read(SMALL | {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "low_freq_factor": 1.0}})


@pytest.mark.parametrize("kind", ["llama", "mistral", "mixtral", "gemma3_text", "falcon"])
def test_a_share_of_each_head_that_the_class_of_its_type_would_turn_whole_is_refused(kind: str):
    half = {"rope_parameters": {"partial_rotary_factor": 0.5}}
    said = {"rope_parameters": {"full_attention": half["rope_parameters"]}} if kind == "gemma3_text" else half
    assert first_layer(read(SMALL | half)).mix.mixer.position == RoPE(fraction=0.5)
    with pytest.raises(SpecError, match=r"^[^\n]*partial_rotary_factor[^\n]*$"):
        read(SMALL | said | {"model_type": kind})


@pytest.mark.parametrize(
    "change",
    [
        {"rms_norm_eps": 1e-5, "layer_norm_eps": 1e-6},
        {"partial_rotary_factor": 0.5, "rotary_emb_fraction": 1.0},
        {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e5}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}},
        {"rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 2.0}},
        {"max_position_embeddings": 2048, "max_sequence_length": 4096},
    ],
    ids=str,
)
def test_names_of_one_setting_that_disagree_are_refused(change: Config):
    with pytest.raises(SpecError, match="keep one of them"):
        read(SMALL | dict(change))


def test_names_of_one_setting_may_agree():
    assert read(SMALL | {"rms_norm_eps": 1e-5, "layer_norm_eps": 1e-5}) == read(SMALL | {"rms_norm_eps": 1e-5})


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "32"},
        {"hidden_size": 32.0},
        {"hidden_size": True},
        {"num_hidden_layers": 0},
        {"vocab_size": -1},
        {"vocab_size": None},
        {"rms_norm_eps": float("nan")},
        {"rms_norm_eps": float("inf")},
        {"rope_theta": 0},
        {"attention_bias": 1},
        {"hidden_act": "gelu_quick"},
        {"rope_interleaved": True},
        {"rope_scaling": "linear"},
        {"rope_scaling": {"type": "linear"}},
        {"rope_scaling": {"type": "linear", "factor": 0}},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4}},
        {"rope_scaling": FACTORS | {"type": "longrope", "long_factor": [2.0] * 5}},
        {"rope_scaling": FACTORS | {"type": "longrope", "long_factor": "1234"}},
        {"rope_scaling": FACTORS | {"type": "longrope", "long_factor": [True] * 4}},
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 3, "long_factor": [1.0] * 3}},
        {"num_attention_heads": 5},
        {"num_key_value_heads": 3},
        {"model_type": "lama"},
    ],
    ids=str,
)
def test_bad_value_is_refused_in_one_sentence(change: Config):
    with pytest.raises(SpecError) as caught:
        read(SMALL | dict(change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"n_head": 5},
        {"activation_function": "gelu_quick"},
        {"scale_attn_by_inverse_layer_idx": 1},
        {"scale_attn_weights": "no"},
        {"add_cross_attention": True},
        {"n_ctx": 7},
        {"n_special": 3},
        {"resid_pdrop": "none"},
    ],
    ids=str,
)
def test_bad_value_of_gpt2_is_refused_in_one_sentence(change: Config):
    with pytest.raises(SpecError) as caught:
        read(SMALL_GPT2 | dict(change))
    assert "\n" not in str(caught.value)


def test_missing_key_is_named():
    with pytest.raises(SpecError, match="intermediate_size"):
        read({name: value for name, value in SMALL.items() if name != "intermediate_size"})


def test_configuration_without_model_type_is_read_by_its_names():
    assert family_of_config({"n_embd": 32}).name == "gpt2"
    assert family_of_config(SMALL).name == "llama"


@pytest.mark.parametrize(
    ("said", "scaling"),
    [
        ({}, NoScaling()),
        ({"type": "linear", "factor": 4}, LinearScaling(factor=4.0)),
        ({"rope_type": "ntk", "factor": 4.0}, NTKScaling(factor=4.0)),
        (
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
            Llama3Scaling(factor=8.0, original=64),
        ),
        ({"type": "yarn", "factor": 4.0, "beta_fast": 16}, YaRN(factor=4.0, original=64, fast=16.0)),
        (FACTORS | {"type": "longrope", "original_max_position_embeddings": 16}, LONG),
        (FACTORS | {"type": "longrope", "attention_factor": 2}, LONG.replace(original=64, factor=1.0, sharpness=2.0)),
    ],
    ids=str,
)
def test_old_and_new_spellings_of_rope_mean_the_same(said: Config, scaling: Scaling):
    old = read(SMALL | {"max_position_embeddings": 64, "rope_theta": 5e5, "rope_scaling": dict(said) or None})
    new = read(SMALL | {"max_position_embeddings": 64, "rope_parameters": {"rope_theta": 5e5, **said}})
    assert old == new
    assert first_layer(old).mix.mixer.position == RoPE(theta=5e5, scaling=scaling)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("layers.*.mix.mixer.position.scaling", NTKScaling(factor=2.0)),
        ("layers.*.mix.mixer.out_bias", True),
        ("layers.1.ffn.mixer.hidden", 48),
        ("layers.*.mix.dropout", 0.1),
        ("embed.position", {"kind": "Learned", "length": 2048}),
    ],
)
def test_family_does_not_claim_what_transformers_cannot_say(path: str, value: object):
    spec = read(SMALL)
    assert family_of(spec) is not None
    assert family_of(override(spec, path, value)) is None


@pytest.mark.parametrize("kind", ["longrope", "su", "yarn"])
def test_phi_3_says_its_trained_length_beside_the_rotation_and_has_older_names_of_it(kind: str):
    config = SMALL | {"model_type": "phi3", "max_position_embeddings": 64, "original_max_position_embeddings": 16}
    spec = read(config | {"rope_scaling": FACTORS | {"type": kind}})
    assert first_layer(spec).mix.mixer.position == RoPE(scaling=LONG)
    family = family_of_config(config)
    written = json.loads(json.dumps(family.config(spec)))
    assert written["original_max_position_embeddings"] == 16
    assert read(written) == spec
    assert family.config(read(written)) == written
    assert family.describes(spec) and not family.describes(override(spec, "layers.*.mix.mixer.heads", 8))


def test_heads_that_do_not_divide_the_width_are_no_llama_of_transformers_but_a_mistral():
    spec = read(SMALL | {"num_attention_heads": 5, "head_dim": 8})
    assert parameters(spec) > 0
    family = family_of(spec)
    assert family is not None and family.name == "mistral"


def test_a_fraction_that_turns_is_no_llama_of_transformers_but_a_phi_3():
    family = family_of(override(read(SMALL), "layers.*.mix.mixer.position.fraction", 0.5))
    assert family is not None and family.name == "phi3"


@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        ("mistral", {"attention_bias": True}, "attention_bias"),
        ("bert", {"is_decoder": True}, "is_decoder"),
        ("roberta", {"is_decoder": True}, "is_decoder"),
        ("big_bird", {"is_decoder": True}, "is_decoder"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "give a sliding_window"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types"),
        ("qwen3", {"layer_types": [1, {}]}, "layer_types"),
        ("olmo", {"clip_qkv": 0.0}, "clip_qkv"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": None}}, "needs the key factor$"),
        ("deepseek_v3", {"norm_topk_prob": None}, "norm_topk_prob is None"),
        ("deepseek_v3", {"rope_interleave": None}, "rope_interleave is None"),
        ("gemma", {"hidden_act": "gelu", "hidden_activation": "relu"}, "hidden_activation"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma2", {"sliding_window": None}, "give a sliding_window"),
        ("gemma2", {"hidden_act": "silu"}, "hidden_act"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gemma3_text", {"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters"),
        ("phi3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "longrope"),
        ("phi3", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "short_factor"),
        ("phi3", {"rope_scaling": {"type": "su", "rope_type": "linear"}}, "keep one of them"),
        (
            "phi3",
            {"rope_scaling": FACTORS | {"type": "su", "original_max_position_embeddings": 9}},
            "original_max_position_embeddings=9, .* where it is 4096; write it there",
        ),
        ("mixtral", {"router_jitter_noise": 0.1}, "router_jitter_noise"),
        ("mixtral", {"num_local_experts": 2, "num_experts_per_tok": 3}, "active=3"),
        ("qwen3_moe", {"mlp_only_layers": [0, 1]}, "no layer experts"),
        ("qwen3_moe", {"mlp_only_layers": "all"}, "mlp_only_layers"),
        ("qwen3_next", {"layer_types": ["linear_attention", "attention"]}, "layer_types"),
        ("olmo_hybrid", {"num_hidden_layers": 2, "layer_types": ["linear_attention"] * 2}, "layer_types"),
        ("t5", {"architectures": ["T5EncoderModel"]}, "T5EncoderModel"),
        ("switch_transformers", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("switch_transformers", {"encoder_sparse_step": 2}, "encoder_sparse_step"),
        ("rwkv", {"rescale_every": "often"}, "rescale_every"),
        ("qwen3_next", {"hidden_act": "gelu"}, "hidden_act"),
        ("zamba2", {"tie_word_embeddings": False}, "tie_word_embeddings"),
        ("zamba2", {"layers_block_type": ["hybrid", "attention"]}, "layers_block_type"),
        ("jamba", {"attn_layer_offset": 8}, "attn_layer_offset"),
        ("jamba", {"mamba_inner_layernorms": False}, "mamba_inner_layernorms"),
        ("gpt_oss", {"swiglu_alpha": 1.0}, "swiglu_alpha"),
        ("deepseek_v2", {"norm_topk_prob": True}, "norm_topk_prob"),
        ("deepseek_v3", {"num_key_value_heads": 4, "first_k_dense_replace": 2}, "first_k_dense_replace"),
        ("deepseek_v3", {"num_key_value_heads": 4, "scoring_func": "softmax"}, "scoring_func"),
    ],
    ids=str,
)
def test_what_a_family_does_not_have_is_refused_by_name(kind: str, change: Config, named: str):
    with pytest.raises(SpecError, match=named):
        read(SMALL | {"model_type": kind, "num_key_value_heads": 2, **change})


def test_gpt2_without_biases_is_not_claimed():
    assert family_of(gpt2.gpt2(width=32, layers=2, heads=4, bias=False)) is None


def test_families_do_not_share_the_names_of_presets():
    assert len(PRESETS) == sum(len(family.presets) for family in FAMILIES)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**30},
        {"model_type": ["llama"]},
        {"rms_norm_eps": math.nan},
    ],
    ids=str,
)
def test_a_hostile_configuration_is_refused_in_one_sentence(changes):
    sizes = {"vocab_size": 300, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = {"model_type": "llama", "num_hidden_layers": 2, **sizes, "max_position_embeddings": 32}
    with pytest.raises(SpecError, match=r"^[^\n]{20,200}$"):
        read(config | changes)
