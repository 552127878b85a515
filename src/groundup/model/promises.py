"""What a decoder's parts of the user's own are held to before they learn: a few tokens, one layer of each kind.

No token sees a later one; packed documents see nothing of each other; a text read in pieces with a state gives the
logits that it gives at once; padding changes nothing. The parts of groundup are held to the same by its tests.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from groundup.errors import SpecError, in_words
from groundup.mixers.base import Mixer
from groundup.model.decoder import Decoder, DecoderModel
from groundup.model.model import Model
from groundup.specs import walk

Law = Callable[[DecoderModel, Tensor, Tensor], str]  # what is wrong with a model, by ids and their logits; or ""

TOKENS, WORDS = 12, 64
CLOSE = 1e-3  # of the largest logit: far above rounding, and below what one token changes
PAGE = "docs/own-architecture.md"


def own_kinds(spec: Model) -> list[str]:
    """Returns the kinds of a model's specs that are not groundup's."""
    package = __name__.partition(".")[0]
    return sorted({type(part).__name__ for _, part in walk(spec) if type(part).__module__.partition(".")[0] != package})


@torch.no_grad()
def broken(spec: Model) -> list[str]:
    """Returns what a model's parts that are not groundup's do not keep, a sentence each, of what every mixer has to.

    Raises:
        SpecError: they show a token what comes after it, so that what they learn is worth nothing; or make of a stream
            what is of another shape or not finite.
    """
    own, tokens = own_kinds(spec), min(spec.longest - 1, TOKENS)  # one more is read after padding
    if not own or not isinstance(spec, Decoder) or tokens < 4:
        return []
    words, half, names = min(spec.vocab, WORDS), tokens // 2, " and ".join(own)
    model = spec.replace(vocab=words).with_distinct_layers().build().eval()
    for module in model.modules():
        if isinstance(module, Mixer):
            module.register_forward_hook(_check_output)
    ids = torch.randint(words, (2, tokens), generator=torch.Generator().manual_seed(0))
    try:
        whole = _moved(model, ids)
    except SpecError:
        raise
    except Exception as fault:  # whatever the user's own code raises
        return [f"{names}: {in_words(fault)}, when it was tried on {tokens} tokens ({PAGE})."]
    if not whole.isfinite().all():
        raise SpecError(f"{names}: the first weights give logits of nan or infinity; look for what divides by zero")
    other = torch.cat([ids[:, :half], (ids[:, half:] + 1) % words], 1)
    if _differ(model(other)[:, :half], whole[:, :half]):
        raise SpecError(
            f"{names}: a later token changes what is made of an earlier one, so the model would learn to copy what it "
            f"has to predict; let forward read what came before alone ({PAGE})"
        )
    steady = all(part.mixer.steady for layer in spec.layers for part in layer.every_part.values())
    laws = {"documents are packed": _documents}
    if steady and not spec.breaks:
        laws |= {"a text is read in pieces": _pieces, "rows are padded": _padding}
    faults = (_fault(law, case, model, ids, whole) for case, law in laws.items())
    return [f"{names}: {fault} ({PAGE})." for fault in faults if fault]


def _check_output(mixer: Mixer, given: tuple[Any, ...], made: Any) -> None:
    """Refuses what the residual stream could not take in."""
    x, name = given[0], type(mixer).__name__
    if not isinstance(made, Tensor) or made.shape != x.shape:
        what = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise SpecError(
            f"{name} makes {what} of a stream of {tuple(x.shape)}; a mixer returns the shape that it is given"
        )
    if x.isfinite().all() and not made.isfinite().all():
        raise SpecError(
            f"{name} makes nan or infinity of finite numbers with its first weights; look for what it divides by"
        )


def _moved(model: DecoderModel, ids: Tensor) -> Tensor:
    """Moves every weight, for those that start at zero hide faults, and returns the logits.

    Where these would not be finite, the weights stay the first ones, with which the model has to run anyway.
    """
    first, whole = deepcopy(model.state_dict()), model(ids)
    noise = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        spread = 0.5 * weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.1
        weight.add_(torch.randn(weight.shape, generator=noise), alpha=spread)
    with suppress(SpecError):
        moved = model(ids)
        if moved.isfinite().all():
            return moved
    model.load_state_dict(first)
    return whole


def _fault(law: Law, case: str, model: DecoderModel, ids: Tensor, whole: Tensor) -> str:
    try:
        return law(model, ids, whole)
    except Exception as fault:  # whatever the user's own code raises
        return f"{in_words(fault)}, where {case}"


def _documents(model: DecoderModel, ids: Tensor, whole: Tensor) -> str:
    half, rest = ids.shape[1] // 2, ids.shape[1] - ids.shape[1] // 2
    places = torch.cat([torch.arange(half), torch.arange(rest)]).expand_as(ids)
    packed = model(ids, segments=(torch.arange(ids.shape[1]) >= half).long().expand_as(ids), positions=places)
    if _differ(packed[:, half:], model(ids[:, half:])):
        return "a document sees those packed before it in its row; let forward start anew where ctx.starts is true"
    return ""


def _pieces(model: DecoderModel, ids: Tensor, whole: Tensor) -> str:
    state = model.new_state(len(ids), ids.shape[1])
    pieces = ids.split([ids.shape[1] // 2, 1, ids.shape[1] - ids.shape[1] // 2 - 1], 1)
    if _differ(torch.cat([model(piece, state) for piece in pieces], 1), whole):
        return (
            "a text read in pieces, as when generating, gives other logits than at once; let new_state make what "
            "forward remembers, and forward continue and change it"
        )
    return ""


def _padding(model: DecoderModel, ids: Tensor, whole: Tensor) -> str:
    half = ids.shape[1] // 2
    state = model.new_state(2, ids.shape[1] + 1)
    model(ids, state, lengths=torch.tensor([ids.shape[1], half]))
    if _differ(model(ids[:, half : half + 1], state)[1, 0], whole[1, half]):
        return "padding behind a row changes what is remembered of it; let it change nothing where ctx.real is false"
    return ""


def _differ(one: Tensor, other: Tensor) -> bool:
    return not (one - other).abs().max() <= CLOSE * other.abs().max()  # what is no number differs
