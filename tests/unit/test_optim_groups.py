import pytest
import torch
from torch import nn

from groundup.errors import ConfigError
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import GatedMLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.optim.groups import group
from groundup.parts.embed import Embed
from groundup.parts.position import Learned


def decoder(head):
    attention = Attention(heads=2, kv_heads=1, head_width=8, bias=True)
    layer = Layer(mix=Residual(attention), ffn=Residual(GatedMLP(hidden=24)))
    return Decoder(
        width=16, vocab=32, context=8, layers=(layer,), embed=Embed(position=Learned(length=8)), head=head
    ).build()


def names(named):
    return {name for name, _ in named}


@pytest.mark.parametrize("head", [Tied(), Untied(bias=True)])
def test_a_decoder_falls_into_matrices_tables_and_vectors(head):
    model = decoder(head)
    groups = group(model)
    assert all(".mix." in name or ".ffn." in name for name in names(groups.hidden))
    assert all(parameter.ndim == 1 for _, parameter in groups.vectors)
    expected = {"embed.weight", "embed.position.weight"} | ({"head.weight"} if isinstance(head, Untied) else set())
    assert names(groups.tables) == expected
    everything = [parameter for _, parameter in groups.hidden + groups.tables + groups.vectors]
    assert sorted(map(id, everything)) == sorted(map(id, model.parameters()))


def test_an_embedding_that_is_also_a_linear_map_inside_is_a_table():
    model = nn.ModuleDict({"inside": nn.Linear(4, 9, bias=False), "words": nn.Embedding(9, 4)})
    model["words"].weight = model["inside"].weight
    groups = group(model)
    assert names(groups.tables) == {"inside.weight"}
    assert not groups.hidden


def test_a_matrix_that_is_also_a_head_is_a_table():
    model = nn.ModuleDict({"inside": nn.Linear(4, 9, bias=False), "head": nn.Linear(4, 9, bias=False)})
    model["head"].weight = model["inside"].weight
    assert names(group(model).tables) == {"inside.weight"}


def test_norm_weights_of_two_dimensions_are_vectors():
    assert names(group(nn.LayerNorm([3, 4])).vectors) == {"weight", "bias"}


def test_stacked_and_convolution_weights_are_tables():
    assert names(group(nn.Conv1d(4, 4, 3, bias=False)).tables) == {"weight"}


def test_frozen_parameters_are_left_out():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert names(group(model).hidden) == {"weight"}
    assert not group(model).vectors


def test_a_model_with_nothing_to_train_is_refused():
    with pytest.raises(ConfigError, match="unfreeze"):
        group(nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(ConfigError, match="no parameter"):
        group(torch.nn.Identity())
