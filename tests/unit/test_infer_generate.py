from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import GenerationError
from groundup.families.gpt2 import gpt2
from groundup.families.llama import llama
from groundup.infer import generate
from groundup.infer.generate import prefill, steps
from groundup.infer.generation import Generation
from groundup.infer.ids import as_rows
from groundup.infer.sample import Sampling
from groundup.mixers.attention import Attention
from groundup.parts.mask import Window
from groundup.parts.position import LongRoPE
from groundup.specs import override, walk

VOCAB, CONTEXT = 61, 48


def windowed(spec):
    mixers = [path for path, node in walk(spec) if isinstance(node, Attention)]
    for path in mixers:
        spec = override(spec, f"{path}.mask", Window(7))
    return spec


LLAMA = llama(
    width=32, layers=2, heads=4, kv_heads=2, hidden=64, vocab=VOCAB, context=CONTEXT, tied=True, deviation=0.5
)
GPT2 = gpt2(width=32, layers=2, heads=4, vocab=VOCAB, context=CONTEXT, deviation=0.3)
LONG = LongRoPE(short=(1.0,) * 4, long=(1.0, 4.0, 9.0, 16.0), factor=4.0, original=8)
MODELS = {
    "llama": LLAMA.build(seed=3),
    "gpt2": GPT2.build(seed=3),
    "window": windowed(LLAMA).build(seed=3),
    "long": override(LLAMA, "layers.*.mix.mixer.position.scaling", LONG).build(seed=3),
}
every_model = pytest.mark.parametrize("name", MODELS)
prompts = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12)
CREATIVE = Sampling(temperature=1.5, top_k=20, top_p=0.95, min_p=0.01, repetition_penalty=1.2, seed=4)


def run(model, *rows_of_ids, **options):
    rows = [row if isinstance(row, Generation) else Generation(prompt_ids=row) for row in rows_of_ids]
    for _ in steps(model, rows, **options):
        pass
    return rows


@every_model
@settings(max_examples=4)
@given(prompt=prompts)
def test_greedy_is_the_argmax_of_the_whole_sequence_at_every_step(name, prompt):
    model = MODELS[name]
    row = run(model, prompt, max_new_tokens=12)[0]
    for place, id in enumerate(row.ids):
        with torch.no_grad():
            assert id == model.eval()(torch.tensor([prompt + row.ids[:place]]))[0, -1].argmax()


@every_model
@settings(max_examples=3)
@given(batch=st.lists(prompts, min_size=2, max_size=4), sampling=st.sampled_from([Sampling(), CREATIVE]))
def test_row_of_a_ragged_batch_is_what_it_is_alone(name, batch, sampling):
    model = MODELS[name]
    together = run(model, *batch, sampling=sampling, max_new_tokens=15, ends=[5])
    for prompt, row in zip(batch, together, strict=True):
        alone = run(model, prompt, sampling=sampling, max_new_tokens=15, ends=[5])[0]
        assert (row.ids, row.finish) == (alone.ids, alone.finish)


@every_model
@pytest.mark.parametrize("piece", [1, 4])
def test_prompts_read_in_pieces_are_read_alike(name, piece, monkeypatch):
    model, batch = MODELS[name], [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [3], [7, 7, 8, 1]]
    whole = run(model, *batch, max_new_tokens=6)
    monkeypatch.setattr(generate, "PREFILL_TOKENS", piece * len(batch))
    assert [row.ids for row in run(model, *batch, max_new_tokens=6)] == [row.ids for row in whole]


def test_prefill_gives_the_hidden_state_of_each_last_token(monkeypatch):
    monkeypatch.setattr(generate, "PREFILL_TOKENS", 8)
    model = MODELS["llama"].eval()
    ids, lengths = torch.randint(VOCAB, (2, 13)), torch.tensor([13, 6])
    with torch.no_grad():
        state = model.new_state(2, 13)
        last = prefill(model, state, ids, lengths=lengths)
        whole = model.hidden(ids)
    torch.testing.assert_close(last, torch.stack([whole[0, 12], whole[1, 5]]), atol=1e-5, rtol=1e-5)
    assert state.seen.tolist() == [13, 6]


@pytest.mark.parametrize("beams", [1, 2])
def test_a_text_that_grows_until_it_is_read_otherwise_is_read_again(beams):
    model = MODELS["long"].eval()
    rows = [Generation(prompt_ids=prompt, logprobs=[]) for prompt in ([1, 2, 3], [4] * 8, [5, 6] * 6)]
    for row in run(model, *rows, sampling=Sampling(beams=beams), max_new_tokens=9):
        for place, (id, logprob) in enumerate(zip(row.ids, row.logprobs or [], strict=True)):
            with torch.no_grad():
                expected = model(torch.tensor([row.prompt_ids + row.ids[:place]]))[0, -1].log_softmax(-1)
            assert logprob == pytest.approx(expected[id].item(), abs=1e-4)
            assert beams > 1 or id == expected.argmax()


@every_model
def test_equal_seeds_give_equal_texts_and_other_seeds_others(name):
    model, prompt = MODELS[name], [4, 9, 2]
    rows = [Generation(prompt_ids=prompt, seed=seed) for seed in (None, 4, 5, 6)]
    run(model, *rows, sampling=CREATIVE, max_new_tokens=20)
    assert rows[0].ids == rows[1].ids
    assert len({tuple(row.ids) for row in rows}) == 3
    again = run(model, Generation(prompt_ids=prompt, seed=6), sampling=CREATIVE, max_new_tokens=20)
    assert again[0].ids == rows[3].ids


def test_row_that_ends_leaves_the_others_going():
    model = MODELS["llama"]
    free = run(model, [1], [2, 3], [4], max_new_tokens=15)
    end = free[1].ids[4]
    rows = run(model, [1], [2, 3], [4], max_new_tokens=15, ends=[end])
    for row, whole in zip(rows, free, strict=True):
        stop = whole.ids.index(end) + 1 if end in whole.ids else 15
        assert row.ids == whole.ids[:stop]
        assert row.finish == ("end" if end in whole.ids else "length")


def test_whoever_runs_the_loop_can_end_a_row():
    rows = [Generation(prompt_ids=[1]), Generation(prompt_ids=[2])]
    for count, moved in enumerate(steps(MODELS["llama"], rows, max_new_tokens=9), start=1):
        assert all(len(row.ids) == count for row in moved)
        if count == 3:
            rows[0].finish = "stop"
    assert [(len(row.ids), row.finish) for row in rows] == [(3, "stop"), (9, "length")]


@every_model
def test_rows_go_on_to_the_end_of_the_context_and_say_so(name):
    batch = [[1] * 40, [2] * 3, [3] * (CONTEXT - 1)]
    rows = run(MODELS[name], *batch, max_new_tokens=20)
    assert [(len(row.ids), row.finish) for row in rows] == [(8, "context"), (20, "length"), (1, "context")]
    rows = run(MODELS[name], *batch)
    assert [(len(row.ids), row.finish) for row in rows] == [(8, "context"), (45, "context"), (1, "context")]


def test_log_probabilities_are_those_of_the_model_before_the_sampling():
    model = MODELS["llama"].eval()
    row = run(model, Generation(prompt_ids=[5, 6], logprobs=[]), sampling=CREATIVE, max_new_tokens=10)[0]
    with torch.no_grad():
        logits = model(torch.tensor([row.prompt_ids + row.ids]))[0, 1:-1].log_softmax(-1)
    expected = logits.gather(1, torch.tensor(row.ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(row.logprobs), expected, atol=1e-5, rtol=1e-5)


def test_ids_beyond_the_tokenizer_are_never_chosen():
    rows = run(MODELS["llama"], [1], [9, 3], sampling=Sampling(temperature=5.0), max_new_tokens=30, vocab=10)
    assert max(id for row in rows for id in row.ids) < 10


def test_head_is_asked_for_the_last_position_alone():
    model, sizes = MODELS["llama"], []
    handle = model.head.register_forward_hook(lambda _module, inputs, _output: sizes.append(tuple(inputs[0].shape)))
    run(model, [1] * 20, [2] * 3, max_new_tokens=3)
    handle.remove()
    assert sizes == [(2, 32)] * 3


def test_dropout_is_off_while_generating_and_the_mode_comes_back():
    model = gpt2(
        width=32, layers=1, heads=4, vocab=VOCAB, context=CONTEXT, embed_dropout=0.5, dropout=0.5, attention_dropout=0.5
    ).build()
    model.train()
    one, two = (run(model, [1, 2], max_new_tokens=10)[0].ids for _ in range(2))
    assert one == two
    assert model.training
    for _ in steps(model, [Generation(prompt_ids=[1])], max_new_tokens=10):
        break
    assert model.training


def test_no_prompt_gives_no_step():
    assert list(steps(MODELS["llama"], [])) == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the prompt has no token"),
        ([1] * CONTEXT, "the prompt is 48 tokens long and the model's context 48, .* shorten the prompt to 47"),
        ([1, VOCAB], "token id 61 is outside the model's vocabulary; expected 0 to 60"),
        ([1, -1], "token id -1 is outside the model's vocabulary"),
    ],
)
def test_prompt_that_cannot_be_read_is_refused(prompt, message):
    with pytest.raises(GenerationError, match=message):
        run(MODELS["llama"], [1], prompt)


def test_length_of_nothing_is_refused():
    with pytest.raises(GenerationError, match="max_new_tokens=0 asks for no token"):
        run(MODELS["llama"], [1], max_new_tokens=0)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 2], [3]], "no rows of equal length"),
        (torch.tensor([1, 2]), r"int64 of shape \(2,\); give whole numbers of shape \(B, T\)"),
        ([[]], r"shape \(1, 0\)"),
        (torch.tensor([[0.5]]), "float32"),
        ([[True]], "bool"),
        ([[1] * (CONTEXT + 1)], "the rows are 49 tokens long and the model's context 48"),
        ([[0, 61]], "token id 61"),
        ([[-3, 1]], "token id -3"),
    ],
)
def test_rows_of_ids_that_cannot_be_read_are_refused(ids, message):
    with pytest.raises(GenerationError, match=message):
        as_rows(ids, LLAMA, device=torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_ids_of_any_whole_type_are_taken(dtype):
    rows = as_rows(torch.tensor([[1, 60]], dtype=dtype), LLAMA, device=torch.device("cpu"))
    assert rows.dtype == torch.int64
    assert rows.tolist() == [[1, 60]]
