"""Beam search finds what transformers finds, token for token, whatever ends texts and however lengths are weighed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.infer.generate import steps
from groundup.infer.generation import Generation
from groundup.infer.sample import Sampling
from groundup.model.encoder_decoder import EncoderDecoder
from oracle.cases import EVERY
from oracle.pair import Pair, make

NAMES = ["t5/relu", "t5/gated", "gpt2/tied", "llama/gqa", "mistral/window", "mamba/mamba-130m"]
ENDS = (3, 11, 19, 27, 35, 43, 51, 59)  # so many that short texts end too
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"beams": 3},
    "long": {"beams": 4, "length_penalty": 2.0},
    "short": {"beams": 4, "length_penalty": -1.0, "early_stopping": "never"},
    "patient": {"beams": 2, "length_penalty": 1.5, "early_stopping": "never"},
    "sums": {"beams": 3, "length_penalty": 0.0},
    "first": {"beams": 5, "early_stopping": True},
    "new words": {"beams": 2, "repetition_penalty": 1.3},
}


@pytest.fixture(params=NAMES, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make(EVERY[request.param], tmp_path_factory.mktemp("theirs"))


def row(pair: Pair, ids: list[int]) -> Generation:
    spec = pair.ours.spec
    if isinstance(spec, EncoderDecoder):
        return Generation(source_ids=ids, prompt_ids=[spec.start])
    return Generation(prompt_ids=ids)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("ends", [ENDS, ENDS[:1], ()], ids=["many ends", "one end", "no end"])
def test_texts_of_ragged_prompts_are_equal(pair: Pair, settings: dict[str, Any], ends: tuple[int, ...]):
    spec = pair.ours.spec
    if isinstance(spec, EncoderDecoder) and spec.end is not None:
        ends = (*ends, spec.end)
    prompts = [pair.ids(1, tokens, seed=tokens)[0].tolist() for tokens in (9, 1, 6)]
    rows = [row(pair, ids) for ids in prompts]
    for _ in steps(pair.ours, rows, sampling=Sampling(**settings), max_new_tokens=12, ends=ends):
        pass
    named = {"beams": "num_beams"}
    theirs = {named.get(name, name): value for name, value in settings.items()}
    for ids, made in zip(prompts, rows, strict=True):
        told = pair.theirs.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=list(ends) or -1,
            pad_token_id=0,
            **theirs,
        )[0, len(made.prompt_ids) :]
        assert made.ids == told.tolist()
