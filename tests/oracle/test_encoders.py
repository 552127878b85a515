"""What encoders make of texts, padded and paired, equals what transformers makes of them; folders lose no bit."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor

from groundup.hub import folder
from oracle.cases import ENCODERS
from oracle.pair import TOLERANCE, Pair, class_of, distance, make

LENGTHS = [24, 3, 17]


@pytest.fixture(params=ENCODERS, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make(ENCODERS[request.param], tmp_path_factory.mktemp("theirs"))


def first_is_global(pair: Pair, ids: Tensor) -> dict[str, Tensor]:
    """Returns what transformers' Longformer has to be told, and ours assumes."""
    mask = {"global_attention_mask": (torch.arange(ids.shape[1]) < 1).long().expand_as(ids)}
    return {name: value for name, value in mask.items() if name in inspect.signature(pair.theirs.forward).parameters}


@torch.no_grad()
def test_what_is_made_of_padded_pairs_of_texts_is_equal(pair: Pair):
    ids, kinds = pair.ids(3, 24), pair.ours.spec.embed.types
    types = pair.ids(3, 24, seed=1) % kinds if kinds else None
    real = torch.arange(24) < torch.tensor(LENGTHS)[:, None]
    given = {"token_type_ids": types} if kinds else {}
    told = pair.theirs(ids, attention_mask=real.long(), **given, **first_is_global(pair, ids))
    given = {"lengths": torch.tensor(LENGTHS), "types": types}
    assert distance(pair.ours(ids, **given)[real], told[0][real]) < TOLERANCE
    if len(told) > 1:
        assert distance(pair.ours.pool(pair.ours.hidden(ids, **given)), told[1]) < TOLERANCE


@torch.no_grad()
def test_folder_in_out_and_in_again_is_bitwise_the_same(pair: Pair, tmp_path: Path):
    folder.write_hf(pair.ours.state_dict(), spec=pair.ours.spec, folder=tmp_path / "ours")
    again = folder.read(tmp_path / "ours")
    assert again.spec == pair.ours.spec
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in pair.ours.state_dict().items())
    back = class_of({"architectures": [type(pair.theirs).__name__]}).from_pretrained(tmp_path / "ours")
    assert all(torch.equal(weight, back.state_dict()[name]) for name, weight in pair.theirs.state_dict().items())
