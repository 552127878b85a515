from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from groundup.errors import ConfigError
from groundup.families import family_of_config
from groundup.mixers.chunked import ChunkedAttention
from groundup.mixers.mlp import MLP
from groundup.mixers.moe import MoE
from groundup.model.heads import Untied
from groundup.model.residual import Residual
from groundup.model.reversible import Reversible, ReversibleDecoder
from groundup.objectives.usual import named
from groundup.optim.optimizers import AdamW, Muon
from groundup.parts.router import TopOfSoftmax
from groundup.planner import books
from groundup.planner.plan import plan
from groundup.planner.scaling import BESIROGLU
from groundup.specs import override
from unit.planner_stand_in import GPT2, LLAMA, MACHINE

INTERFACE = """params active_params embedding_params tokens forward_flops_per_token train_flops_per_token train_flops
petaflop_s_days weights_bytes gradients_bytes optimizer_bytes activations_bytes logits_bytes state_bytes peak_bytes fits
micro_batch utilisation step_seconds train_seconds tokens_per_second energy_kwh chinchilla_tokens predicted_loss
assumptions sources"""


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_plan_has_the_promised_keys_as_plain_data():
    data = plan(LLAMA, on=MACHINE).to_dict()
    assert set(INTERFACE.split()) <= set(data)
    assert json.loads(json.dumps(data)) == data


def test_figures_hang_together():
    made = plan(LLAMA, on=MACHINE, tokens=10_000, rows=4, context=16, batch_tokens=128, watts=100, precision="bf16")
    assert (made.micro_batch, made.accumulate, made.batch_tokens, made.steps, made.tokens) == (4, 2, 128, 79, 10_112)
    assert made.train_flops == made.train_flops_per_token * made.tokens == made.step_flops * made.steps
    assert made.train_seconds == pytest.approx(made.steps * made.step_seconds)
    assert made.tokens_per_second == pytest.approx(128 / made.step_seconds)
    assert made.utilisation == pytest.approx(made.step_flops / made.step_seconds / 2e11)
    assert made.energy_kwh == pytest.approx(100 * made.train_seconds / 3.6e6)
    assert made.petaflop_s_days == pytest.approx(made.train_flops / 8.64e19)
    assert made.weights_bytes == made.gradients_bytes == 4 * made.params
    assert made.fits
    assert made.params_by_part == books.params_by_part(LLAMA)
    assert made.state_bytes == books.state_bytes(LLAMA, rows=1, max_len=16, dtype=torch.bfloat16)


def test_forwards_that_are_made_again_are_no_planned_operations_and_explained():
    mix, ffn = Residual(ChunkedAttention(heads=2, head_width=8)), Residual(MLP(hidden=24))
    layers = (Reversible(mix=mix, ffn=ffn),) * 2
    spec = ReversibleDecoder(width=16, vocab=60, context=32, layers=layers, head=Untied())
    made = plan(spec, tokens=1000, on=MACHINE)
    assert made.train_flops_per_token == books.train_flops_per_token(spec, context=32)
    assert made.train_flops_per_token == 3 * made.forward_flops_per_token
    assert "compute their forward once more" in str(made.explain("train_flops_per_token"))


def test_encoders_without_a_head_have_a_plan():
    made = plan("minilm-l6", on=MACHINE, tokens=1e6)
    assert made.params == sum(made.params_by_part.values()) == 22_713_216
    assert made.fits and made.step_seconds > 0


def test_the_loss_is_told_where_a_law_of_it_is_known():
    made = plan(GPT2, on=MACHINE, tokens=1e15)
    assert made.predicted_loss == BESIROGLU.loss(made.params, made.tokens)
    assert "nats per token of Chinchilla's text" in str(made)
    few, masked = plan(GPT2, on=MACHINE, tokens=1e6), plan(GPT2, on=MACHINE, tokens=1e15, objective=named("prefix_lm"))
    assert few.predicted_loss is None and masked.predicted_loss is None


def test_what_is_left_open_is_said():
    made = plan(GPT2, on=MACHINE)
    assert made.chinchilla_tokens == 20 * made.params
    assert made.tokens >= made.chinchilla_tokens
    assert made.context == GPT2.context
    assert made.energy_kwh is None
    said = " ".join(made.assumptions)
    assert all(text in said for text in ("Hoffmann", "524,288 tokens", "context", "power"))
    told = plan(GPT2, on=MACHINE, tokens=1e6, rows=2, context=8, watts=50).assumptions
    assert not any("Hoffmann" in sentence or "power" in sentence for sentence in told)


def test_optimizers_state_is_asked_of_the_optimizer():
    adamw, muon = (plan(LLAMA, on=MACHINE, optimizer=optimizer).optimizer_bytes for optimizer in (AdamW(), Muon()))
    matrices = sum(p.numel() for n, p in LLAMA.build().named_parameters() if "layers" in n and p.ndim == 2)
    tensors = len(list(LLAMA.build().parameters()))
    assert adamw == 8 * books.params(LLAMA) + 4 * tensors  # a count of steps for each tensor
    assert muon == adamw - 4 * matrices - 4 * 7 * len(LLAMA.layers)


def test_largest_micro_batch_that_fits_is_chosen():
    peaks = {n: plan(LLAMA, on=MACHINE, rows=n, batch_tokens=2**19).peak_bytes for n in (1, 8, 16)}

    def chosen(memory_bytes: float) -> int:
        return plan(LLAMA, on=replace(MACHINE, memory_bytes=int(memory_bytes / 0.9))).micro_batch

    assert chosen(peaks[1] / 2) == 1
    assert chosen(peaks[8] + 1000) == 8
    assert chosen(peaks[16] - 1000) == 8
    assert chosen(2**40) == 8192 // LLAMA.context


def test_what_does_not_fit_is_planned_and_says_so():
    made = plan(LLAMA, on=replace(MACHINE, memory_bytes=2**20))
    assert not made.fits
    assert made.micro_batch == 1
    assert "DOES NOT FIT" in str(made)


def test_custom_configuration_is_planned_to_the_unit():
    config = {
        "vocab_size": 64000, "max_position_embeddings": 32768, "hidden_size": 8192, "num_hidden_layers": 60,
        "num_attention_heads": 64, "intermediate_size": 32768, "hidden_act": "swiGLU", "rotary_emb_fraction": 1.0,
        "use_flash_attention": True, "layer_norm_eps": 1e-6, "rope_theta": 10000, "attention_bias": True,
    }  # fmt: skip
    spec = family_of_config(config).spec(config)
    v, h, n, f = 64000, 8192, 60, 32768
    made = plan(spec, on=MACHINE, context=128, rows=1)
    assert made.params == 2 * v * h + n * (4 * h * h + 4 * h + 3 * h * f + 2 * h) + h == 65_476_042_752


def test_text_has_people_units_and_the_assumptions():
    text = str(plan(LLAMA, on=MACHINE, tokens=1e6, context=16))
    assert "Abacus, 2 cores" in text
    assert "fits in 8.00 GiB" in text
    assert "assumed:" in text
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokens": 0}, "tokens=0 must be a number above 0"),
        ({"tokens": float("nan")}, "tokens=nan"),
        ({"rows": -1}, "rows=-1"),
        ({"watts": float("inf")}, "watts=inf"),
        ({"context": 65}, "context=65 is longer than the model's context of 64"),
        ({"precision": "fp8"}, "fp8"),
        ({"on": "8xH1000"}, "no device 'H1000'"),
    ],
)
def test_bad_figures_are_refused_in_one_sentence(given: dict[str, Any], message: str):
    settings: dict[str, Any] = {"on": MACHINE, **given}
    with pytest.raises(ConfigError, match=message):
        plan(LLAMA, **settings)


def test_a_step_with_more_experts_than_tokens_is_timed():
    moe = MoE(experts=64, active=1, hidden=16, router=TopOfSoftmax(capacity=2))
    spec = override(LLAMA, "layers.*.ffn.mixer", moe).replace(context=8)
    assert plan(spec, on=MACHINE, rows=1).step_seconds > 0


def test_precision_that_is_not_native_is_planned_at_the_rates_that_were_measured():
    names = {"bfloat16": "float32"}
    plain = replace(MACHINE, samples=tuple(replace(s, dtype=names.get(s.dtype, s.dtype)) for s in MACHINE.samples))
    made = plan(LLAMA, on=plain, rows=1, precision="bf16")
    assert made.precision == "bfloat16"
    assert made.utilisation > 0
