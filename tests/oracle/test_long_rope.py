"""A text that grows beyond the trained length is read again: what is made of it is what Phi-3 in transformers makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.infer.generate import steps
from groundup.infer.generation import Generation
from groundup.infer.sample import Sampling
from oracle.cases.phi3 import LONG, PHI3
from oracle.pair import make

TRAINED = 12
CONFIG = PHI3 | {
    "original_max_position_embeddings": TRAINED,
    "rope_parameters": LONG | {"rope_type": "longrope", "rope_theta": 50.0},
}


@pytest.mark.parametrize("settings", [{}, {"beams": 3}], ids=["greedy", "beams"])
def test_texts_that_grow_beyond_the_trained_length_are_equal(settings: dict[str, Any], tmp_path: Path):
    pair = make(CONFIG, tmp_path)
    rows = [Generation(prompt_ids=pair.ids(1, tokens, seed=tokens)[0].tolist()) for tokens in (TRAINED - 1, 3, 20, 7)]
    for _ in steps(pair.ours, rows, sampling=Sampling(**settings), max_new_tokens=14):
        pass
    for row in rows:
        told = pair.theirs.generate(
            torch.tensor([row.prompt_ids]),
            attention_mask=torch.ones(1, len(row.prompt_ids), dtype=torch.int64),
            max_new_tokens=14,
            do_sample=False,
            eos_token_id=-1,
            pad_token_id=0,
            num_beams=settings.get("beams", 1),
        )
        assert row.ids == told[0, len(row.prompt_ids) :].tolist()
