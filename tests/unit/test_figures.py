"""Every figure of the published tables is met within its rounding, or docs/published.md says why it cannot be.

The tables are those of ``tests/data``, with the source and the confidence of each row. A cell is met by a relation: a
function of ours that gives it from the row's other cells, as exactly as those are printed. Figures of a row that no
relation meets have to stand in the docs, and those that stand there must be figures that none meets.
"""

from __future__ import annotations

import csv
import fnmatch
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import pytest

from groundup.errors import ConfigError
from groundup.families import PRESETS, bert, family_of_config, gpt2, palm
from groundup.mixers.mlp import MLP
from groundup.model.heads import Tied
from groundup.model.model import Model
from groundup.model.pool import FirstToken
from groundup.parts.norm import LayerNorm
from groundup.planner import books, grids, hardware, published, scaling
from groundup.planner.published import BytesPerParam
from groundup.specs import override

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests" / "data"
Row = dict[str, str]

EXACT = {"gpus", "heads", "hidden", "layers", "seq_len", "vocab", "global_batch_seqs", "power_w_per_gpu", "pue"}
EXACT |= {"carbon_g_per_kwh"}
SECONDS_OF_A_DAY = 86_400.0


def table(name: str) -> list[Row]:
    with (DATA / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@cache
def excepted(name: str) -> list[tuple[str, set[str], str]]:
    """The rows of a table that the docs list: a pattern of their names, the columns, the reason."""
    lines = (ROOT / "docs" / "published.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(f"| {name} |")]
    return [(row.strip("`"), set(columns.split(", ")), reason) for _, row, columns, reason in cells]


def reasons(name: str, row: str) -> set[str]:
    return {c for pattern, columns, _ in excepted(name) if fnmatch.fnmatchcase(row, pattern) for c in columns}


def number(text: str) -> float:
    return float(text.strip("~").split()[0])


def rounding(text: str, *, digits: int = 3) -> float:
    """Half of the last digit that is printed; at least three digits are, however many of them are noughts."""
    mantissa, _, exponent = text.strip("~").split()[0].lower().partition("e")
    whole, _, part = mantissa.partition(".")
    places = len(part) if part else -max(0, len(whole) - max(len(whole.rstrip("0")), digits))
    return 0.5 * 10.0 ** (int(exponent or 0) - places)


@dataclass(frozen=True)
class Relation:
    """A figure as a function of others of its row.

    Attributes:
        gives: the column that it gives.
        of: the columns that it is given.
        by: the function, of the numbers in those columns.
        only: a pattern of the rows that it holds for.
        digits: the least that are printed of the figures, noughts included.
        but: what rows have that print another figure, which the relation contradicts.
        rounded: columns that are exact elsewhere.
    """

    gives: str
    of: tuple[str, ...]
    by: Callable[..., float]
    only: str = ""
    digits: int = 3
    but: dict[str, float] = field(default_factory=dict)
    rounded: tuple[str, ...] = ()

    def holds_for(self, row: Row) -> bool:
        return bool(re.match(self.only, row["model"])) and all(row[key] for key in (self.gives, *self.of))

    def check(self, row: Row) -> None:
        """Fails where the figure lies outside of what the roundings of all figures allow."""
        spans = []
        for key in self.of:
            half = 0.0 if key in EXACT.difference(self.rounded) else rounding(row[key], digits=self.digits)
            spans.append((number(row[key]) - half, number(row[key]) + half))
        found = [self.by(*corner) for corner in itertools.product(*spans)]
        printed, half = number(row[self.gives]), rounding(row[self.gives], digits=self.digits)
        told = f"{row['model']}: {self.gives}={row[self.gives]} is printed, and {min(found):.6g} to {max(found):.6g}"
        if row["model"] in self.but:
            assert min(found) <= self.but[row["model"]] <= max(found), told
            assert not min(found) - half <= printed <= max(found) + half, told
            return
        assert min(found) - half * 1.001 <= printed <= max(found) + half * 1.001, told


def energy_of_days(gpus: float, watts: float, days: float, pue: float) -> float:
    return published.energy_kwh(device_hours=24 * gpus * days, watts=watts, pue=pue) / 1000


def energy_of_hours(hours: float, watts: float, pue: float = 1.0) -> float:
    return published.energy_kwh(device_hours=hours, watts=watts, pue=pue) / 1000


def carbon(energy: float, grams: float) -> float:
    return published.carbon_kg(kwh=energy * 1000, grams_per_kwh=grams) / 1000


def carbon_of_card(hours: float, watts: float, *, grams: float) -> float:
    return carbon(energy_of_hours(hours, watts), grams)


def megatron(rows: float, context: float, layers: float, width: float, vocab: float) -> float:
    sizes = {"rows": int(rows), "context": int(context), "layers": int(layers), "width": int(width)}
    return published.megatron_step_flops(**sizes, vocab=int(vocab))


def hardware_share(share: float) -> float:
    sizes = {"rows": 4, "context": 2048, "layers": 48, "width": 6144, "vocab": 51_200}
    hardware = published.megatron_step_flops(**sizes, recompute="selective")
    return share * hardware / published.megatron_step_flops(**sizes, recompute="none")


def megatron_rate(rows: float, context: float, layers: float, width: float, vocab: float, *rest: float) -> float:
    seconds, gpus = rest
    return megatron(rows, context, layers, width, vocab) / seconds / gpus / 1e12


def megatron_days(tokens: float, context: float, layers: float, width: float, vocab: float, *rest: float) -> float:
    gpus, rate = rest
    return megatron(1, context, layers, width, vocab) * tokens / context / (gpus * rate * 1e12) / SECONDS_OF_A_DAY


def megatron_size(context: float, layers: float, width: float, vocab: float) -> float:
    sizes = {"context": int(context), "layers": int(layers), "width": int(width), "vocab": int(vocab)}
    return published.megatron_params(**sizes)


def days_of_eight(params: float, tokens: float, gpus: float, rate: float) -> float:
    seconds = published.train_seconds(
        params=params, tokens=tokens, devices=int(gpus), flops_per_second=rate * 1e12, recompute=True
    )
    return seconds / SECONDS_OF_A_DAY


def palm_share(params: float, layers: float, width: float, context: float, rate: float, *, peak: float) -> float:
    per_token = published.palm_flops_per_token(
        params=params, layers=int(layers), width=int(width), context=int(context)
    )
    return 100 * published.utilisation(tokens_per_second=rate, flops_per_token=per_token, devices=1, peak_flops=peak)


def nanogpt_share(*figures: float) -> float:
    params, layers, width, context, seconds, rows, gpus = figures
    return palm_share(params, layers, width, context, rows * context / seconds / gpus, peak=312e12)


def days_of_steps(tokens: float, context: float, rows: float, seconds: float) -> float:
    return tokens / (context * rows) * seconds / SECONDS_OF_A_DAY


def cost(hours: float, *, usd: float) -> float:
    return published.cost_usd(device_hours=hours, usd_per_hour=usd)


SIZES = ("seq_len", "layers", "hidden", "vocab")
BOOK = r"LLaMA-3 70B on TPU"
RELATIONS = [
    Relation("flops", ("params", "tokens"), lambda n, d: 3 * n * d, only="T5-(Small|Base|3B)"),
    Relation("flops", ("params", "tokens"), lambda n, d: 6 * n * d, only=r"BERT|RoBERTa|GPT-3 |Llama 3.1 405B|llm.c"),
    Relation("flops", ("params", "tokens"), lambda n, d: 6 * n * d, only=BOOK),
    Relation(
        "flops",
        ("active_params", "tokens"),
        lambda n, d: 6 * n * d,
        but={"GShard-600B": 1.38e22, "Switch-1.5T": 8.89e22},
    ),
    Relation("pf_days", ("flops",), lambda c: c / scaling.PETAFLOP_S_DAY),
    Relation("flops", ("gpus", "tflops_per_gpu", "days"), lambda n, r, d: n * r * 1e12 * d * SECONDS_OF_A_DAY),
    Relation("days", ("flops", "gpus", "mfu_pct"), lambda c, n, s: c / (n * 459e10 * s) / SECONDS_OF_A_DAY, only=BOOK),
    Relation("energy_mwh", ("gpus", "power_w_per_gpu", "days", "pue"), energy_of_days),
    Relation(
        "energy_mwh",
        ("gpu_hours", "power_w_per_gpu", "pue"),
        energy_of_hours,
        but={"BLOOM-175B (LLaMA recalculation)": 476.4672, "LLaMA-65B": 449.83928},
    ),
    Relation(
        "energy_mwh",
        ("gpu_hours", "power_w_per_gpu"),
        energy_of_hours,
        only="BERT |6B Trans|ViT",
        rounded=("power_w_per_gpu",),
    ),
    Relation("hfu_pct", ("mfu_pct",), hardware_share, only="Megatron GPT 22B"),
    Relation("tco2e", ("energy_mwh", "carbon_g_per_kwh"), carbon, only=r"(?!OLMo|OPT-175B$)"),
    Relation("tco2e", ("energy_mwh", "carbon_g_per_kwh", "pue"), lambda e, g, p: carbon(e * p, g), only="OLMo"),
    # Meta's cards print no intensity; one for each card gives all of its rows: that of LLaMA's paper with its PUE, and
    # 0.4138 and 0.387 kg/kWh, of which nobody says where they come from.
    Relation(
        "tco2e", ("gpu_hours", "power_w_per_gpu"), partial(carbon_of_card, grams=385 * 1.1), only="Llama 3 ", digits=2
    ),
    Relation(
        "tco2e",
        ("gpu_hours", "power_w_per_gpu"),
        partial(carbon_of_card, grams=413.8),
        only=r"Llama 3\.[12] ",
        digits=2,
    ),
    Relation("tco2e", ("gpu_hours", "power_w_per_gpu"), partial(carbon_of_card, grams=387), only="Llama 4 ", digits=2),
    Relation("gpu_hours", ("gpus", "days"), lambda n, d: 24 * n * d),
    Relation(
        "gpu_hours",
        ("tokens", "tokens_per_s_per_gpu"),
        lambda t, r: published.device_hours(tokens=t, tokens_per_second=r),
        only="LLaMA-65B",
    ),
    Relation(
        "days",
        ("tokens", "tokens_per_s_per_gpu", "gpus"),
        lambda t, r, n: published.device_hours(tokens=t, tokens_per_second=r) / n / 24,
    ),
    Relation("days", ("tokens", "seq_len", "global_batch_seqs", "step_time_s"), days_of_steps, only="llm.c", digits=1),
    Relation("cost_usd", ("gpu_hours",), partial(cost, usd=14 / 8), only="llm.c .*(124|125|350)M", digits=1),
    Relation("cost_usd", ("gpu_hours",), partial(cost, usd=28 / 8), only="llm.c .*1558M"),
    Relation("cost_usd", ("gpu_hours",), partial(cost, usd=2), only="DeepSeek-V3"),
    Relation("cost_usd", ("gpus", "days"), lambda n, d: cost(24 * n * d, usd=8), only="GPT-2 1.5B", digits=2),
    Relation("params", SIZES, megatron_size, only=r"Megatron GPT [\d.]+B$", digits=2),
    Relation("hfu_pct", ("tflops_per_gpu",), lambda r: r / 3.12, only=r"Megatron GPT [\d.]+B$"),
    Relation("mfu_pct", ("tflops_per_gpu",), lambda r: r / 9.89, only=r"Megatron H100"),
    Relation("mfu_pct", ("tflops_per_gpu",), lambda r: r / 9.89, only=r"Llama 3.1 405B \(", digits=2),
    Relation("days", ("tokens", *SIZES, "gpus", "tflops_per_gpu"), megatron_days, only=r"Megatron GPT .*(ZeRO-3|PTD)"),
    Relation(
        "days", ("params", "tokens", "gpus", "tflops_per_gpu"), days_of_eight, only=r"Megatron GPT.* (1024|3072) GPUs"
    ),
    Relation(
        "tflops_per_gpu",
        ("global_batch_seqs", *SIZES, "step_time_s", "gpus"),
        megatron_rate,
        only="MT-NLG|BLOOM prequel (181|196)",
    ),
    Relation(
        "mfu_pct",
        ("params", "layers", "hidden", "seq_len", "step_time_s", "global_batch_seqs", "gpus"),
        nanogpt_share,
        but={"nanoGPT GPT-2 124M (1xA100)": 37.35},
    ),
    Relation(
        "mfu_pct",
        ("params", "layers", "heads", "seq_len", "tokens_per_s_per_gpu"),
        lambda n, layers, heads, t, r: palm_share(n, layers, heads * 256, t, r, peak=275e12),
        only="PaLM",
    ),
    Relation(  # of the parameters that are no table of tokens read
        "mfu_pct",
        ("params", "layers", "hidden", "seq_len", "tokens_per_s_per_gpu"),
        lambda n, layers, width, t, r: palm_share(n - 32_000 * width, layers, width, t, r, peak=312e12),
        only="TinyLlama",
    ),
]

PROCESSORS = {
    "laptop 8-core AVX2 DDR5-5600 2ch": "laptop-8-cores",
    "desktop 16-core AVX2 DDR5-5600 2ch (7950X class)": "desktop-16-cores",
    "server 32-core AVX-512 DDR4-3200 8ch (Ice Lake class)": "server-32-cores",
    "server 96-core AVX-512 DDR5-4800 12ch (EPYC 9654 class)": "server-96-cores",
    "server 56-core Sapphire Rapids DDR5-4800 8ch": "server-56-cores",
}
FIGURES = ("flops", "pf_days", "gpu_hours", "days", "mfu_pct", "hfu_pct", "tflops_per_gpu", "step_time_s")
FIGURES += ("tokens_per_s_per_gpu", "energy_mwh", "tco2e", "cost_usd")
RUNS = table("training_compute")


def name_of(row: Row) -> str:
    return row["model"] + (f" ({row['kind']})" if row["model"] == "OPT-175B" else "")


@pytest.mark.parametrize("row", RUNS, ids=name_of)
def test_every_figure_of_a_run_is_met_or_listed(row: Row):
    met: set[str] = set()
    for relation in RELATIONS:
        if relation.holds_for(row):
            relation.check(row)
            met |= {relation.gives, *relation.of}
    missing = {column for column in FIGURES if row[column]} - met
    assert missing == reasons("training_compute", name_of(row)), row["model"]


def llama_of_65b(**changes: object) -> Model:
    said = json.loads((DATA / "configs" / "swiglu-65b.json").read_text())
    spec: Model = family_of_config(said).spec(said)
    for path, value in changes.items():
        spec = override(spec, {"out_bias": OUT_BIAS, "ffn": "layers.*.ffn.mixer"}.get(path, path), value)
    return spec


def normed(spec: Model) -> Model:
    for path in ("layers.*.mix.pre", "layers.*.ffn.pre", "norm"):
        spec = override(spec, path, LayerNorm())
    return spec


OUT_BIAS = "layers.*.mix.mixer.out_bias"
UNGATED = MLP(hidden=32768, act="silu", bias=False)
CUSTOM = {
    "rmsnorm tied": lambda: llama_of_65b(head=Tied()),
    "rmsnorm untied": llama_of_65b,
    "layernorm (weight+bias) tied": lambda: normed(llama_of_65b(head=Tied())),
    "rmsnorm, q/k/v bias only tied": lambda: llama_of_65b(head=Tied(), out_bias=False),
    "layernorm, q/k/v bias only tied": lambda: normed(llama_of_65b(head=Tied(), out_bias=False)),
    "layernorm, q/k/v bias only untied": lambda: normed(llama_of_65b(out_bias=False)),
    "rmsnorm, 2-matrix MLP (no gate) tied": lambda: llama_of_65b(head=Tied(), ffn=UNGATED),
    "rmsnorm, 2-matrix MLP (no gate) untied": lambda: llama_of_65b(ffn=UNGATED),
}
UNLEARNT = LayerNorm(weight=False, bias=False)
SPECS: dict[str, Callable[[], Model]] = {
    "nanogpt-124M-bias-false": lambda: gpt2.gpt2(width=768, layers=12, heads=12, bias=False, act="gelu"),
    "gpt3-13B": lambda: gpt2.gpt3(width=5140, layers=40, heads=20),
    "gpt3-13B (d_model 5120)": PRESETS["gpt3-13b"],
    "bert-base-uncased (BertModel)": lambda: bert.bert(
        width=768, layers=12, heads=12, filling=False, pool=FirstToken()
    ),
    "bert-base-uncased (BertForPreTraining)": lambda: bert.bert(
        width=768, layers=12, heads=12, pool=FirstToken(classes=2)
    ),
    "bert-large-uncased (BertForPreTraining)": lambda: bert.bert(
        width=1024, layers=24, heads=16, pool=FirstToken(classes=2)
    ),
    "bert-base-uncased (BertForMaskedLM)": PRESETS["bert-base"],
    "mpt-7b (llm-foundry benchmark)": lambda: gpt2.mpt_recipe(width=4096, layers=32, heads=32),
    "palm-8B": lambda: palm.palm(width=4096, layers=32, heads=16, norm=UNLEARNT),
    "palm-540B": lambda: palm.palm(width=18432, layers=118, heads=48, norm=UNLEARNT),
} | {f"CUSTOM-65B {name}": make for name, make in CUSTOM.items()}
SHORT = {"gpt2-124M": "gpt2", "gpt2-355M": "gpt2-medium", "gpt2-774M": "gpt2-large", "gpt2-1558M": "gpt2-xl"}
RENAMED = [
    (r" \(main model\)$", ""),
    (r"-52b$", ""),
    ("gpt3-(small|medium|xl)", "gpt3"),
    ("^.*/flan", "flan"),
    ("^olmo2", "olmo-2"),
]
RENAMED += [
    ("^rwkv(?=[45]-)", "rwkv-"),
    ("^llama2", "llama-2"),
    (r"^llama3(?=[.-])", "llama-3"),
    ("^olmo-7b$", "olmo-7b-0424"),
]


def preset(name: str) -> str:
    name = SHORT.get(name, name.lower())
    for pattern, ours in RENAMED:
        name = re.sub(pattern, ours, name)
    return name


@pytest.mark.parametrize("row", table("parameters"), ids=lambda row: row["name"])
def test_every_model_has_its_parameters_or_is_listed(row: Row):
    """To the unit, those that a token uses too; each by the name of a preset, or a family's function with the sizes."""
    name = row["name"]
    make = SPECS.get(name) or PRESETS.get(preset(name))
    if reasons("model_params", name):
        assert make is None or books.params(make()) != int(row["total_params"])
        return
    assert make is not None, f"{name} is neither built nor listed"
    spec = make()
    assert books.params(spec) == int(row["total_params"])
    assert int(row["active_params"] or 0) in (0, books.active_params(spec))
    tables = int(row["token_embedding_params"]) + int(row["position_embedding_params"])
    others = {"bert": 2 * int(row["d_model"]), "t5": 2 * 32 * int(row["n_heads"] or 0)}  # segments, distances
    assert books.embedding_params(spec) == tables + others.get(re.split("[-/]", name)[0], 0)


@pytest.mark.parametrize("row", table("memory_examples"), ids=lambda row: row["id"])
def test_every_example_of_memory_is_met_or_listed(row: Row):
    met = row["id"] in BYTES or "5as/h" in row["id"] or row["id"] in KEYS_AND_VALUES
    assert met != bool(reasons("memory_examples", row["id"])), row["id"]
    if row["id"] in BYTES:
        bytes_, unit = BYTES[row["id"]]
        digits = 2 if row["id"] == "bloom-ckpt-full" else 4  # 2.3 TB
        # Some sources cut the last digit, or round it up; nobody prints more than one too many or too few.
        assert bytes_ / unit == pytest.approx(
            number(row["measured_gb"]), abs=2 * rounding(row["measured_gb"].removesuffix(".0"), digits=digits)
        )


def test_the_docs_list_no_row_that_is_not_there():
    keys = {"training_compute": RUNS, "model_params": table("parameters")}
    keys |= {name: table(name) for name in ("memory_examples", "chinchilla")}
    for name, rows in keys.items():
        names = [
            row.get("name") or row.get("id") or (name_of(row) if "model" in row else f"{row['table']} {row['row']}")
            for row in rows
        ]
        for pattern, _, reason in excepted(name):
            assert reason and fnmatch.filter(names, pattern), pattern


T5_3B, T5_LARGE, LARGEST, BLOOM = 2_851_598_336, 737_668_096, 32.9e6, 176_247_271_424
GB, GIB, MIB = 1e9, 2.0**30, 2.0**20
OPTIMIZER_SHARED = BytesPerParam(weights=4, gradients=0, optimizer=16)
ALL_SHARED = BytesPerParam(weights=0, gradients=0, optimizer=18)
BYTES = {
    "zero-7.5B-P_os (stage 1)": (published.MIXED_ADAM.on_each(7.5e9, stage=1, devices=64), GB),
    "zero-7.5B-P_os+g (stage 2)": (published.MIXED_ADAM.on_each(7.5e9, stage=2, devices=64), GB),
    "zero-7.5B-P_os+g+p (stage 3)": (published.MIXED_ADAM.on_each(7.5e9, stage=3, devices=64), GB),
    "ds-t5-3b-ZeRO-2 no offload per GPU": (OPTIMIZER_SHARED.on_each(T5_3B, stage=1, devices=8), GIB),
    "ds-t5-3b-ZeRO-2 offload_optimizer per GPU": (2 * T5_3B, GIB),
    "ds-t5-3b-ZeRO-2 per CPU": (1.5 * 8 * 4 * T5_3B, GIB),  # each of 8 processes makes the weights in float32
    "ds-t5-3b-ZeRO-3 no offload per GPU": (ALL_SHARED.on_each(T5_3B, stage=1, devices=8) + 4 * LARGEST, GIB),
    "ds-t5-3b-ZeRO-3 offload_optimizer per CPU, zero_init": (1.5 * 16 * T5_3B, GIB),
    "ds-t5-large-largest layer memory": (4 * LARGEST, MIB),
    "ds-t5-large-case1 (no offload, 4 GPUs)": (ALL_SHARED.on_each(T5_LARGE, stage=1, devices=4) + 4 * LARGEST, MIB),
    "ds-t5-large-case2 (full offload)": (4 * LARGEST, MIB),
    "bloom-ckpt-bf16": (2 * BLOOM, GIB),
    "bloom-ckpt-full": (14 * BLOOM, GIB),
    "sb-train-70b-params": (BytesPerParam(weights=2, gradients=0, optimizer=8).on_each(70e9, stage=0, devices=1), GB),
    "rule-24gb": (published.FLOAT32_ADAM.on_each(1e9, stage=0, devices=1) + 8e9, GB),  # 8 for what is kept, its guess
}
KEYS_AND_VALUES = {"rasbt-kv-mha", "rasbt-kv-gqa", "sb-kv-llama13b", "sb-kv-llama70b", "kv-LLaMA-3.1-405B"}
KEYS_AND_VALUES |= {"mqa-llama2-7b", "kv-Qwen2.5-72B"}  # in test_published.py


def chinchilla(row: Row) -> dict[str, int]:
    sizes = {"layers": "n_layers", "width": "d_model", "heads": "n_heads", "hidden": "ffw"}
    return {ours: int(row[theirs]) for ours, theirs in sizes.items()}


@pytest.mark.parametrize("row", table("chinchilla"), ids=lambda row: f"{row['table']} {row['row']}")
def test_every_row_of_chinchilla_is_met_or_listed(row: Row):
    """Tables 2, 3, A3 and the laws in test_scaling.py; the sizes of table A9 and the operations of A4 here."""
    what = row["table"]
    if what.startswith("Table A9"):
        found = published.chinchilla_params(**chinchilla(row), head_width=int(row["kv_size"]), vocab=32_000)
        assert abs(found - int(row["params"])) <= max(
            1e6, 1.2e-4 * int(row["params"])
        )  # cut, not rounded, and more so the larger
    elif what.startswith("Table A4"):
        sizes = chinchilla(row)
        vocab, each = int(row["vocab"]), sizes["width"] // sizes["heads"]
        assert published.chinchilla_params(**sizes, head_width=each, vocab=vocab) == int(row["params"])
        flops = published.chinchilla_row_flops(**sizes, context=int(row["seq_len"]))
        assert flops == int(row["flops"])
        ratio = flops / (6 * int(row["params"]) * int(row["seq_len"]))
        assert ratio == pytest.approx(float(row["ratio_exact_to_6nd"]), abs=1e-6)
    else:
        held = re.match(r"Table (2|3|A3)|Kaplan|nanoGPT check|parametric loss (?!.* exact)", f"{what} {row['row']}")
        assert bool(held) != bool(reasons("chinchilla", f"{what} {row['row']}")), row["row"]


@pytest.mark.parametrize("row", table("carbon_intensity"), ids=lambda row: f"{row['level']} {row['code']}")
def test_every_place_has_its_carbon_or_is_listed(row: Row):
    if row["level"] in ("generation_source", "paper"):  # no places: what papers assumed goes in as an argument
        assert reasons("carbon_intensity", row["level"])
        return
    if reasons("carbon_intensity", f"{row['level']} {row['code']}"):
        assert grids.find(row["code"]).grams_per_kwh != number(row["g_co2e_per_kwh"])
        return
    asked = "world" if row["level"] == "world" else row["code"]
    assert grids.find(asked).grams_per_kwh == pytest.approx(number(row["g_co2e_per_kwh"]))


@pytest.mark.parametrize("row", table("hardware"), ids=lambda row: row["name"])
def test_every_device_has_its_figures_or_is_listed(row: Row):
    name = re.sub("[ ]+", "-", re.sub(r"^Apple | chip$| \(.*\)$", "", row["name"]))
    name = PROCESSORS.get(row["name"], name)
    if reasons("hardware", row["name"]):
        with pytest.raises(ConfigError, match="there is no device"):
            hardware.parse(name)
        return
    device = hardware.parse(name)[1]
    weak = set(row["recalled_fields"].split(";"))
    told = {
        "memory_gb": device.memory_bytes / 2**30,
        "memory_bandwidth_gb_s": device.bandwidth_bytes_per_second / 1e9,
        "tdp_w": device.watts,
    }
    rates = {"fp32": "float32", "tf32": "tf32", "fp16": "float16", "bf16": "bfloat16", "fp8": "float8"}
    told |= {f"{key}_tflops": device.flops_per_second.get(dtype, 0) / 1e12 for key, dtype in rates.items()}
    told["int8_tops"] = device.flops_per_second.get("int8", 0) / 1e12
    for key, figure in told.items():
        if row[key] and key not in weak:
            assert figure == pytest.approx(float(row[key])), key
    if row["price_usd_per_h"] and "recalled" not in row["price_source"]:
        assert device.usd_per_hour == float(row["price_usd_per_h"])


@pytest.mark.parametrize("row", table("hardware_prices"), ids=lambda row: f"{row['accelerator']} {row['provider']}")
def test_prices_of_machines_are_those_of_their_devices(row: Row):
    hour = published.cost_usd(device_hours=number(row["gpus"]), usd_per_hour=number(row["usd_per_gpu_h"]))
    assert hour == pytest.approx(number(row["usd_per_h_instance"]), rel=1e-4)
