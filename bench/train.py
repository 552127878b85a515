"""Training speed and memory beside transformers with a plain PyTorch loop, interleaved, in one run.

    python bench/train.py [CONFIG ...] [--rounds 5] [--steps 2] [--json FILE]

Every side is a process of its own, warmed up first; then the sides take turns, so that a change in the machine's
speed hits all of them. Each side runs eager and compiled, and its faster form counts. "out of the box" leaves the
allocator as each side sets it; "same allocator" sets groundup's allocator settings on both sides. Matrix products
are in bfloat16 through autocast on both sides, the optimizer is fused AdamW with clipping on both. What is printed:
tokens/s (median of the rounds), the ratio round by round (median, lowest, highest), peak resident memory, and the
share of the measured bf16 matrix rate that 6 FLOPs per weight and token, and attention, make up.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sides

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Config:
    family: str
    layers: int
    width: int
    heads: int
    rows: int
    context: int
    vocab: int

    @property
    def tokens(self) -> int:
        return self.rows * self.context

    @property
    def hidden(self) -> int:
        return 4 * self.width if self.family == "gpt2" else 64 * round(self.width * 8 / 3 / 64)

    @property
    def train_flops(self) -> int:
        """Of one step: 6 per weight of a matrix and token, 12 L D T per token for attention."""
        maps = 2 if self.family == "gpt2" else 3
        weights = self.layers * (4 * self.width**2 + maps * self.width * self.hidden) + self.vocab * self.width
        return self.tokens * (6 * weights + 12 * self.layers * self.width * self.context)


CONFIGS: dict[str, Config] = {
    "gpt2-6x384-v4k": Config("gpt2", layers=6, width=384, heads=6, rows=16, context=256, vocab=4096),
    "gpt2-6x384-v50k": Config("gpt2", layers=6, width=384, heads=6, rows=16, context=256, vocab=50304),
    "gpt2-124m": Config("gpt2", layers=12, width=768, heads=12, rows=2, context=512, vocab=50257),
    "llama-8x512": Config("llama", layers=8, width=512, heads=8, rows=8, context=512, vocab=4096),
}


def our_step(config: Config, *, compiled: bool) -> Callable[[], float]:
    import torch

    from groundup.context import Batch
    from groundup.families.gpt2 import gpt2
    from groundup.families.llama import llama
    from groundup.objectives.next_token import next_token
    from groundup.optim.optimizers import AdamW
    from groundup.optim.schedules import Constant
    from groundup.training.budget import Steps
    from groundup.training.steps import steps

    sizes = {"width": config.width, "layers": config.layers, "heads": config.heads, "vocab": config.vocab}
    if config.family == "gpt2":
        spec = gpt2(**sizes, context=config.context)
    else:
        spec = llama(**sizes, hidden=config.hidden, context=config.context, tied=True)
    model = spec.build()
    if compiled:
        model.hidden = torch.compile(model.hidden)

    def batch(number: int) -> Batch:
        ids = torch.randint(0, config.vocab, (config.rows, config.context + 1), generator=generator(number))
        return Batch(ids=ids[:, :-1], targets=ids[:, 1:])

    run = steps(
        model,
        batch,
        next_token,
        AdamW(lr=1e-4).build(model),
        Constant(),
        until=Steps(10**9),
        dtype=torch.bfloat16,
    )
    return lambda: next(run).loss


def their_step(config: Config, *, compiled: bool) -> Callable[[], float]:
    import torch
    import torch.nn.functional as F
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if config.family == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=config.vocab,
                n_positions=config.context,
                n_embd=config.width,
                n_layer=config.layers,
                n_head=config.heads,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                use_cache=False,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=config.vocab,
                hidden_size=config.width,
                intermediate_size=config.hidden,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.context,
                tie_word_embeddings=True,
                use_cache=False,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
    model.train()
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    number = 0

    def step() -> float:
        nonlocal number
        ids = torch.randint(0, config.vocab, (config.rows, config.context + 1), generator=generator(number))
        number += 1
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(ids[:, :-1]).logits.float()
            loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def generator(number: int) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(number)


def serve(name: str, form: str) -> None:
    """Is one side in one form."""
    import torch

    from groundup.training.allocator import keep_freed_memory

    torch.set_num_threads(2)
    if "allocator" in form:
        keep_freed_memory()
    side = our_step if "ours" in form else their_step
    sides.serve(side(CONFIGS[name], compiled="compile" in form))


def matrix_rate() -> float:
    """Bfloat16 FLOP/s of a 2048-cubed product: the best of ten."""
    import torch

    torch.set_num_threads(2)
    a, b = (torch.randn(2048, 2048, dtype=torch.bfloat16) for _ in range(2))
    best = 1e9
    for _ in range(10):
        began = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - began)
    return 2 * 2048**3 / best


# groundup sets the allocator itself, so its form out of the box is the one with the allocator set.
KINDS = (
    ("ours eager allocator", "ours compile allocator"),
    ("theirs eager", "theirs compile"),
    ("theirs eager allocator", "theirs compile allocator"),
)
FORMS = tuple(form for kind in KINDS for form in kind)


def compare(name: str, config: Config, *, rounds: int, steps: int) -> dict[str, Any]:
    forms = {form: sides.Side(name, form) for form in FORMS}
    for side in forms.values():
        side.ask(2)
    for _ in range(rounds):
        for side in forms.values():
            side.seconds.append(side.ask(steps))
    for side in forms.values():
        side.close()
    rate, (ours, out_of_the_box, same) = matrix_rate(), (fastest(forms, kind) for kind in KINDS)
    speeds = {form: config.tokens * steps / side.median for form, side in forms.items()}
    return {
        "config": name,
        "forms": {
            form: {"tokens_per_second": speeds[form], "peak_bytes": side.peak_bytes} for form, side in forms.items()
        },
        "out of the box": ratios(forms[ours], forms[out_of_the_box]),
        "same allocator": ratios(forms[ours], forms[same]),
        "matrix_flops_per_second": rate,
        "share_of_matrix_rate": config.train_flops / config.tokens * speeds[ours] / rate,
    }


def fastest(forms: dict[str, sides.Side], kind: Sequence[str]) -> str:
    """Returns the faster of the forms of a kind."""
    return min(kind, key=lambda form: forms[form].median)


def ratios(ours: sides.Side, theirs: sides.Side) -> dict[str, Any]:
    return {
        "sides": " / ".join(side.which[1] for side in (ours, theirs)),
        "speed": list(sides.ratios(ours.seconds, theirs.seconds)),
        "memory": ours.peak_bytes / theirs.peak_bytes,
    }


def show(result: dict[str, Any]) -> None:
    print(f"\n{result['config']}")
    for form, figures in result["forms"].items():
        gib = figures["peak_bytes"] / 2**30
        print(f"  {form:28s} {figures['tokens_per_second']:8.0f} tokens/s   peak {gib:5.2f} GiB")
    for title in ("out of the box", "same allocator"):
        row = result[title]
        middle, low, high = row["speed"]
        print(f"  {title:16s} {middle:.2f} times the tokens/s ({low:.2f} to {high:.2f}), "
              f"{row['memory']:.2f} of the memory   [{row['sides']}]")  # fmt: skip
    print(f"  share of the matrix rate {result['share_of_matrix_rate']:.0%} of "
          f"{result['matrix_flops_per_second'] / 1e9:.0f} GFLOP/s", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = []
    for name in arguments.configs or CONFIGS:
        results.append(compare(name, CONFIGS[name], rounds=arguments.rounds, steps=arguments.steps))
        show(results[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    if sides.SERVE in sys.argv:
        serve(*sys.argv[-2:])
    else:
        main()
