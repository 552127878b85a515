"""Graph attention: the mask of a graph and scores that are sums, beside a plain definition in torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers.attention import Attention, AttentionMixer
from groundup.parts.mask import Graph
from groundup.parts.position import NoPosition
from groundup.parts.score import LeakySum
from groundup.specs import Spec

EDGES = ((0, 1), (1, 0), (1, 2), (2, 1), (3, 1), (4, 4), (0, 5))


def graph_attention(x: Tensor, weight: Tensor, of_query: Tensor, of_key: Tensor) -> Tensor:
    """Returns the layer of Velickovic et al. 2017 (equations 1 to 5), node by node, before its activation.

    ``weight`` is (heads, K, D), one map W a head; the vectors a of the paper are those of queries and keys in a row.
    """
    rows = []
    for node in range(len(x)):
        near = sorted({node, *(a for a, b in EDGES if b == node)})
        heads = []
        for w, u, v in zip(weight, of_query, of_key, strict=True):
            h = x @ w.T
            pairs = (torch.cat([h[node], h[other]]) for other in near)
            scores = torch.stack([F.leaky_relu(torch.cat([u, v]) @ pair, 0.2) for pair in pairs])
            heads.append(scores.softmax(0) @ h[near])
        rows.append(torch.cat(heads))
    return torch.stack(rows)


def layer() -> AttentionMixer:
    """A layer as wide as the first of the paper's for Cora, 8 heads of 8; queries, keys and values are one map."""
    spec = Attention(
        heads=8, kv_heads=8, head_width=8, mask=Graph(edges=EDGES), position=NoPosition(), score=LeakySum()
    )
    made, draw = spec.build(64).double(), torch.Generator().manual_seed(0)
    for weight in learnt(made):
        torch.nn.init.normal_(weight, std=0.3, generator=draw)
    made.k.weight = made.v.weight = made.q.weight
    torch.nn.init.eye_(made.out.weight)
    return made


def learnt(made: AttentionMixer) -> list[Tensor]:
    return [made.get_parameter(name) for name in ("q.weight", "score.of_query", "score.of_key")]


def test_values_and_gradients_are_those_of_the_definition():
    made = layer()
    x = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = learnt(made)
    found = made(x, Context.whole(x))[0]
    told = graph_attention(x[0], weights[0].unflatten(0, (8, 8)), *weights[1:])
    torch.testing.assert_close(found, told)
    for one, two in zip(*(torch.autograd.grad(y.square().sum(), weights) for y in (found, told)), strict=True):
        torch.testing.assert_close(one, two)


def test_a_graph_lets_see_along_its_edges_and_a_node_itself():
    place = torch.arange(7)
    seen = Graph(edges=EDGES).allowed(place[:, None], place)
    assert {(a, b) for b, a in seen.nonzero().tolist()} == {*EDGES, *((node, node) for node in range(7))}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Graph(edges=()), "a Graph without edges lets nobody see anybody"),
        (lambda: Graph(edges=((0, -1),)), "edges=.*expected a tuple of"),
        (lambda: LeakySum(scale=0.5), "scale=0.5 is of products, and LeakySum has none"),
    ],
)
def test_what_is_no_graph_is_refused(make, said):
    with pytest.raises(SpecError, match=said):
        make()


def test_a_graph_is_read_back_from_plain_data():
    graph = Graph(edges=EDGES)
    assert Spec.from_dict(graph.to_dict()) == graph
