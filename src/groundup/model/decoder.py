"""A language model that reads from left to right, whole sequences or piece by piece with a state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.context import Batch, Context, Penalties
from groundup.errors import GenerationError, SpecError
from groundup.model.layer import LayerModule, LayerState
from groundup.model.stack import Stack, StackModule
from groundup.state import State


class Decoder(Stack):
    """A language model that reads from left to right.

    Attributes:
        width: the width of the residual stream.
        vocab: how many token ids there are.
        context: the longest sequence that it is meant for, in tokens.
        layers: the layers, first to last; see `groundup.pattern` for those that repeat.
        embed: how token ids become vectors.
        norm: the norm before the head.
        head: what makes logits.
        init: how weights start.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for i, layer in enumerate(self.layers):
            for name, part in layer.every_part.items():
                if not part.mixer.causal:
                    path = f"layers.{i}.{name}.mixer"
                    raise SpecError(
                        f"{path} is {part.mixer!r}, which sees what comes after; a Decoder must not, an Encoder may"
                    )

    @property
    def prefixed(self) -> bool:
        """Whether the first tokens of a row, its prefix, see each other where it is said how many they are."""
        return any(part.mixer.prefixed for layer in self.layers for part in layer.every_part.values())

    @property
    def breaks(self) -> frozenset[int]:
        """The lengths beyond which a part reads all of a text in another way, see `MixerSpec.steady_until`."""
        ends = (part.mixer.steady_until for layer in self.layers for part in layer.every_part.values())
        return frozenset(end for end in ends if end is not None)

    def module(self) -> DecoderModel:
        """Returns the model with weights that are not drawn yet."""
        return DecoderModel(self)

    def build(self, *, seed: int = 0) -> DecoderModel:
        """Returns the model with its first weights drawn; on the meta device, only their shapes."""
        return super().build(seed=seed)


@dataclass
class DecoderState(State):
    """What a decoder remembers of its rows.

    Attributes:
        seen: tokens that each row has read, (B,).
        layers: the states of the layers' parts.
        reach: an upper bound of ``seen``, known without asking the device.
        room: the most tokens a row may read.
    """

    seen: Int[Tensor, "B"]
    layers: tuple[LayerState, ...]
    reach: int
    room: int

    def rewind(self, length: Tensor) -> None:
        """Forgets, in place, all but the first ``length`` (B,) tokens of each row."""
        super().rewind(length)
        self.seen.copy_(torch.minimum(self.seen, length))
        self.tighten()

    def tighten(self) -> None:
        """Makes ``reach`` exact, which asks the device; it is too large after padding, lost rows or compiled steps."""
        self.reach = max(self.seen.tolist(), default=0)


class DecoderModel(StackModule):
    """The module of `Decoder`."""

    spec: Decoder  # pyrefly: ignore[bad-override-mutable-attribute]: nobody gives a module another spec

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        state: DecoderState | None = None,
        *,
        segments: Int[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        lengths: Int[Tensor, "B"] | None = None,
        memory: Float[Tensor, "B M D"] | None = None,
        memory_lengths: Int[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Returns the logits of the token after each token, in float32; the arguments are those of `hidden`."""
        given = {"segments": segments, "positions": positions, "memory": memory, "memory_lengths": memory_lengths}
        return self.logits(self.hidden(ids, state, lengths=lengths, **given))

    def hidden(
        self,
        ids: Int[Tensor, "B T"],
        state: DecoderState | None = None,
        *,
        segments: Int[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        lengths: Int[Tensor, "B"] | None = None,
        prefix: Int[Tensor, "B"] | None = None,
        memory: Float[Tensor, "B M D"] | None = None,
        memory_lengths: Int[Tensor, "B"] | None = None,
        penalties: Penalties | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Returns the hidden states that the head reads.

        Args:
            ids: token ids.
            state: None reads whole sequences; a state from `new_state` is continued, in place.
            segments: which document of its row each token belongs to; None means one a row. Only without a state.
            positions: the place of each token in its document; None means 0, 1, 2, ... Only without a state.
            lengths: how many tokens of each row are real, the rest being padding on the right. Only with a state:
                without one, padding on the right changes nothing before it, unless the model `breaks` at a length.
            prefix: how many of the first tokens of each row see each other, where masks have prefixes; None means none.
                With a state, these are tokens of this call.
            memory: what cross parts attend to. Only without a state, which holds what it needs of it.
            memory_lengths: how many tokens of each row of the memory are real; None means all.
            penalties: where parts put what they add to the loss; None means that nobody asks. Only without a state.

        Raises:
            GenerationError: the state has no room for these tokens, or segments or positions came with a state.
        """
        if state is None:
            given = {"memory": memory, "memory_lengths": memory_lengths, "prefix": prefix}
            ctx = Context.whole(ids, segments=segments, positions=positions, penalties=penalties, **given)
        elif segments is None and positions is None:
            ctx = self._continue(ids, state, lengths, prefix)
        else:
            raise GenerationError("segments and positions are for whole sequences; a state has its own places")
        x = self.run(ids, ctx, None if state is None else state.layers)
        if state is not None:
            state.seen.add_(ids.shape[1] if lengths is None else lengths)
        return x

    def read(self, batch: Batch, *, penalties: Penalties | None = None) -> Float[Tensor, "B T D"]:
        """Returns the hidden states of whole rows from which a batch's targets are predicted."""
        packing = {"segments": batch.segments, "positions": batch.positions}
        return self.hidden(batch.ids, prefix=batch.prefix, penalties=penalties, **packing)

    def _continue(self, ids: Tensor, state: DecoderState, lengths: Tensor | None, prefix: Tensor | None) -> Context:
        if torch.compiler.is_compiling():  # one graph for all steps: no number that grows, and a mask over every slot
            state.reach = state.room
            return Context.after(state.seen, ids.shape[1], reach=state.room, lengths=lengths, prefix=prefix)
        if state.reach + ids.shape[1] > state.room:
            state.tighten()
        reach = state.reach + ids.shape[1]
        if reach > state.room:
            raise GenerationError(
                f"the state has room for {state.room} tokens and {reach} were to be read; make it with a larger max_len"
            )
        state.reach = reach
        return Context.after(state.seen, ids.shape[1], reach=reach, lengths=lengths, prefix=prefix)

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> DecoderState:
        """Returns the state of ``rows`` rows that have read nothing, with room for ``max_len`` tokens each.

        Args:
            rows: sequences to read side by side.
            max_len: the most tokens that any of them will read, padding included.
            device: where the state lives; None means where the weights are.
            dtype: of keys and values; None means that of the weights.
        """
        weight = self.embed.table
        device, dtype = device or weight.device, dtype or weight.dtype
        layers = (layer for layer in self.layers if isinstance(layer, LayerModule))
        return DecoderState(
            seen=torch.zeros(rows, dtype=torch.int64, device=device),
            layers=tuple(layer.new_state(rows, max_len, device=device, dtype=dtype) for layer in layers),
            reach=0,
            room=max_len,
        )
