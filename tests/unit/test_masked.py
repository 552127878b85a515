from __future__ import annotations

import math

import pytest
import torch

from groundup.context import NOT_COUNTED, Batch
from groundup.errors import SpecError
from groundup.families.bert import bert
from groundup.objectives.masked import Masked, Unit, WholeWords
from groundup.objectives.objective import Reading
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train

TEXT = "the unbelievable cats of wonderland were sleeping (quietly) on 12345 mats.\n" * 30
WORDS = train([TEXT], vocab=290, special=["[MASK]"])
MODEL = bert(width=16, layers=1, heads=2, vocab=WORDS.vocab)
ROWS, TOKENS = 64, 400


def batch_of(objective: Masked, words: Tokenizer = WORDS) -> tuple[Batch, Batch]:
    line = [*words.encode(TEXT), words.end]
    ids = torch.tensor([(line * 9)[row : row + TOKENS + 1] for row in range(ROWS)])
    read = Batch(ids=ids[:, :-1].clone(), targets=ids[:, 1:].clone())
    made = objective.batches(lambda _: read, Reading(model=MODEL, tokenizer=words, context=TOKENS, seed=0))(0)
    return read, made


def test_as_many_tokens_of_each_row_are_hidden_as_was_asked_for() -> None:
    read, made = batch_of(Masked())
    free = read.ids.ne(WORDS.end or 0)
    chosen = made.targets != NOT_COUNTED
    assert (chosen.sum(1) == (0.15 * free.sum(1)).round()).all()
    assert torch.equal(made.targets[chosen], read.ids[chosen])
    assert torch.equal(made.ids[~chosen], read.ids[~chosen])
    assert not (chosen & ~free).any()
    assert made.read_tokens == ROWS * TOKENS


def test_of_those_four_fifths_become_masks_a_tenth_others_and_a_tenth_stay() -> None:
    read, made = batch_of(Masked(rate=0.5))
    chosen = made.targets != NOT_COUNTED
    total = int(chosen.sum())
    masked = int(made.ids.eq(WORDS.mask or 0).sum())
    other = int((chosen & made.ids.ne(WORDS.mask or 0) & (made.ids != read.ids)).sum())
    changed = 0.1 * (1 - 1 / (WORDS.vocab - 2))  # now and then the random token is the right one
    for count, share in ((masked, 0.8), (other, changed), (total - masked - other, 0.2 - changed)):
        assert abs(count - share * total) < 5 * math.sqrt(total * share * (1 - share))
    assert WORDS.end not in made.ids[chosen]


@pytest.mark.parametrize("words", [WORDS, train([TEXT], kind="word", special=["[MASK]"])], ids=["pieces", "words"])
def test_whole_words_are_hidden_together(words: Tokenizer) -> None:
    read, made = batch_of(Masked(unit=WholeWords(), hidden=1.0, random=0.0), words)
    for row in range(0, ROWS, 9):
        names = [words.name_of(int(id)) for id in read.ids[row]]
        chosen = (made.targets[row] != NOT_COUNTED).tolist()
        for place in range(1, TOKENS):
            if names[place].isalnum() and names[place][0] not in "ĠĊ" and read.ids[row, place - 1] != words.end:
                assert chosen[place] == chosen[place - 1], names[place - 1 : place + 1]
        assert sum(chosen) <= round(0.15 * TOKENS)


def test_word_pieces_tell_by_their_mark_that_they_go_on_with_a_word() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    pieces = {"[UNK]": 0, "the": 1, "un": 2, "##believ": 3, "##able": 4, "[MASK]": 5}
    backend = Backend(models.WordPiece(pieces, unk_token="[UNK]"))
    backend.add_special_tokens(["[MASK]"])
    inside = WholeWords().inside(Tokenizer(backend.to_str()))
    assert inside.tolist() == [False, False, False, True, True, False]


def test_shares_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(SpecError, match="more than 1 together"):
        Masked(hidden=0.8, random=0.3)
    with pytest.raises(SpecError, match="hides nothing"):
        Masked(rate=0.0)
    assert issubclass(WholeWords, Unit)
