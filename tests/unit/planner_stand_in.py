"""A machine with round figures, and small models, for the tests of the planner."""

from __future__ import annotations

from groundup.families.gpt2 import gpt2
from groundup.families.llama import llama
from groundup.planner.benchmark import SPECIALS, Sample
from groundup.planner.machine import Machine

LLAMA = llama(width=32, layers=3, heads=4, kv_heads=2, hidden=48, vocab=96, context=64)
GPT2 = gpt2(width=24, layers=2, heads=3, vocab=80, context=32)

MACHINE = Machine(
    processor="Abacus",
    device="cpu",
    cores=2,
    memory_bytes=8 * 2**30,
    torch="2",
    load=0.0,
    samples=(
        Sample("product", "float32", (1024, 256, 256), 1e11),
        Sample("product", "bfloat16", (1024, 256, 256), 2e11),
        Sample("attention", "bfloat16", (256, 256), 5e10),
        Sample("attention_backward", "bfloat16", (256, 256), 4e10),
        *(Sample(name, "bfloat16", (), 1e9) for name in SPECIALS),
        Sample("stream", "float32", (), 2e10),
        Sample("read", "float32", (), 3e10),
        Sample("launch", "float32", (), 1e6),
    ),
)
