"""A model that reads whole sequences at once: every token sees those before and after it.

Source: Devlin et al. 2019 (BERT, arXiv:1810.04805), section 3.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.context import Batch, Context, Penalties
from groundup.errors import SpecError
from groundup.model.pool import NoPool, Pool
from groundup.model.stack import Stack, StackModule


class Encoder(Stack):
    """A model that reads whole sequences at once.

    Attributes:
        pool: what makes one vector of a text, for models that were trained with one.
    """

    pool: Pool = NoPool()

    def __post_init__(self) -> None:
        super().__post_init__()
        for i, layer in enumerate(self.layers):
            for name, part in layer.every_part.items():
                if part.mixer.hides:
                    raise SpecError(
                        f"layers.{i}.{name}.mixer is {part.mixer!r}, which hides what comes after; an Encoder reads "
                        "all at once, so choose Attention with the mask Everything() or Near(...)"
                    )
                if part.mixer.reads_memory:
                    raise SpecError(f"layers.{i}.{name}.mixer reads what an encoder made; an Encoder has none, drop it")

    def module(self) -> EncoderModel:
        """Returns the model with weights that are not drawn yet."""
        return EncoderModel(self)

    def build(self, *, seed: int = 0) -> EncoderModel:
        """Returns the model with its first weights drawn; on the meta device, only their shapes."""
        return super().build(seed=seed)


class EncoderModel(StackModule):
    """The module of `Encoder`."""

    def __init__(self, spec: Encoder) -> None:
        super().__init__(spec)
        self.pool = spec.pool.build(spec.width)

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        *,
        lengths: Int[Tensor, "B"] | None = None,
        types: Int[Tensor, "B T"] | None = None,
        central: Bool[Tensor, "B T"] | None = None,
        segments: Int[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Returns the head's logits of every token, in float32; the arguments are those of `hidden`."""
        given = {"lengths": lengths, "types": types, "central": central}
        return self.logits(self.hidden(ids, segments=segments, positions=positions, **given))

    def hidden(
        self,
        ids: Int[Tensor, "B T"],
        *,
        lengths: Int[Tensor, "B"] | None = None,
        types: Int[Tensor, "B T"] | None = None,
        central: Bool[Tensor, "B T"] | None = None,
        segments: Int[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        penalties: Penalties | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Returns the final hidden states.

        Args:
            ids: token ids.
            lengths: how many tokens of each row are real, the rest being padding on the right; None means all.
            types: which of two texts each token belongs to, for models that were trained on pairs; None means the
                first. Tokens of both see each other.
            central: which tokens see all and are seen by all, in models whose other tokens see a window (Longformer);
                None means those that the model's attention says.
            segments: which document of its row each token belongs to; None means one a row.
            positions: the place of each token in its document; None means 0, 1, 2, ...
            penalties: where parts put what they add to the loss; None means that nobody asks.
        """
        packing = {"segments": segments, "positions": positions}
        given = {"lengths": lengths, "types": types, "central": central}
        return self.run(ids, Context.whole(ids, penalties=penalties, **given, **packing))

    def read(self, batch: Batch, *, penalties: Penalties | None = None) -> Float[Tensor, "B T D"]:
        """Returns the hidden states of whole rows from which a batch's targets are predicted."""
        packing = {"segments": batch.segments, "positions": batch.positions}
        return self.hidden(batch.ids, penalties=penalties, **packing)
