"""Plans of serving: held to real steps, to figures that were published, and to what follows from each other."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from groundup.cli import groundup
from groundup.errors import ConfigError
from groundup.families import PRESETS
from groundup.families.llama import llama
from groundup.families.mixtral import mixtral
from groundup.infer import generate
from groundup.infer.language_model import LanguageModel
from groundup.model.decoder import DecoderModel
from groundup.model.encoder_decoder import EncoderDecoder, EncoderDecoderModel
from groundup.planner import books, weight_formats
from groundup.planner.decoding import Pass, decode_seconds, prefill_seconds, reading, writing
from groundup.planner.hardware import MEMORY_SHARE, parse
from groundup.planner.ledger import expected_experts
from groundup.planner.measure import count_flops
from groundup.planner.phantom import VIEW
from groundup.planner.serving import ServingPlan, plan_serving
from laws.examples import shrink
from unit.planner_stand_in import GPT2, LLAMA, MACHINE

ROWS, PROMPT, ROOM = 3, 12, 24

# One of each way to write: attention of each kind, windows, latents, experts, scans, recurrences, sources.
WRITING = (
    "gpt2 llama-3-8b mistral-7b-v0.1 mixtral-8x7b deepseek-v2-lite gemma-3-1b bloom-560m falcon-7b rwkv-4-169m",
    "rwkv-7-0.1b mamba-130m mamba2-130m gated-deltanet-1.3b retnet-1.3b recurrentgemma-2b zamba2-1.2b s4-224m",
    "t5-small bart-base seq2seq-bahdanau switch-base-8 reformer-crime-and-punishment",
)

# Tokens a second for one text, by gpt-fast on A100s of 80 GB, limited to 330 W: compiled, so that starting operations
# takes next to nothing, after prompts of 5 tokens and 200 new ones. pytorch-labs/gpt-fast @0f925b5, README.
GPT_FAST = [
    ("llama-2-7b", 1, None, 104.9),
    ("llama-2-7b", 1, "int8", 155.58),
    ("llama-2-7b", 1, "int4-g32", 196.80),
    ("llama-2-70b", 1, "int8", 19.13),
    ("llama-2-70b", 1, "int4-g32", 25.25),
    ("llama-2-7b", 2, None, 168.84),
    ("llama-2-7b", 4, None, 254.02),
    ("llama-2-7b", 8, None, 328.43),
    ("llama-2-70b", 2, None, 21.32),
    ("llama-2-70b", 4, None, 38.01),
    ("llama-2-70b", 8, None, 62.50),
    ("llama-2-70b", 8, "int8", 80.44),
    ("llama-2-70b", 8, "int4-g32", 90.77),
]


def _step(spec: Any, *, rows: int = 1, seen: int = 0, dtype: torch.dtype = torch.bfloat16, **given: Any) -> Pass:
    return writing(spec, rows=rows, seen=seen, dtype=dtype, device="cuda", **given)


def _plan(model: Any, **given: Any) -> ServingPlan:
    """Returns a plan without its tables, which take long to make while signatures are checked."""
    given.setdefault("tables", False)
    return plan_serving(model, **given)


@pytest.mark.slow
@pytest.mark.parametrize("name", " ".join(WRITING).split())
def test_a_step_does_the_operations_of_a_real_one(name: str):
    spec = shrink(PRESETS[name]())
    model = spec.build().eval()
    decoder = model.decoder if isinstance(model, EncoderDecoderModel) else model
    assert isinstance(decoder, DecoderModel)
    made: dict[str, Any] = {}

    def read() -> None:
        ids = torch.randint(spec.predictor.vocab, (ROWS, PROMPT), generator=torch.Generator().manual_seed(0))
        if isinstance(model, EncoderDecoderModel):
            made["state"], ids = model.new_state(ids, ROOM, lengths=torch.full((ROWS,), PROMPT)), ids[:, :1]
        else:
            made["state"] = model.new_state(ROWS, ROOM)
        hidden = generate.prefill(decoder, made["state"], ids, lengths=torch.full((ROWS,), ids.shape[1]))
        made["newest"] = decoder.logits(hidden).argmax(-1)

    def write() -> None:
        decoder.logits(decoder.hidden(made["newest"][:, None], made["state"])[:, 0])

    sourced = isinstance(spec, EncoderDecoder)
    given = {"rows": ROWS, "dtype": torch.float32, "device": "cpu", "room": ROOM}
    with torch.inference_mode():
        first = reading(spec, prompt=PROMPT, **given)
        assert first.flops == count_flops(read)
        step = writing(spec, seen=1 if sourced else PROMPT, source=PROMPT if sourced else 0, **given)
        assert step.flops == count_flops(write)
    assert (
        step.row_bytes
        == sum(t.nbytes for layer in made["state"].layers for part in layer.values() for t in part.tensors().values())
        / ROWS
    )


def test_pieces_of_a_prompt_stand_for_those_between_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(generate, "PREFILL_TOKENS", 8)
    model = LLAMA.build().eval()
    ids = torch.zeros(2, 30, dtype=torch.int64)

    def read() -> None:
        state = model.new_state(2, 32)
        model.logits(generate.prefill(model, state, ids, lengths=torch.tensor([30, 30])))

    with torch.inference_mode():
        real = count_flops(read)
    made = reading(LLAMA, rows=2, prompt=30, dtype=torch.float32, device="cpu", room=32)
    assert made.flops == pytest.approx(real, rel=1e-12)


def test_every_layer_is_in_the_step():
    deep = llama(width=32, layers=12, heads=4, kv_heads=2, hidden=48, vocab=96, context=64)
    one, two, twelve = (_step(deep.replace(layers=deep.layers[:n]), seen=20) for n in (1, 2, 12))
    for figure in ("flops", "weights_bytes", "state_bytes", "row_bytes"):
        a, b, c = (getattr(made, figure) for made in (one, two, twelve))
        assert c == pytest.approx(b + 10 * (b - a))
    views = [sum(n for work, n in made.works if work == VIEW) for made in (one, two, twelve)]
    assert views[2] == pytest.approx(views[1] + 10 * (views[1] - views[0]))


def test_a_step_of_one_text_reads_each_weight_once_but_for_the_table():
    spec = PRESETS["llama-3-8b"]()
    read = _step(spec, seen=100).weights_bytes
    table, row = 2 * spec.vocab * spec.width, 2 * spec.width
    assert read == 2 * books.params(spec) - table + row
    tied = PRESETS["llama-3.2-1b"]()
    assert _step(tied, seen=100).weights_bytes == 2 * books.params(tied) + 2 * tied.width  # the head reads the table


def test_a_step_reads_the_state_up_to_its_token_and_writes_a_slot():
    spec = PRESETS["llama-3-8b"]()
    slot = 2 * 2 * 32 * 8 * 128
    made = _step(spec, rows=4, seen=999, room=8192)
    assert made.state_bytes == pytest.approx(4 * (1000 * slot + slot), abs=64)  # and how many tokens were seen
    assert made.row_bytes == 8192 * slot


def test_attention_without_a_share_is_read_once_for_all_heads():
    works = [work for work, _ in _step(PRESETS["llama-3-8b"](), seen=4095).works if "attention" in work.name]
    assert len(works) == 1
    assert works[0].moved_bytes == pytest.approx(2 * 2 * 4096 * 8 * 128, rel=0.02)  # keys and values, not their copies


def test_few_texts_read_few_experts():
    spec = PRESETS["mixtral-8x7b"]()
    inactive = 2 * (books.params(spec) - books.active_params(spec))
    every = _step(spec, rows=256).weights_bytes
    one = _step(spec, rows=1).weights_bytes
    assert every - one == pytest.approx(inactive, rel=1e-3)
    assert expected_experts(8, active=2, tokens=1) == 2
    assert expected_experts(8, active=2, tokens=2) == 3.5  # the second text's two are new with a chance of 6 in 8
    assert expected_experts(8, active=2, tokens=1e6) == 8


def test_experts_that_are_expected_are_those_that_chance_chooses():
    draw = torch.Generator().manual_seed(0)
    chosen = torch.rand(4000, 5, 16, generator=draw).topk(3, -1).indices.flatten(1)  # 5 tokens, each 3 of 16
    distinct = torch.zeros(4000, 16).scatter_(1, chosen, 1.0).sum(1).mean().item()
    assert distinct == pytest.approx(expected_experts(16, active=3, tokens=5), rel=0.01)


@pytest.mark.parametrize(
    ("name", "tokens", "size"),
    [  # bytes of keys and values in 16 bits
        ("llama-2-13b", 4096, 6_710_886_400 // 2),  # jax-ml/scaling-book @0819a7d inference.md: 8,192 tokens
        ("llama-3-70b", 1, 327_680),  # the same, applied-inference.md
        ("llama-3.1-405b", 1, 516_096),  # DeepSeek-AI 2025 (ISCA), table 1
        ("qwen2.5-72b", 1, 327_680),
        ("llama-2-7b", 1, 524_288),
        ("deepseek-v3", 1, 70_272),
    ],
)
def test_states_are_as_large_as_published(name: str, tokens: int, size: int):
    assert _step(PRESETS[name](), room=tokens).row_bytes == size


@pytest.mark.parametrize(("kv_heads", "gigabytes"), [(32, 17.18), (8, 4.29)])
def test_shared_heads_keep_the_published_states(kv_heads: int, gigabytes: float):
    # rasbt/LLMs-from-scratch @28c65cd, ch04/04_gqa/README.md: width 4,096, 32 layers, 32,768 tokens
    spec = llama(width=4096, layers=32, heads=32, kv_heads=kv_heads, hidden=11008, vocab=1000, context=32768)
    assert _step(spec, room=32768).row_bytes / 1e9 == pytest.approx(gigabytes, abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "devices", "weights", "published"), GPT_FAST)
def test_published_speeds_lie_between_the_plan_and_the_plan_without_launches(
    name: str, devices: int, weights: str | None, published: float
):
    made = _plan(name, on=f"{devices}xA100-80GB", weights=weights, context=205, prompt=5)
    compiled = 1 / (made.token_seconds - made.step_parts_seconds["launches"])
    assert made.tokens_per_second_each < published < compiled


@pytest.mark.parametrize(
    ("name", "weights", "gigabytes"),
    [  # gpt-fast's bandwidths over its tokens a second: the bytes that it takes a model to have
        ("llama-2-7b", "int8", 1069.20 / 155.58),
        ("llama-2-7b", "int4-g32", 862.69 / 196.80),
        ("llama-2-70b", "int8", 1322.58 / 19.13),
        ("llama-2-70b", "int4-g32", 1097.66 / 25.25),
    ],
)
def test_weights_in_fewer_bits_are_as_large_as_published(name: str, weights: str, gigabytes: float):
    made = _plan(name, on="A100-80GB", weights=weights, context=205, prompt=5)
    assert made.weights_bytes / 1e9 == pytest.approx(gigabytes, rel=0.002)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gigabytes"), [("llama-2-7b", 13.52), ("llama-2-13b", 26.21)])
def test_published_memory_of_generating_is_met(name: str, gigabytes: float):
    # Lightning-AI/litgpt @2685705, tutorials/resource-tables.md: on an A100, its default prompt and 50 new tokens
    made = _plan(name, on="A100-40GB", precision="bf16", context=60, prompt=10)
    assert made.peak_bytes / 1e9 == pytest.approx(gigabytes, rel=0.01)


@pytest.mark.parametrize(
    ("name", "bits"), [("q4_1", 5.0), ("q8_0", 8.5), ("q4_0", 4.5), ("q6_k", 6.5625), ("q3_k", 3.4375), ("q2_k", 2.625)]
)
def test_formats_have_the_bits_that_llama_cpp_says(name: str, bits: float):
    assert weight_formats.find(name.upper()).bits == bits


def test_a_format_holds_maps_and_only_some_hold_tables():
    plain, maps, tables = (
        _plan(LLAMA, on="A100", precision="fp32", weights=weights).weights_bytes for weights in (None, "int8", "q8_0")
    )
    table = LLAMA.vocab * LLAMA.width
    vectors = sum(p.numel() for p in LLAMA.build().parameters() if p.ndim == 1)
    matrices = books.params(LLAMA) - table - vectors
    assert plain == 4 * books.params(LLAMA)
    assert maps == matrices + 4 * (table + vectors)
    assert tables == round(8.5 / 8 * (matrices + table) + 4 * vectors)


def test_a_plan_is_plain_data_and_a_table():
    enough = _plan(LLAMA, on=MACHINE, batch=4).peak_bytes
    made = plan_serving(LLAMA, on=replace(MACHINE, memory_bytes=int(enough / 0.9) + 999), batch=4)
    assert made.most_batch == 4 and [point.batch for point in made.by_batch] == [1, 2, 4]
    data = made.to_dict()
    assert json.loads(json.dumps(data)) == data
    text = str(made)
    assert "texts that fit" in text and "first token after" in text and "fits in" in text


def test_figures_hang_together():
    made = _plan(LLAMA, on=MACHINE, batch=4, context=64, prompt=16, precision="bf16")
    assert made.weights_bytes == 2 * made.params
    assert made.state_bytes == books.state_bytes(LLAMA, rows=4, max_len=64, dtype=torch.bfloat16)
    assert made.state_bytes == 4 * made.state_bytes_per_row
    assert made.regrouping_bytes == 3 * made.state_bytes_per_row
    assert made.token_seconds == pytest.approx(sum(made.step_parts_seconds.values()))
    given = {"rows": 4, "machine": MACHINE, "dtype": torch.bfloat16}
    assert made.token_seconds == pytest.approx(decode_seconds(LLAMA, seen=63, **given))
    assert made.first_step_seconds == pytest.approx(decode_seconds(LLAMA, seen=16, **given))
    assert made.first_token_seconds == pytest.approx(prefill_seconds(LLAMA, prompt=16, **given))
    assert made.tokens_per_second == 4 * made.tokens_per_second_each == pytest.approx(4 / made.token_seconds)
    assert made.bound == max(made.step_parts_seconds, key=lambda name: made.step_parts_seconds[name]) == "launches"
    read = made.step_weights_bytes + made.step_state_bytes
    assert made.bandwidth_share == pytest.approx(read / made.token_seconds / 3e10)
    assert made.utilisation == pytest.approx(made.step_flops / made.token_seconds / 2e11)


@pytest.mark.slow
def test_memory_bounds_a_step_of_one_text_and_products_the_prompt():
    made = _plan("llama-3-70b", on="8xH100", context=4096, prompt=4000)
    assert made.step_parts_seconds["products"] < made.step_parts_seconds["memory"]
    alone = _plan("gpt3-13b", on="A100-80GB", context=2048)
    assert alone.bound == "memory"
    bandwidth = parse("A100-80GB")[1].bandwidth_bytes_per_second
    read = alone.step_weights_bytes + alone.step_state_bytes
    assert alone.step_parts_seconds["memory"] == pytest.approx(read / bandwidth / MEMORY_SHARE, rel=0.02)
    assert alone.utilisation < 0.01
    flops = 2 * alone.params * alone.prompt
    assert flops / alone.first_token_seconds > 0.3 * 312e12


@pytest.mark.slow
def test_more_texts_cost_less_each_until_memory_ends():
    made = _plan("llama-3-8b", on="A100-80GB", context=4096, batch=3, tables=True)
    speeds = [point.tokens_per_second for point in made.by_batch]
    assert speeds == sorted(speeds)
    assert [point.batch for point in made.by_batch][:4] == [1, 2, 3, 4]
    assert made.by_batch[-1].batch == made.most_batch and made.by_batch[-1].fits
    more = _plan("llama-3-8b", on="A100-80GB", context=4096, batch=made.most_batch + 1)
    assert not more.fits and "DOES NOT FIT" in str(more)
    assert more.most_batch == made.most_batch


def test_windows_and_recurrences_do_not_slow_down():
    for name in ("mistral-7b-v0.1", "mamba-130m", "rwkv-4-169m"):
        spec = PRESETS[name]()
        near, far = (decode_seconds(spec, rows=1, seen=n, machine=MACHINE, dtype=torch.float32) for n in (8000, 16000))
        assert near == pytest.approx(far)
    full = PRESETS["llama-2-7b"]()
    near, far = (decode_seconds(full, rows=1, seen=n, machine=MACHINE, dtype=torch.float32) for n in (1000, 4000))
    assert far > near


def test_sources_are_kept_beside_the_text():
    spec = PRESETS["t5-small"]()
    made = _plan(spec, on="A100", context=64, prompt=512, precision="bf16")
    own = books.state_bytes(spec, rows=1, max_len=64, dtype=torch.bfloat16)
    assert made.state_bytes_per_row == own + 6 * (2 * 2 * 512 * 8 * 64 + 8)  # layers; keys, values and a length
    encoder = 2 * sum(n for part, n in books.params_by_part(spec).items() if part.startswith("encoder.layers"))
    assert made.step_weights_bytes < 2 * made.params - encoder


@pytest.mark.slow
def test_devices_share_weights_and_states():
    one, four = (_plan("llama-3-8b", on=f"{n}xH100", batch=8, context=4096, prompt=64) for n in (1, 4))
    assert four.weights_bytes == round(one.weights_bytes / 4)
    assert four.state_bytes == one.state_bytes / 4
    assert four.step_parts_seconds["memory"] == pytest.approx(one.step_parts_seconds["memory"] / 4)
    assert four.step_parts_seconds["exchange"] > 0
    assert one.step_parts_seconds["exchange"] == 0
    latents = [_plan("deepseek-v2-lite", on=f"{n}xH100", context=4096).state_bytes for n in (1, 4)]
    assert latents[0] == latents[1]  # all heads read the same
    few = _plan("llama-3-8b", on="16xH100", context=4096, batch=8)
    assert few.state_bytes == one.state_bytes / 8  # of 8 heads of keys and values


@pytest.mark.slow
def test_layers_that_do_not_fit_are_read_from_the_host():
    without = _plan("llama-2-13b", on="RTX-4090", context=2048)
    assert not without.fits and without.most_batch == 0
    made = _plan("llama-2-13b", on="RTX-4090", context=2048, offload=True)
    assert made.fits and made.most_batch >= 1
    each = 2 * books.params_by_part(PRESETS["llama-2-13b"]())["layers.mix"] / 40
    assert made.offloaded_bytes % each == pytest.approx(0, abs=each) and made.offloaded_bytes > 2 * each
    assert made.bound == "host"
    link = parse("RTX-4090")[1].host_bytes_per_second
    assert link is not None
    assert made.step_parts_seconds["host"] == pytest.approx(made.offloaded_bytes / (0.8 * link))
    whole = _plan("llama-2-13b", on="A100-80GB", context=2048, offload=True)
    assert whole.offloaded_bytes == 0 and whole.bound == "memory"


def test_a_host_is_as_fast_as_a_file_says(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(
        '[mine]\ndevice = "cuda"\nmemory_gb = 4\nbandwidth_gb_s = 500\nhost_gb_s = 10\ntflops = { bfloat16 = 50 }\n'
    )
    made = _plan("llama-3.2-3b", on=str(file), context=512, offload=True)
    assert made.step_parts_seconds["host"] == pytest.approx(made.offloaded_bytes / 8e9)
    assert any("80% of 10 GB/s" in sentence for sentence in made.assumptions)


@pytest.mark.slow
def test_a_million_tokens_have_a_price():
    made = _plan("llama-3-8b", on="2xA100-80GB", batch=4, context=512, usd_per_hour=2, watts=300, region="FR")
    hours = 2 * 1e6 / made.tokens_per_second / 3600
    assert made.cost_usd_per_million_tokens == pytest.approx(2 * hours)
    assert made.energy_kwh_per_million_tokens == pytest.approx(0.3 * hours)
    assert made.co2_kg_per_million_tokens == pytest.approx(0.3 * hours * 0.056039)
    assert made.cost_usd_per_million_prompt_tokens == pytest.approx(4e6 / made.prompt_tokens_per_second / 3600)
    here = _plan(LLAMA, on=MACHINE)
    assert here.cost_usd_per_million_tokens is here.energy_kwh_per_million_tokens is None
    assert any("power" in sentence for sentence in here.assumptions)


@pytest.mark.slow
def test_weights_are_held_as_they_are_stored(tmp_path: Path):
    LanguageModel(GPT2.build().to(torch.float16)).save(tmp_path / "halves")
    assert _plan(tmp_path / "halves", on="A100").precision == "float16"
    assert _plan(tmp_path / "halves", on="A100", precision="bf16").precision == "bfloat16"
    assert _plan(GPT2, on="A100").precision == "bfloat16"
    assert _plan(GPT2, on="V100").precision == "float32"


@pytest.mark.slow
def test_what_is_left_open_and_what_cannot_run_yet_is_said():
    said = " ".join(_plan("mixtral-8x7b", on="2xA100-80GB", weights="q4_0", batch=2, offload=True).assumptions)
    for text in ("up to 8,192", "half of the context", "as likely as each other", "formulas of the field", "4.5 bits",
                 "microseconds", "host's memory", "70% of the published rate"):  # fmt: skip
        assert text in said
    own = " ".join(_plan(LLAMA, on=MACHINE, batch=64).assumptions)
    assert "generate reads 32 texts" in own and "copied" in own and "formulas" not in own


@pytest.mark.usefixtures("unchecked_signatures")
@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        ("bert-base", {}, "Encoder writes no text token by token"),
        (LLAMA, {"batch": 0}, "batch=0 must be a whole number above 0"),
        (LLAMA, {"batch": 2.5}, "batch=2.5 must be a whole number"),
        (LLAMA, {"batch": True}, "batch=True must be a whole number"),
        (LLAMA, {"batch": 10**9}, "batch=1,000,000,000 is more than is planned for"),
        (LLAMA, {"context": -3}, "context=-3 must be"),
        (LLAMA, {"context": 65}, "context=65 is longer than the model's context of 64"),
        (LLAMA, {"context": 1}, "context=1 has no room"),
        (LLAMA, {"prompt": 64}, "prompt=64 leaves no room for a new token in a context of 64; give up to 63"),
        ("t5-small", {"prompt": 513}, "prompt=513 is longer than the encoder's context of 512; give up to 512"),
        (LLAMA, {"watts": float("nan")}, "watts=nan must be a number above 0"),
        (LLAMA, {"usd_per_hour": float("inf")}, "usd_per_hour=inf must be"),
        (LLAMA, {"precision": "fp8"}, "precision='fp8' does not exist; did you mean"),
        (LLAMA, {"weights": "int3"}, "weights='int3' is no format of weights; did you mean 'int8'"),
        (LLAMA, {"on": "H1000"}, "there is no device 'H1000'"),
        (LLAMA, {"on": "3xH100"}, "3 devices do not divide 4 heads"),
        ("mamba-130m", {"on": "5xH100"}, "5 devices do not divide 768 channels"),
        (LLAMA, {"region": "Frnce"}, "there is no region 'Frnce'"),
        (LLAMA, {"offload": True, "on": MACHINE}, "offload reads layers from the host's memory"),
    ],
)
def test_what_cannot_be_planned_is_refused(model: Any, given: dict[str, Any], says: str):
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        _plan(model, **{"on": "A100", **given})


def test_a_device_without_links_works_alone(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text('[mine]\ndevice = "cuda"\nmemory_gb = 4\nbandwidth_gb_s = 500\ntflops = { bfloat16 = 50 }\n')
    assert _plan(LLAMA, on=str(file)).fits
    with pytest.raises(ConfigError, match="nobody says how fast mine reaches another device"):
        _plan(LLAMA, on=f"2x{file}")


def test_processors_hold_the_program_and_what_the_allocator_wastes():
    made = _plan(LLAMA, on=MACHINE)
    assert made.process_bytes > 300 * 2**20
    assert made.slack_bytes == made.activations_bytes
    little = _plan(LLAMA, on=replace(MACHINE, memory_bytes=2**20))
    assert not little.fits and little.most_batch == 0


def test_tiny_states_fit_in_any_number():
    made = _plan("lstm-zaremba-small", on="H100")
    assert made.most_batch == 2**16


def test_mixtures_on_a_processor_start_a_product_for_each_expert():
    spec = mixtral(width=32, layers=2, heads=4, kv_heads=2, hidden=48, experts=8, active=2, vocab=96, context=64)
    starts = {
        device: sum(n for _, n in writing(spec, rows=8, seen=3, dtype=torch.bfloat16, device=device).works)
        for device in ("cpu", "cuda")
    }
    assert starts["cpu"] > starts["cuda"] + 2 * 3 * 3 * (expected_experts(8, active=2, tokens=8) - 1)


@pytest.mark.slow
def test_the_command_plans_serving(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text('[mine]\ndevice = "cuda"\nmemory_gb = 0.4\nbandwidth_gb_s = 500\ntflops = { bfloat16 = 50 }\n')
    run = CliRunner().invoke(groundup, f"plan gpt2 --serve --context 512 --batch 2 --on {file} --json".split())
    assert run.exit_code == 0, run.output
    data = json.loads(run.stdout)
    made = plan_serving("gpt2", context=512, batch=2, on=str(file))
    assert data == made.to_dict()
    assert data["by_batch"][0] == asdict(made.by_batch[0])
    table = CliRunner().invoke(groundup, f"plan gpt2 layers=4 --serve --on {file}".split())
    assert table.exit_code == 0 and "tokens/s a text" in table.stdout


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("gpt2 --batch 3", "--batch is for serving; give --serve too"),
        ("gpt2 --serve --tokens 2B", "--tokens is for training"),
        ("gpt2 --serve --optimizer muon", "--optimizer is for training"),
        ("--serve", "Missing argument 'MODEL'"),
    ],
)
def test_options_of_the_other_plan_are_refused(line: str, says: str):
    run = CliRunner().invoke(groundup, ["plan", *line.split()])
    assert run.exit_code == 2 and says in run.output
