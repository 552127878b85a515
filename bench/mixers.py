"""Training with each mixer on a processor: beside transformers' and torch's own, and as the text grows longer.

    python bench/mixers.py [PAIR ...] [--contexts 512 4096] [--tokens 4096] [--rounds 5] [--most 300]
    python bench/mixers.py --grow [MIXER ...] [--rounds 3] [--page FILE.html]

A pair is one model of about 10 million parameters, here and there, of which both sides take training steps in turns:
float32, fused AdamW and the same settings of the allocator on both, ``--tokens`` tokens a step in rows of the context;
ours with its own loss, which is what it trains with, theirs with PyTorch's.
Ours is read from transformers' own configuration, so that both are the same model; transformers has no plain linear
attention, so MiniMax's (with decays, of one expert) stands beside RetNet's with heads of the same widths. A turn is a
step, or as many as take 5 seconds, for the first one after a pause is slower than those after it. Printed are
tokens/s (median of the rounds), the ratio round by round (median, lowest, highest) and the memory above the program's.
transformers' loops over tokens take minutes for a step of 4,096: after ``--most`` seconds a pair ends, and where even
one round took longer, that round, which is the first one, is all that is told.

``--grow`` takes a row a step, from 512 to 16,384 tokens, through models of 8 layers of each mixer, and tells seconds
and memory; the page draws both over the length, and the last column is how often the seconds doubled while the length
did from 2,048 on: 1 where they grow in proportion to it, 2 with its square.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sides

WIDTH, LAYERS, VOCAB, HEADS = 256, 8, 4096, 4
LONGEST = 16_384
GROWING = tuple(512 * 2**i for i in range(6))
LINES = 8  # of a drawing
TURN = 5.0  # seconds that a side takes steps for at least: one step after a pause is slower than those after it


def mamba() -> tuple[Any, str]:
    from transformers import MambaConfig

    return MambaConfig(**common(320, 12), state_size=16, tie_word_embeddings=True), "MambaForCausalLM"


def mamba2() -> tuple[Any, str]:
    from transformers import Mamba2Config

    sizes = {"num_heads": 10, "head_dim": 64, "state_size": 64, "n_groups": 1, "tie_word_embeddings": True}
    return Mamba2Config(**common(320, 12), **sizes), "Mamba2ForCausalLM"


def rwkv4() -> tuple[Any, str]:
    from transformers import RwkvConfig

    return RwkvConfig(**common(256, 9)), "RwkvForCausalLM"


def lightning() -> tuple[Any, str]:
    from transformers import MiniMaxConfig

    heads = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": WIDTH // HEADS}
    experts = {"num_local_experts": 1, "num_experts_per_tok": 1, "intermediate_size": 3 * WIDTH}
    kinds = {"layer_types": ["linear_attention"] * LAYERS, "max_position_embeddings": LONGEST}
    return MiniMaxConfig(**common(WIDTH, LAYERS), **heads, **experts, **kinds), "MiniMaxForCausalLM"


def gated_delta() -> tuple[Any, str]:
    from transformers import Qwen3NextConfig

    heads = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": WIDTH // HEADS}
    linear = {"linear_num_key_heads": HEADS, "linear_num_value_heads": HEADS}
    widths = {"linear_key_head_dim": WIDTH // HEADS, "linear_value_head_dim": WIDTH // HEADS}
    # The last layer has attention and experts, as every model of the family has some.
    linear_layers, experts = ["linear_attention"] * (LAYERS - 1), {"num_experts": 2, "num_experts_per_tok": 1}
    kinds = {"layer_types": [*linear_layers, "full_attention"], "mlp_only_layers": list(range(LAYERS - 1))}
    hidden = {"intermediate_size": 3 * WIDTH, "moe_intermediate_size": WIDTH, "shared_expert_intermediate_size": WIDTH}
    sizes = {**heads, **linear, **widths, **kinds, **experts, **hidden}
    return Qwen3NextConfig(**common(WIDTH, LAYERS), **sizes), "Qwen3NextForCausalLM"


def common(width: int, layers: int) -> dict[str, Any]:
    """Returns what all configurations say."""
    return {"hidden_size": width, "num_hidden_layers": layers, "vocab_size": VOCAB, "use_cache": False}


CONFIGS = {"mamba": mamba, "mamba2": mamba2, "rwkv-4": rwkv4, "linear": lightning, "gated-deltanet": gated_delta}
PAIRS = (*CONFIGS, "lstm")


def our_model(pair: str) -> Any:
    import groundup as gu
    from groundup.families.recurrent import lstm

    if pair == "lstm":
        return lstm(width=640, vocab=VOCAB).build()
    if pair == "linear":
        return decoder("retention").build()
    config, _ = CONFIGS[pair]()
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return gu.spec(f"{folder}/config.json").build()


def their_model(pair: str) -> Any:
    import torch
    import transformers

    if pair != "lstm":
        config, name = CONFIGS[pair]()
        return getattr(transformers, name)(config)

    class TorchLSTM(torch.nn.Module):
        """The same model of torch's own parts."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(VOCAB, width)
            self.lstm = torch.nn.LSTM(width, width, num_layers=2, batch_first=True)
            self.head = torch.nn.Linear(width, VOCAB)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(self.embed(ids))[0])

    return TorchLSTM(640)


def mixers() -> dict[str, Any]:
    """Returns the mixers whose growth is told, by name."""
    from groundup.families.linear_attention import retention
    from groundup.mixers.attention import Attention
    from groundup.mixers.block_sparse import BlockSparseAttention
    from groundup.mixers.chunked import ChunkedAttention
    from groundup.mixers.gated_conv import GatedConv
    from groundup.mixers.griffin import RGLRU
    from groundup.mixers.hashed import HashedAttention
    from groundup.mixers.linear_attention import LinearAttention
    from groundup.mixers.local_global import LocalGlobalAttention
    from groundup.mixers.low_rank_attention import LowRankAttention
    from groundup.mixers.mamba import Mamba
    from groundup.mixers.mamba2 import Mamba2
    from groundup.mixers.recurrent import LSTM
    from groundup.mixers.rwkv import RWKV4
    from groundup.mixers.rwkv5 import RWKV5
    from groundup.mixers.rwkv7 import RWKV7
    from groundup.mixers.s4 import S4, S4D
    from groundup.mixers.s5 import S5
    from groundup.parts.decay import HeadDecay, LowRankDecay
    from groundup.parts.feature import Plain, RandomPositive, UnitLength
    from groundup.parts.mask import Window
    from groundup.parts.reading import Gated, Normed
    from groundup.parts.update import Delta

    heads = {"heads": HEADS, "head_width": WIDTH // HEADS}
    attention = Attention(kv_heads=HEADS, **heads)
    linear = LinearAttention(heads=HEADS, key_heads=HEADS, key_width=WIDTH // HEADS, value_width=WIDTH // HEADS)
    delta = linear.replace(feature=UnitLength(), update=Delta(), conv=4)
    return {
        "attention": attention,
        "window of 512": attention.replace(mask=Window(512)),
        "chunked": ChunkedAttention(**heads),
        "hashed": HashedAttention(factors=(64,), **heads),
        "longformer": LocalGlobalAttention(reach=256, **heads),
        "bigbird": BlockSparseAttention(block=64, length=LONGEST, **heads),
        "linformer": LowRankAttention(rank=256, length=LONGEST, **heads),
        "linear": linear,
        "performer": linear.replace(feature=RandomPositive(features=128)),
        "retention": retention(width=WIDTH, head_width=WIDTH // HEADS).replace(value_width=WIDTH // HEADS),
        "gla": linear.replace(feature=Plain(), decay=LowRankDecay(), reading=Gated()),
        "deltanet": delta.replace(reading=Normed()),
        "gated-deltanet": delta.replace(decay=HeadDecay(), reading=Gated()),
        "mamba": Mamba(states=16, rank=16),
        "mamba2": Mamba2(heads=8, head_width=64, groups=1, states=64),
        "rwkv-4": RWKV4(channels=WIDTH),
        "rwkv-5": RWKV5(**heads),
        "rwkv-7": RWKV7(decay_rank=32, rate_rank=32, gate_rank=64, **heads),
        "griffin": RGLRU(channels=WIDTH, heads=HEADS),
        "s4": S4(states=64),
        "s4d": S4D(states=64),
        "s5": S5(states=WIDTH),
        "convolution": GatedConv(taps=4),
        "lstm": LSTM(),
    }


def decoder(name: str) -> Any:
    """Returns a model with this mixer; one that reads all at once is an encoder's."""
    from groundup.mixers.mlp import GatedMLP
    from groundup.model.decoder import Decoder
    from groundup.model.encoder import Encoder
    from groundup.model.layer import Layer
    from groundup.model.residual import Residual

    layer = Layer(mix=Residual(mixers()[name]), ffn=Residual(GatedMLP(hidden=3 * WIDTH)))
    kind = Encoder if name in ("longformer", "bigbird", "linformer") else Decoder
    return kind(width=WIDTH, vocab=VOCAB, context=LONGEST, layers=(layer,) * LAYERS)


def serve(form: str, name: str, rows: int, context: int) -> None:
    """Is one side: takes steps of training."""
    import torch
    from torch.nn import functional as F

    from groundup.context import Batch
    from groundup.model.model import ModelModule
    from groundup.objectives.loss import of_targets
    from groundup.planner.measure import peak_rss_bytes
    from groundup.training.allocator import keep_freed_memory

    torch.set_num_threads(2)
    torch.manual_seed(0)
    keep_freed_memory()
    models = {"ours": our_model, "theirs": their_model, "grown": lambda name: decoder(name).build()}
    model = models[form](name).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(0, VOCAB, (rows, context + 1), generator=torch.Generator().manual_seed(0))

    batch = Batch(ids=ids[:, :-1], targets=ids[:, 1:])

    def loss() -> torch.Tensor:
        if isinstance(model, ModelModule):
            return of_targets(model, batch).mean
        out = model(batch.ids)
        logits = out if isinstance(out, torch.Tensor) else out.logits
        return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    sides.serve(step, parameters=sum(p.numel() for p in model.parameters()), program_bytes=peak_rss_bytes())


def compare(pair: str, *, rows: int, context: int, rounds: int, most: float) -> None:
    """Prints the line of a pair at one context."""
    both = [sides.Side(form, pair, str(rows), str(context)) for form in ("ours", "theirs")]
    began = time.monotonic()
    for side in both:
        side.seconds.append(side.ask())
    turns = [max(1, math.ceil(TURN / side.seconds[0])) for side in both]
    while len(both[0].seconds) <= rounds and time.monotonic() - began < most:
        for side, steps in zip(both, turns, strict=True):
            side.seconds.append(side.ask(steps) / steps)
    for side in both:
        side.close()
        side.seconds = side.seconds[1:] or side.seconds  # the first one warms up
    ours, theirs = both
    speeds = [rows * context / side.median for side in both]
    memory = [(side.peak_bytes - side.facts["program_bytes"]) / 1e6 for side in both]
    middle, low, high = sides.ratios(ours.seconds, theirs.seconds)
    parameters = " ".join(f"{side.facts['parameters'] / 1e6:5.1f}M" for side in both)
    print(
        f"{pair:15} {parameters}  {rows} x {context:<6,}{speeds[0]:9,.0f} {speeds[1]:9,.0f} tokens/s"
        f"{middle:8.2f} ({low:.2f} to {high:.2f}) times as fast{memory[0]:8,.0f} {memory[1]:8,.0f} MB"
        f"   {len(ours.seconds)} rounds",
        flush=True,
    )


def grow(names: Sequence[str], *, rounds: int, page: Path | None) -> None:
    """Prints the seconds and the memory of a step by the length of the text, and draws them."""
    seconds: dict[str, list[tuple[float, float]]] = {}
    memory: dict[str, list[tuple[float, float]]] = {}
    print(f"{'':15} {'size':>6}" + "".join(f"{context:>18,}" for context in GROWING) + "   order")
    for name in names:
        size = 0.0
        for context in GROWING:
            side = sides.Side("grown", name, "1", str(context))
            side.ask()
            side.seconds = [side.ask() for _ in range(rounds)]
            side.close()
            seconds.setdefault(name, []).append((context, side.median))
            memory.setdefault(name, []).append((context, side.peak_bytes - side.facts["program_bytes"]))
            size = side.facts["parameters"]
        cells = (f"{s:8.2f} s{m / 1e6:5,.0f} MB" for (_, s), (_, m) in zip(seconds[name], memory[name], strict=True))
        order = math.log2(seconds[name][-1][1] / seconds[name][2][1]) / math.log2(GROWING[-1] / GROWING[2])
        print(f"{name:15} {size / 1e6:5.1f}M" + "".join(f"{cell:>18}" for cell in cells) + f"{order:8.2f}", flush=True)
    if page is not None:
        page.write_text(drawn(seconds, memory))


def drawn(seconds: dict[str, Any], memory: dict[str, Any]) -> str:
    """Returns a page with drawings of both, of a few mixers each."""
    from groundup.planner import units
    from groundup.recipes import charts

    tokens: Callable[[float], str] = "{:,.0f}".format
    parts = ["<h1>A step of training by the length of the text</h1>"]
    for title, measured, write in (
        ("Seconds", seconds, "{:.3g} s".format),
        ("Memory above the program's", memory, units.bytes_),
    ):
        parts.append(f"<h2>{title}</h2>")
        names = list(measured)
        for first in range(0, len(names), LINES):
            series = {name: measured[name] for name in names[first : first + LINES]}
            parts.append(charts.lines(series, logarithmic=True, x=tokens, y=write))
    return charts.page("Mixers and long texts", parts)


def main() -> None:
    if sides.SERVE in sys.argv:
        form, name, rows, context = sys.argv[-4:]
        serve(form, name, int(rows), int(context))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"pairs, of {', '.join(PAIRS)}; or mixers to grow")
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=float, default=300.0, help="seconds after which a pair ends")
    parser.add_argument("--grow", action="store_true")
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    known = mixers() if given.grow else PAIRS
    if unknown := set(given.names) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if given.grow:
        grow(given.names or list(known), rounds=given.rounds, page=given.page)
        return
    pair = partial(compare, rounds=given.rounds, most=given.most)
    for name in given.names or PAIRS:
        for context in given.contexts:
            pair(name, rows=max(1, given.tokens // context), context=context)


if __name__ == "__main__":
    main()
