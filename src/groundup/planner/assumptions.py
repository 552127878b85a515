"""What a plan takes for granted, said in sentences, and where its rules come from."""

from __future__ import annotations

from groundup.planner import units
from groundup.planner.memory import PROCESS_BYTES, SLACK_SHARE

CHINCHILLA_TOKENS_PER_PARAM = 20  # Hoffmann et al. 2022 (arXiv:2203.15556), table 3: 400M to 8.0B, 1B to 20.2B, ...
BATCH_TOKENS = 2**19  # GPT-3's smallest sizes: 0.5M, Brown et al. 2020 (arXiv:2005.14165), table 2.1

SOURCES = (
    "Operations: 2 for each weight and token in the forward, attention in full; Chowdhery et al. 2022, appendix B.",
    "20 tokens for each parameter: Hoffmann et al. 2022 (arXiv:2203.15556), table 3.",
    "Loss: Besiroglu et al. 2024 (arXiv:2404.10102), of the runs of Hoffmann et al. 2022.",
    "Petaflop/s-days: Brown et al. 2020 (arXiv:2005.14165), appendix D.",
    "Memory: the model's own parts, rehearsed without memory on PyTorch's meta device.",
    "Time: rates of PyTorch's kernels measured on this machine.",
)


def assumptions(*, device: str, **given: float | None) -> tuple[str, ...]:
    """What was assumed, in sentences; ``given`` are the settings that the caller may have left open."""
    left_open = {
        "tokens": f"It trains on {CHINCHILLA_TOKENS_PER_PARAM} tokens for each parameter (Hoffmann et al. 2022).",
        "batch_tokens": f"A step reads {BATCH_TOKENS:,} tokens, or one row where rows are longer.",
        "rows": "A micro-batch has as many rows as fit and make the products large enough.",
        "context": "Rows are as long as the model's context.",
        "watts": "The power that the machine draws is not known, so its energy is not told.",
    }
    if given["rows"]:
        left_open["batch_tokens"] = "A step is one micro-batch."
    always = [
        "Weights, gradients and optimizer state are float32; matrix products run in the stated precision by autocast.",
        "Backwards cost twice their forwards; norms, activations and softmax are not counted as operations.",
        "Time is that of steps alone: no data loading, saving or evaluation, no other load on the machine.",
    ]
    if device in SLACK_SHARE:
        always.append(
            f"The allocator wastes {units.percent(SLACK_SHARE[device])} of what comes and goes in a step, "
            f"and the program itself takes {units.bytes_(PROCESS_BYTES[device])} unless told otherwise."
        )
    return (*(sentence for name, sentence in left_open.items() if not given[name]), *always)
