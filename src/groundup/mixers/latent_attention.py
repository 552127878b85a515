"""Multi-head latent attention: keys and values are made of a narrow latent of each token, which is all it remembers.

    c_t = N(W_c x_t);   r_t = R(W_r x_t);   q_t = [q_1, R(q_2)] of W_q x_t, or of W_qu N(W_qd x_t)
    out = W_o concat_h attend(q_t^h, [K_h c_s, r_s], V_h c_s)

R turns by place, N norms. Source: DeepSeek-AI 2024 (DeepSeek-V2, arXiv:2405.04434), section 2.1 and appendix C.
Letters: H heads, C width of the latent, K width of a key from it, R width of what turns, L width of a value.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.context import Context
from groundup.devices import for_products
from groundup.mixers.base import Mixer, MixerSpec
from groundup.mixers.kv import KVState
from groundup.ops import latent_attention as ops
from groundup.parts.linear import Linear
from groundup.parts.mask import Causal
from groundup.parts.norm import Norm, RMSNorm
from groundup.parts.position import Position, RoPE
from groundup.specs import Positive, ShareBelowOne, Size

MASK = Causal()


class LatentAttention(MixerSpec):
    """Softmax attention over keys and values that are made of a latent.

    Attributes:
        heads: heads of queries, keys and values.
        latent: the width of the latent.
        key_width: the width of what a head's key takes from it.
        turned_width: the width of what turns by place in each query, and in the keys of all heads alike.
        value_width: the width of a head's value.
        query_latent: the width of a latent that queries are made of; None makes them of the stream.
        position: how what turns learns its place.
        norm: the norm of latents.
        sharpness: what products of queries and keys are multiplied by besides their width to the power -1/2.
        dropout: the chance of each attention weight to be dropped in training.
    """

    heads: Size
    latent: Size
    key_width: Size
    turned_width: Size
    value_width: Size
    query_latent: Size | None = None
    position: Position = RoPE()
    norm: Norm = RMSNorm()
    sharpness: Positive = 1.0
    dropout: ShareBelowOne = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.position.of_heads(self.heads, self.turned_width)  # refuses heads that it has no places for

    @property
    def bias_heads(self) -> int | None:
        """How many heads read a bias that layers share; None means that none does."""
        return self.heads if self.position.reads_bias else None

    @property
    def hides(self) -> bool:
        """True: no token sees what comes after it."""
        return True

    @property
    def steady_until(self) -> int | None:
        """The longest text whose pieces give the whole: the position says it."""
        return self.position.steady_until

    def build(self, width: int) -> LatentAttentionMixer:
        """Returns the module for a stream of ``width``."""
        return LatentAttentionMixer(self, width)


class LatentAttentionMixer(Mixer):
    """The module of `LatentAttention`; ``down`` makes latents and what turns, ``up`` each head's keys and values."""

    def __init__(self, spec: LatentAttention, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.query_width = spec.key_width + spec.turned_width
        self.up_width = spec.key_width + spec.value_width
        queries = spec.heads * self.query_width
        if spec.query_latent is None:
            self.q = Linear(width, queries, bias=False, role="in")
        else:
            self.q = LowRank(width, spec.query_latent, queries, norm=spec.norm)
        self.down = Linear(width, spec.latent + spec.turned_width, bias=False, role="in")
        self.norm = spec.norm.build(spec.latent)
        self.up = Linear(spec.latent, spec.heads * self.up_width, bias=False, role="in")
        self.out = Linear(spec.heads * spec.value_width, width, bias=False, role="out")
        self.position = spec.position.of_heads(spec.heads, spec.turned_width)
        self.scale = self.query_width**-0.5 * spec.sharpness

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: KVState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the attended stream; with a state, over all that it holds and these tokens."""
        spec, place = self.spec, self.position
        plain, turned = self.q(x).unflatten(-1, (-1, self.query_width)).split([spec.key_width, spec.turned_width], -1)
        q = torch.cat([plain, place(turned, ctx)], -1).transpose(1, 2)  # (B, H, T, K+R)
        latent, rest = self.down(x).split([spec.latent, spec.turned_width], -1)
        latent, rest = for_products(self.norm(latent)), place(rest[:, :, None], ctx).squeeze(2)
        allowed, places = None, ctx.positions
        if state is None:
            allowed = MASK.within(ctx)
        else:
            k, v, places = state.append(rest[:, None], latent[:, None], ctx)
            rest, latent = k[:, 0].to(q.dtype), v[:, 0].to(q.dtype)
            if not latent.shape[1] == ctx.reach == x.shape[1]:  # else all rows begin here
                allowed = ctx.once(f"{MASK!r} over a state", lambda: MASK.over(ctx, keys=places))
        y = ops.attend(
            q,
            latent,
            rest,
            self.up.weight.unflatten(0, (spec.heads, -1)),
            allowed=allowed,
            causal=True,
            scale=self.scale,
            bias=place.bias(ctx, places),
            dropout=spec.dropout if self.training else 0.0,
        )
        return self.out(y.transpose(1, 2).flatten(2))

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> KVState:
        """Returns room for what turns, which is part of every key, and for latents, of which all else is made."""
        sizes = {"k": self.spec.turned_width, "v": self.spec.latent}
        return KVState(**{x: torch.zeros(rows, 1, max_len, n, device=device, dtype=dtype) for x, n in sizes.items()})

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of the cheaper line, less those that the map up is counted with for each token."""
        widths = {"latent": self.spec.latent, "rest": self.spec.turned_width, "up": self.up_width}
        cheaper = min(ops.products(tokens, seen, **widths))
        return 2 * self.spec.heads * (cheaper - tokens * self.up_width * self.spec.latent)


class LowRank(nn.Module):
    """A map in two steps with a norm between them."""

    def __init__(self, inputs: int, rank: int, outputs: int, *, norm: Norm) -> None:
        super().__init__()
        self.down = Linear(inputs, rank, bias=False, role="in")
        self.norm = norm.build(rank)
        self.up = Linear(rank, outputs, bias=False, role="in")

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows F"]:
        """Returns the mapped vectors."""
        return self.up(self.norm(self.down(x)))
