"""Law 7, second half: a step of training lowers the loss, and what is off by default changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from groundup.model.encoder import EncoderModel
from laws.examples import EXAMPLES, STACKS, lively, some_ids

every_example = pytest.mark.parametrize("name", STACKS)


def loss_of(model, ids):
    if isinstance(model, EncoderModel):  # whatever its heads are for: to say of each token and text what was drawn
        said = [model(ids), model.pool(model.hidden(ids))]
        drawn = [torch.randn(x.shape, generator=torch.Generator().manual_seed(7)) for x in said]
        return torch.stack([F.mse_loss(x, y.to(x.dtype)) for x, y in zip(said, drawn, strict=True)]).sum()
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


@every_example
def test_a_step_of_training_lowers_the_loss_and_reaches_every_parameter(name):
    model, ids = copy.deepcopy(lively(EXAMPLES[name])).train(), some_ids(2, 12)
    before = loss_of(model, ids)
    before.backward()
    slopes = [p.grad.square().sum().item() for p in model.parameters() if p.grad is not None]
    assert len(slopes) == len(list(model.parameters()))
    torch.optim.SGD(model.parameters(), lr=1e-7).step()
    # So short a step goes down by its length times the squared gradient.
    assert (before - loss_of(model, ids)).item() == pytest.approx(1e-7 * sum(slopes), rel=0.1)


@every_example
def test_a_few_steps_of_adam_learn_a_batch(name):
    model, ids = EXAMPLES[name].build().train(), some_ids(2, 12)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = loss_of(model, ids).item()
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(model, ids).backward()
        optimizer.step()
    assert loss_of(model, ids).item() < 0.9 * before


@every_example
@torch.no_grad()
def test_training_without_dropout_computes_what_evaluation_does(name):
    model, ids = lively(EXAMPLES[name]), some_ids(2, 12)
    expected, chance = model(ids), torch.get_rng_state()
    model.train()
    assert torch.equal(model(ids), expected)
    model.eval()
    assert torch.equal(torch.get_rng_state(), chance)
    assert not any(isinstance(module, torch.nn.Dropout) for module in model.modules())
