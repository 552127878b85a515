from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.context import Context
from groundup.errors import SpecError
from groundup.families import seq2seq
from groundup.families.seq2seq import bahdanau, bare, luong
from groundup.mixers.aligned import AttentiveGRU, Summary
from groundup.mixers.both_ways import BothWays
from groundup.mixers.recurrent import GRU, LSTM, RNN, Recurrent
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.layer import Layer, Stacked
from groundup.objectives.objective import Shape
from groundup.objectives.rewriting import arranged
from groundup.objectives.translation import Translation
from groundup.optim.optimizers import AdamW
from groundup.optim.schedules import Cosine
from groundup.parts.align import Additive, Align, Dot, General, read
from groundup.training.budget import Steps
from groundup.training.steps import steps

LETTERS, LONGEST, END = 8, 6, 1
SIZES = {"width": 48, "vocab": 2 + LETTERS, "context": 16}


def without_attention(cell: Recurrent) -> EncoderDecoder:
    read_to_the_end = Stacked(mix=bare(cell))
    return seq2seq.seq2seq(encoder=(read_to_the_end,), decoder=(Layer(cross=bare(Summary())), read_to_the_end), **SIZES)


MODELS = {
    "RNN": without_attention(RNN()),
    "GRU": without_attention(GRU()),
    "LSTM": without_attention(LSTM()),
    "Bahdanau": bahdanau(hidden=48, align_hidden=32, **SIZES),
    "Luong, dot": luong(layers=1, align=Dot(), **SIZES),
    "Luong, general": luong(layers=1, **SIZES),
    "Luong, concat": luong(layers=1, align=Additive(hidden=32), **SIZES),
}


def pairs(step: int, *, rows: int = 64, longest: int = LONGEST):
    """Words and what they are backwards."""
    draw = torch.Generator().manual_seed(step)
    lengths = torch.randint(2, longest + 1, (rows,), generator=draw).tolist()
    words = [torch.randint(2, 2 + LETTERS, (length,), generator=draw) for length in lengths]
    end = torch.tensor([END])
    return [(torch.cat([word, end]).numpy(), torch.cat([word.flip(0), end]).numpy()) for word in words]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_words_are_written_backwards(name: str) -> None:
    spec = MODELS[name]
    longest = 3 if name in ("RNN", "GRU", "LSTM") else LONGEST  # which have to keep the whole word in one vector
    model = spec.build(seed=0)
    shape = Shape(text=0, ids=longest + 1, predicted=longest + 1, source=longest + 1)

    def batches(step: int):
        return arranged(pairs(step, longest=longest), model=spec, shape=shape)

    run = steps(model, batches, Translation().loss, AdamW(lr=1e-2, decay=0.0).build(model), Cosine(), until=Steps(250))
    *_, last = run
    assert last.loss < 0.1, last.loss
    model.eval()
    right = 0
    fresh = pairs(-1 % 10_007, rows=50, longest=longest)
    for source, target in fresh:
        right += written(model, torch.from_numpy(source)[None], most=longest + 2) == target.tolist()
    assert right >= 45


@torch.no_grad()
def written(model, source: Tensor, *, most: int) -> list[int]:
    state, id, made = model.new_state(source, most), model.spec.start, []
    while len(made) < most - 1 and id != END:
        id = int(model(torch.tensor([[id]]), state)[0, -1].argmax())
        made.append(id)
    return made


def test_scores_by_hand() -> None:
    query, memory = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
    dot, general = Dot().build(2, 2), General().build(2, 2)
    assert dot(query, dot.keys(memory)).tolist() == [[[3.0, 2.0]]]
    general.key.weight.data = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # which swaps
    assert general(query, general.keys(memory)).tolist() == [[[6.0, 1.0]]]
    additive = Additive(hidden=1).build(2, 2)
    additive.query.weight.data, additive.key.weight.data = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    expected = [[[torch.tanh(torch.tensor(1.0)).item(), torch.tanh(torch.tensor(2.0)).item()]]]
    assert additive(query, additive.keys(memory)).tolist() == expected
    equal = read(torch.zeros(1, 1, 2), memory, None)
    assert equal.tolist() == [[[1.5, 0.5]]]
    assert read(torch.zeros(1, 1, 2), memory, torch.tensor([1])).tolist() == [[[3.0, 0.0]]]


def test_without_a_memory_worth_looking_at_the_units_are_those_of_torch() -> None:
    mixer: Any = AttentiveGRU(hidden=4, align=Additive(hidden=3)).build(4)
    theirs = nn.GRU(4, 4, batch_first=True)
    for map in (mixer.input, mixer.recurrent, mixer.context, mixer.begin, mixer.align.query, mixer.align.key):
        nn.init.normal_(map.weight)
    nn.init.normal_(mixer.recurrent.bias)
    mixer.out = nn.Identity()
    theirs.load_state_dict(
        {
            "weight_ih_l0": mixer.input.weight,
            "bias_ih_l0": mixer.input.bias,
            "weight_hh_l0": mixer.recurrent.weight,
            "bias_hh_l0": mixer.recurrent.bias,
        }
    )
    x = torch.randn(2, 7, 4)
    torch.testing.assert_close(mixer(x, Context.whole(x, memory=torch.zeros(2, 3, 4))), theirs(x)[0])


def test_both_ways_is_what_torch_reads_both_ways() -> None:
    mixer: Any = BothWays(GRU()).build(4)
    theirs = nn.GRU(4, 4, batch_first=True, bidirectional=True)
    for part, end in ((mixer.ahead, ""), (mixer.back, "_reverse")):
        for map, name in ((part.input, "ih"), (part.recurrent, "hh")):
            nn.init.normal_(map.weight)
            nn.init.normal_(map.bias)
            theirs.get_parameter(f"weight_{name}_l0{end}").data = map.weight.data
            theirs.get_parameter(f"bias_{name}_l0{end}").data = map.bias.data
    x, lengths = torch.randn(3, 6, 4), torch.tensor([6, 2, 4])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    made = mixer(x, Context.whole(x, lengths=lengths))
    for row, length in enumerate(lengths.tolist()):
        ahead, back = expected[row, :length].chunk(2, -1)
        torch.testing.assert_close(made[row, :length], ahead + back)


def test_vectors_of_two_widths_have_no_product() -> None:
    with pytest.raises(SpecError, match="have no product"):
        Dot().build(4, 5)
    assert isinstance(General(), Align)
