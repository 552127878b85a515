"""Writing by masked diffusion: all is hidden at first, and each of N steps fills in an equal share of it for good.

Which places come first is drawn, as the hiding was in training, or by how sure the model is of what it would put there.
Sources: Sahoo et al. 2024 (MDLM, arXiv:2406.07524), section 3.2.3; Nie et al. 2025 (LLaDA, arXiv:2502.09992),
section 2.4; by sureness: Chang et al. 2022 (MaskGIT, arXiv:2202.04200), section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from groundup.errors import GenerationError
from groundup.infer.fill import check_head
from groundup.infer.ids import as_rows
from groundup.model.encoder import EncoderModel

Order = Literal["confidence", "random"]


@torch.no_grad()
def diffuse(
    model: EncoderModel,
    rows: Sequence[Sequence[int]],
    *,
    mask: int,
    steps: int,
    order: Order = "confidence",
    temperature: float = 1.0,
    seed: int = 0,
    vocab: int | None = None,
) -> Int[Tensor, "B T"]:
    """Returns rows of ids with their masks filled in.

    Args:
        model: learnt `groundup.objectives.diffusion.MaskedDiffusion`; it is put into evaluation mode.
        rows: of equal length.
        mask: the id that stands for a hidden token.
        steps: in how many steps; the more, the more each token knows of the others.
        order: which of them come first, ``confidence`` or ``random``.
        temperature: logits are divided by it; 0 takes the likeliest token.
        seed: of what is drawn.
        vocab: choose among the ids below this; None means among all.

    Raises:
        GenerationError: a setting or the ids cannot be used, or the model has no head.
    """
    check_head(model)
    if not isinstance(steps, int) or steps < 1:
        raise GenerationError(f"steps={steps!r} fill in nothing; choose a whole number from 1 on")
    if order not in get_args(Order):
        raise GenerationError(f"order={order!r} is unknown; choose from {', '.join(get_args(Order))}")
    if not 0 <= temperature < math.inf:
        raise GenerationError(f"temperature={temperature} is no temperature; choose a number of at least 0")
    model.eval()
    ids = as_rows([list(row) for row in rows], model.spec, device=model.embed.table.device)
    noise = torch.Generator(ids.device).manual_seed(seed)
    hidden = (ids == mask).sum(1)
    for step in range(steps):
        left = (hidden * (steps - 1 - step) / steps).round().long()  # hidden after this step, (B,)
        logits = model(ids)[..., :vocab].clone()
        logits[..., mask] = -math.inf
        chosen, sure = _chosen(logits, temperature=temperature, noise=noise)
        if order == "random":
            sure = torch.rand(sure.shape, generator=noise, device=sure.device)
        open_places = ids == mask
        rank = sure.masked_fill(~open_places, -math.inf).argsort(1, descending=True).argsort(1)
        now = open_places & (rank < (open_places.sum(1) - left)[:, None])
        ids = torch.where(now, chosen, ids)
    return ids


def _chosen(logits: Tensor, *, temperature: float, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """A token for each place, (B, T), and the probability that the model gives it."""
    chances = logits.softmax(-1)
    if temperature == 0:
        chosen = chances.argmax(-1)
    else:
        drawn = (logits / temperature).softmax(-1).flatten(0, 1)
        chosen = torch.multinomial(drawn, 1, generator=noise).view(chances.shape[:2])
    return chosen, chances.gather(-1, chosen[..., None])[..., 0]
