"""What the queries and keys of linear attention become before they meet.

EluPlusOne:    elu(x) + 1                                Katharopoulos et al. 2020 (arXiv:2006.16236), equation 7
UnitLength:    x / sqrt(|x|^2 + eps)                     Yang et al. 2024 (arXiv:2406.06484), section 3.3
RandomPositive: exp(w_i . x' - |x'|^2 / 2) / sqrt(m),  i = 1 .. m,  x' = x / K^(1/4)
                                                         Choromanski et al. 2020 (arXiv:2009.14794), lemma 1
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.specs import NotNegative, Seed, Size, Spec


class Feature(Spec, abstract=True):
    """What queries and keys become."""

    @property
    def unit_length(self) -> bool:
        """Whether no query or key is longer than 1."""
        return False

    def build(self, key_width: int) -> FeatureModule:
        """Returns the module for queries and keys of this width."""
        raise NotImplementedError(type(self).__name__)


class FeatureModule(nn.Module):
    """A function of queries and of keys; this one leaves them as they are.

    Attributes:
        width: the width of what it returns.
        flops: operations of its matrix product for one query or key.
    """

    flops = 0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Float[Tensor, "B T H K"]) -> Float[Tensor, "B T H M"]:
        """Returns the features."""
        return x


class Plain(Feature):
    """Leaves queries and keys as they are."""

    def build(self, key_width: int) -> FeatureModule:
        """Returns the module."""
        return FeatureModule(key_width)


class EluPlusOne(Feature):
    """Makes every value positive."""

    def build(self, key_width: int) -> FeatureModule:
        """Returns the module."""
        return EluPlusOneModule(key_width)


class EluPlusOneModule(FeatureModule):
    """The module of `EluPlusOne`."""

    def forward(self, x: Float[Tensor, "B T H K"]) -> Float[Tensor, "B T H M"]:
        """Returns the features."""
        return F.elu(x) + 1


class UnitLength(Feature):
    """Gives every query and key length 1, with which the delta rule is stable.

    Attributes:
        eps: what is added to the squared length.
    """

    eps: NotNegative = 1e-6

    @property
    def unit_length(self) -> bool:
        """True."""
        return True

    def build(self, key_width: int) -> FeatureModule:
        """Returns the module."""
        return UnitLengthModule(key_width, self.eps)


class UnitLengthModule(FeatureModule):
    """The module of `UnitLength`."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width)
        self.eps = eps

    def forward(self, x: Float[Tensor, "B T H K"]) -> Float[Tensor, "B T H M"]:
        """Returns the features, computed in float32 or wider."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * (wide.square().sum(-1, keepdim=True) + self.eps).rsqrt()).to(x.dtype)


class RandomPositive(Feature):
    """Positive features whose products are, on average over the draw, exp(q . k / sqrt(K)): FAVOR+ of Performer.

    Attributes:
        features: how many; more make the products vary less.
        seed: of the draw. Features are drawn once, orthogonal in blocks of K, and saved with the weights.
    """

    features: Size = 256
    seed: Seed = 0

    def build(self, key_width: int) -> FeatureModule:
        """Returns the module for queries and keys of this width."""
        return RandomPositiveModule(self, key_width)


class RandomPositiveModule(FeatureModule):
    """The module of `RandomPositive`."""

    directions: Tensor

    def __init__(self, spec: RandomPositive, key_width: int) -> None:
        super().__init__(spec.features)
        self.flops = 2 * spec.features * key_width
        self.register_buffer("directions", torch.empty(spec.features, key_width))
        if not self.directions.is_meta:
            self.directions.copy_(orthogonal_normals(spec.features, key_width, seed=spec.seed))

    def forward(self, x: Float[Tensor, "B T H K"]) -> Float[Tensor, "B T H M"]:
        """Returns the features; exponents are computed in float32 or wider."""
        x = x * x.shape[-1] ** -0.25
        exponent = x @ self.directions.to(x.dtype).mT
        wide = torch.promote_types(x.dtype, torch.float32)
        exponent = exponent.to(wide) - x.to(wide).square().sum(-1, keepdim=True) / 2
        return exponent.exp() * self.width**-0.5


def orthogonal_normals(count: int, width: int, *, seed: int) -> Float[Tensor, "M K"]:
    """Returns vectors that are normal each by itself, and orthogonal to the others of their block of ``width``."""
    generator = torch.Generator("cpu").manual_seed(seed)
    blocks = -(-count // width)
    drawn = torch.randn(2, blocks, width, width, generator=generator, dtype=torch.float64, device="cpu")
    turns, upper = torch.linalg.qr(drawn[0])
    turns = turns * upper.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # so that every turn is as likely
    lengths = drawn[1].norm(dim=-1, keepdim=True)
    return (lengths * turns).flatten(0, 1)[:count].float()
