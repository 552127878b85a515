"""What BigBird makes of blocks is what transformers makes of them: of drawn ones in training, else of the first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from oracle.cases.big_bird import BIG_BIRD
from oracle.pair import distance, make

SMALL = BIG_BIRD | {"block_size": 2, "num_random_blocks": 1}
LONG = BIG_BIRD | {"block_size": 32, "max_position_embeddings": 2048, "hidden_size": 16, "num_attention_heads": 2}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("config", "tokens"),
    [(SMALL, 14), (SMALL, 15), (SMALL, 24), (SMALL, 39), (SMALL | {"num_random_blocks": 2}, 64), (LONG, 1024)],
    ids=["whole", "shortest", "even", "odd", "two", "as long as in the paper"],
)
@torch.no_grad()
def test_logits_of_texts_in_blocks_are_equal(config, tokens: int, training: bool, tmp_path: Path):
    drawn = {"random_seeds": [0, 1]} if training else {}
    pair = make(config | {"num_hidden_layers": 2} | drawn, tmp_path)
    ids = pair.ids(2, tokens)
    ours, theirs = pair.ours.double(), pair.theirs.double().train(training)
    assert distance(ours(ids), theirs(ids).logits) < 1e-10
