from __future__ import annotations

import pytest
import torch

from groundup.context import NOT_COUNTED, Batch
from groundup.errors import GenerationError
from groundup.infer.diffuse import diffuse
from groundup.infer.text_encoder import TextEncoder
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import GatedMLP
from groundup.model.encoder import Encoder, EncoderModel
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.objectives.diffusion import MaskedDiffusion
from groundup.objectives.objective import Reading
from groundup.optim.optimizers import AdamW, Muon
from groundup.optim.schedules import Cosine
from groundup.parts.mask import Everything
from groundup.text.train import train
from groundup.training.budget import Steps
from groundup.training.steps import steps

DIGITS = "0123456789" * 40
WORDS = train([DIGITS], kind="char", special=["[MASK]"])
TOKENS = 16
LAYER = Layer(
    mix=Residual(Attention(heads=2, kv_heads=2, head_width=32, mask=Everything())), ffn=Residual(GatedMLP(hidden=128))
)
SPEC = Encoder(width=64, vocab=WORDS.vocab, context=64, layers=(LAYER,) * 2)
MASK = WORDS.mask or 0


def counting(step: int) -> Batch:
    """Rows that count on from any digit."""
    starts = torch.randint(10, (64,), generator=torch.Generator().manual_seed(step)).tolist()
    ids = torch.tensor([WORDS.encode(DIGITS[start:][: TOKENS + 1]) for start in starts])
    return Batch(ids=ids[:, :-1].clone(), targets=ids[:, 1:].clone())


def batches():
    return MaskedDiffusion().batches(counting, Reading(model=SPEC, tokenizer=WORDS, context=TOKENS, seed=0))


def counts_on(text: str) -> bool:
    return len(text) > 0 and text in DIGITS


def test_what_is_hidden_weighs_as_much_as_all_would_in_the_mean() -> None:
    """For any share t, a token counts with 1/t in a share t of the cases, so a text's weights are its tokens."""
    made, total, shares = batches(), 0.0, []
    for step in range(40):
        batch = made(step)
        assert batch.weights is not None
        hidden = batch.ids == MASK
        assert torch.equal(hidden, batch.weights > 0)
        assert torch.equal(batch.targets, counting(step).ids)
        assert torch.equal(batch.ids[~hidden], batch.targets[~hidden])
        assert batch.counted_tokens == batch.read_tokens == batch.ids.numel()
        total += batch.weights.sum().item()
        shares += hidden.float().mean(1).tolist()
    count = 40 * 64
    assert abs(sum(shares) / count - 0.5) < 5 * (1 / 12 / count) ** 0.5
    assert abs(total / (count * TOKENS) - 1) < 0.1
    assert min(shares) == 0 and max(shares) == 1


def test_padding_is_not_hidden() -> None:
    padded = counting(0)
    padded.targets[:, 5:] = NOT_COUNTED
    reading = Reading(model=SPEC, tokenizer=WORDS, context=TOKENS, seed=0)
    batch = MaskedDiffusion().batches(lambda _: padded, reading)(0)
    assert not (batch.ids[:, 5:] == MASK).any()
    assert batch.counted_tokens == 64 * 5


@pytest.fixture(scope="module")
def learnt() -> EncoderModel:
    model, made = SPEC.build(seed=0), batches()
    optimizer = Muon(lr=0.02, adamw=AdamW(lr=3e-3)).build(model)
    for _ in steps(model, made, MaskedDiffusion().loss, optimizer, Cosine(), until=Steps(400)):
        pass
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("order", ["confidence", "random"])
def test_samples_are_right_and_differ(learnt: EncoderModel, order) -> None:
    rows = diffuse(learnt, [[MASK] * TOKENS] * 40, mask=MASK, steps=TOKENS, order=order, vocab=WORDS.vocab)
    texts = [WORDS.decode(row) for row in rows.tolist()]
    assert sum(map(counts_on, texts)) >= 36
    assert len(set(texts)) >= 5


@pytest.mark.slow
def test_a_text_is_written_around_what_is_known_of_it(learnt: EncoderModel) -> None:
    model = TextEncoder(learnt, tokenizer=WORDS)
    ids = [MASK] * 6 + WORDS.encode("7") + [MASK] * 9
    (row,) = diffuse(learnt, [ids], mask=MASK, steps=15, temperature=0.0, vocab=WORDS.vocab)
    assert WORDS.decode(row.tolist()) == "1234567890123456"
    assert len(model.diffuse("4567", new_tokens=6, seed=1)) <= 10
    assert model.diffuse("4567", new_tokens=6, seed=1) == model.diffuse("4567", new_tokens=6, seed=1)


def test_in_one_step_all_is_filled_in_and_what_was_shown_stays() -> None:
    ids = [[MASK, 5, MASK, 6]]
    (row,) = diffuse(SPEC.build(), ids, mask=MASK, steps=1).tolist()
    assert (row[1], row[3]) == (5, 6)
    assert MASK not in row


def test_settings_that_cannot_be_used_are_refused() -> None:
    model = SPEC.build()
    for count, temperature in ((0, 1.0), (1, -1.0)):
        with pytest.raises(GenerationError, match="choose"):
            diffuse(model, [[MASK]], mask=MASK, steps=count, temperature=temperature)
