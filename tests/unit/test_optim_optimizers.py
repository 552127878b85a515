import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groundup.errors import SpecError
from groundup.optim.muon import orthogonal
from groundup.optim.optimizers import AdamW, Muon, Optimizer
from groundup.parts.linear import ExpertLinear


class Tiny(nn.Module):
    """An embedding, two matrices of different shape, a norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.up = nn.Linear(8, 24)
        self.norm = nn.LayerNorm(24)
        self.down = nn.Linear(24, 8, bias=False)
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, ids):
        return self.head(self.down(F.gelu(self.norm(self.up(self.embed(ids))))))


class Matrices(nn.Module):
    """A wide matrix, a tall one and a square one."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(*shape, bias=False) for shape in [(8, 24), (24, 8), (16, 16)])


def backward(model, seed):
    ids = torch.randint(0, 11, (4, 7), generator=torch.Generator().manual_seed(seed))
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    return loss.item()


def trained(model, optimizer, steps):
    losses = []
    for _ in range(steps):
        losses.append(backward(model, 1))
        optimizer.step()
        optimizer.zero_grad()
    return losses


@pytest.mark.parametrize("spec", [AdamW(lr=0.01), Muon(adamw=AdamW(lr=0.01))])
def test_thirty_steps_learn_a_batch(spec):
    model = Tiny()
    losses = trained(model, spec.build(model), 30)
    assert losses[-1] < 0.6 * losses[0]


def test_adamw_takes_the_step_of_the_paper_and_decays_only_what_is_not_a_vector():
    spec, model = AdamW(lr=0.1, decay=0.5, eps=1e-8), Tiny()
    optimizer = spec.build(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    backward(model, 1)
    optimizer.step()
    for name, p in model.named_parameters():
        assert p.grad is not None
        shrunk = before[name] * (1 - 0.1 * 0.5) if p.ndim >= 2 else before[name]
        # The first step's bias-corrected mean and root mean square are the gradient and its size.
        expected = shrunk - 0.1 * p.grad / (p.grad.abs() + 1e-8)
        torch.testing.assert_close(p.detach(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("shape", "adjust"), [((8, 8), 1.0), ((24, 8), 3**0.5), ((8, 24), 1.0)])
def test_muon_sets_every_singular_value_of_a_step_to_about_the_rate(shape, adjust):
    model = nn.Linear(shape[1], shape[0], bias=False)
    nn.init.zeros_(model.weight)
    optimizer = Muon(lr=0.1).build(model)
    model.weight.grad = torch.randn(shape)
    optimizer.step()
    sizes = torch.linalg.svdvals(model.weight.detach()) / (0.1 * adjust)
    assert sizes.min() > 0.5 and sizes.max() < 1.3


def test_muon_in_bfloat16_equals_torch_to_the_bit():
    ours, theirs = Matrices(), Matrices()
    theirs.load_state_dict(ours.state_dict())
    optimizer = Muon(lr=0.02, momentum=0.9, decay=0.1).build(ours, products=torch.bfloat16)
    torchs = torch.optim.Muon(theirs.parameters(), lr=0.02, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        optimizer.step()
        torchs.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_muon_moves_every_expert_as_a_matrix_of_its_own():
    stacked = ExpertLinear(6, 10, experts=3, active=1, role="in")
    alone = nn.ModuleList(nn.Linear(6, 10, bias=False) for _ in range(3))
    nn.init.normal_(stacked.weight)
    for linear, weight in zip(alone, stacked.weight.detach(), strict=True):
        linear.load_state_dict({"weight": weight})
    optimizers = [Muon(lr=0.02, decay=0.1).build(model) for model in (stacked, alone)]
    for _ in range(2):
        stacked.weight.grad = torch.randn(3, 10, 6)
        for weight, grad in zip(alone.parameters(), stacked.weight.grad, strict=True):
            weight.grad = grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(stacked.weight, torch.stack(list(alone.parameters())))


def test_products_in_bfloat16_stay_near_those_in_float32():
    matrix = torch.randn(16, 40)
    exact, rough = (orthogonal(matrix, products=dtype).float() for dtype in (torch.float32, torch.bfloat16))
    assert (rough - exact).norm() < 0.03 * exact.norm()


def test_a_gradient_of_zero_is_no_division_by_zero():
    assert torch.equal(orthogonal(torch.zeros(3, 5), products=torch.float32), torch.zeros(3, 5))


def test_muon_gives_the_matrices_inside_to_muon_and_the_rest_to_adamw():
    optimizer = Muon(lr=0.5, adamw=AdamW(lr=0.25, decay=0.125)).build(Tiny())
    found = {tuple(g["param_names"]): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert found == {
        ("up.weight", "down.weight"): (0.5, 0.01),
        ("embed.weight", "head.weight"): (0.25, 0.125),
        ("up.bias", "norm.weight", "norm.bias"): (0.25, 0.0),
    }


def test_muon_of_a_model_without_matrices_is_adamw():
    model = nn.Embedding(5, 3)
    optimizer = Muon(adamw=AdamW(lr=0.25)).build(model)
    assert [g["lr"] for g in optimizer.param_groups] == [0.25]


def test_a_tied_parameter_is_moved_once():
    model = Tiny()
    model.head.weight = model.embed.weight
    names = [name for g in AdamW().build(model).param_groups for name in g["param_names"]]
    assert "embed.weight" in names and "head.weight" not in names
    assert len(names) == len(set(names))


def test_one_factor_scales_the_rate_of_every_group_from_its_peak():
    optimizer = Muon(lr=0.5, adamw=AdamW(lr=0.25)).build(Tiny())
    optimizer.scale_lr(0.1)
    optimizer.scale_lr(0.5)
    assert [g["lr"] for g in optimizer.param_groups] == [0.25, 0.125, 0.125]


def test_zero_grad_frees_every_gradient():
    model = Tiny()
    optimizer = Muon().build(model)
    backward(model, 1)
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_parameters_without_a_gradient_stay():
    model = Tiny()
    optimizer = Muon().build(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_adamw_is_fused_on_this_processor_and_builds_on_the_meta_device():
    assert AdamW().build(Tiny()).parts[0].defaults["fused"] is True
    assert AdamW().build(Tiny().to("meta")).parts[0].defaults["fused"] is False


@pytest.mark.parametrize(
    "fields",
    [
        {"lr": -1.0},
        {"lr": 0.0},
        {"lr": float("inf")},
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"decay": -1.0},
        {"lr": float("nan")},
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(fields):
    with pytest.raises(SpecError, match=next(iter(fields))):
        AdamW(**fields)


def test_an_optimizer_is_read_back_from_plain_data():
    spec = Muon(lr=0.03, adamw=AdamW(beta2=0.99))
    assert Optimizer.from_dict(spec.to_dict()) == spec
