"""What every model's spec is: one stack of layers, or several that work together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from jaxtyping import Float
from torch import Tensor, nn

from groundup.context import Batch, Penalties
from groundup.specs import Seed, Spec, check

if TYPE_CHECKING:
    from groundup.model.stack import Stack, StackModule


class Model(Spec, abstract=True):
    """A model that can be built, planned, read from files and written to them."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # the settings of its kind

    @property
    def stacks(self) -> Mapping[str, Stack]:
        """Its stacks of layers, by the names of their modules; that of a model that is one stack is empty."""
        raise NotImplementedError(type(self).__name__)

    @property
    def depth(self) -> int:
        """The layers of its deepest stack."""
        return max(len(stack.layers) for stack in self.stacks.values())

    @property
    def longest(self) -> int:
        """The longest sequence that it is meant for, in tokens."""
        raise NotImplementedError(type(self).__name__)

    @property
    def predictor(self) -> Stack:
        """The stack whose head predicts tokens: the last."""
        *_, last = self.stacks.values()
        return last

    def with_words(self, vocab: int, *, end: int) -> Self:
        """Returns the model for another tokenizer: with its number of token ids, and the one that ends a text."""
        raise NotImplementedError(type(self).__name__)

    def with_distinct_layers(self) -> Self:
        """Returns the model with each distinct layer of its stacks once, which is all that its figures depend on."""
        raise NotImplementedError(type(self).__name__)

    def module(self) -> ModelModule:
        """Returns the model with weights that are not drawn yet."""
        raise NotImplementedError(type(self).__name__)

    def build(self, *, seed: int = 0) -> Any:
        """Returns the model with its first weights drawn; on the meta device, only their shapes.

        Raises:
            SpecError: the seed is no whole number from 0 to 2**63 - 1.
        """
        check(seed, Seed, name="seed")
        model = self.module()
        for name, stack in self.stacks.items():
            residuals = sum(len(layer.parts) for layer in stack.layers)
            stack.init.fill(model.get_submodule(name), residuals=residuals, seed=seed)
        return model


class ModelModule(nn.Module):
    """The module of a `Model`.

    Attributes:
        spec: what it was built from.
    """

    spec: Model

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # its parts, which depend on the spec

    @property
    def predictor(self) -> StackModule:
        """The stack whose head predicts tokens."""
        raise NotImplementedError(type(self).__name__)

    def read(self, batch: Batch, *, penalties: Penalties | None = None) -> Float[Tensor, "B T D"]:
        """Returns the hidden states of whole rows from which a batch's targets are predicted.

        Args:
            batch: what to read.
            penalties: where parts put what they add to the loss; None means that nobody asks.
        """
        raise NotImplementedError(type(self).__name__)
