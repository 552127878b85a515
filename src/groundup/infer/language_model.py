"""A model as its users meet it: text in and text out, with its tokenizer beside it.

model = load("runs/quickstart")
print(model.generate("def fib(n):", max_new_tokens=64))
for piece in model.stream("Once upon a time", temperature=0.8): print(piece, end="")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, overload

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.errors import GenerationError, ModelError, TextError
from groundup.files import as_path
from groundup.hub.frame import NO_FRAME, Frame
from groundup.infer import folder as folders
from groundup.infer.continuation import Continuation, stop_tokens
from groundup.infer.generate import steps
from groundup.infer.generation import Generation
from groundup.infer.ids import as_ids, as_rows, several
from groundup.infer.sample import Sampling
from groundup.model.decoder import DecoderModel
from groundup.model.model import Model, ModelModule
from groundup.text.tokenizer import Tokenizer

MAX_NEW_TOKENS = 256  # where nobody says how long a text may be
ROWS = 32  # texts, each beam one, that are read side by side; more wait, so that the memory is bounded

Message = Mapping[str, Any]


class LanguageModel:
    """A model with its tokenizer.

    Attributes:
        module: the torch module, for whoever wants gradients or its parts.
        tokenizer: None for a model that works on ids alone.
        frame: the ids that end a text, if others than the tokenizer's, and what else its folder says of ids.

    Raises:
        ModelError: ``module`` is a spec that was not built, or anything else.
    """

    def __init__(
        self,
        module: DecoderModel,
        *,
        tokenizer: Tokenizer | None = None,
        frame: Frame = NO_FRAME,
    ) -> None:
        if not isinstance(module, ModelModule):
            raise ModelError(f"a LanguageModel takes a module, not a {type(module).__name__}; call the spec's build()")
        self.module = module
        self.tokenizer = tokenizer
        self.frame = frame

    def __repr__(self) -> str:
        weights = sum(parameter.numel() for parameter in self.module.parameters())
        words = "no tokenizer" if self.tokenizer is None else f"a tokenizer of {self.tokenizer.vocab:,} ids"
        return f"<{type(self).__name__} of {weights:,} parameters, context {self.spec.longest:,}, {words}>"

    @property
    def spec(self) -> Model:
        """The frozen tree that describes the model."""
        return self.module.spec

    @torch.no_grad()
    def __call__(self, ids: Tensor | Sequence[Sequence[int]]) -> Float[Tensor, "B T V"]:
        """Returns the logits of the token after each token, in float32.

        Args:
            ids: token ids (B, T), rows of equal length.

        Raises:
            GenerationError: no such ids in the vocabulary, rows of different lengths, or longer than the context.
        """
        return self.module(as_rows(ids, self.spec, device=self._device))

    @torch.no_grad()
    def hidden(self, ids: Tensor | Sequence[Sequence[int]]) -> Float[Tensor, "B T D"]:
        """Returns the final hidden states, which the head reads; argument and errors are those of a call."""
        return self.module.hidden(as_rows(ids, self.spec, device=self._device))

    @overload
    def generate(
        self, prompt: str, *, max_new_tokens: int | None = ..., stop: str | Sequence[str] = ..., **sampling: Any
    ) -> str: ...
    @overload
    def generate(
        self, prompt: list[str], *, max_new_tokens: int | None = ..., stop: str | Sequence[str] = ..., **sampling: Any
    ) -> list[str]: ...
    @overload
    def generate(
        self, prompt: list[int], *, max_new_tokens: int | None = ..., stop: str | Sequence[str] = ..., **sampling: Any
    ) -> list[int]: ...
    def generate(
        self,
        prompt: str | list[str] | list[int],
        *,
        max_new_tokens: int | None = MAX_NEW_TOKENS,
        stop: str | Sequence[str] = (),
        **sampling: Any,
    ) -> str | list[str] | list[int]:
        """Returns the text that follows a prompt, the texts that follow several, or the ids that follow some ids.

        Args:
            prompt: a text, texts or token ids; an empty text starts from the tokenizer's begin token, or else its end
                token.
            max_new_tokens: the most new tokens of each; None means up to the model's context.
            stop: texts before which the answer ends; the name of a special token means that token.
            **sampling: settings of `Sampling`, such as ``temperature=0.8`` or ``beams=4``.

        Raises:
            TextError: the model has no tokenizer.
            GenerationError: a prompt or a setting that cannot be used, such as a prompt longer than the context.
            ConfigError: there is no such setting, or it has a value of another type.
        """
        given = [prompt] if isinstance(prompt, str) else several(prompt, expected="a text or a list of texts")
        of_ids = bool(given) and all(isinstance(one, SupportsIndex) for one in given)
        prompts: list[Any] = [given] if of_ids else given
        made = self.generations(prompts, max_new_tokens=max_new_tokens, stop=stop, **sampling)
        if of_ids:
            return made[0].ids
        return made[0].text if isinstance(prompt, str) else [one.text for one in made]

    def generate_ids(
        self, prompt: Sequence[int], *, max_new_tokens: int | None = MAX_NEW_TOKENS, **sampling: Any
    ) -> list[int]:
        """Returns the token ids that follow those of a prompt; arguments and errors are those of `generate`."""
        return self.generations([prompt], max_new_tokens=max_new_tokens, **sampling)[0].ids

    def generations(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        max_new_tokens: int | None = MAX_NEW_TOKENS,
        stop: str | Sequence[str] = (),
        seeds: Sequence[int] | None = None,
        logprobs: bool = False,
        **sampling: Any,
    ) -> list[Generation]:
        """Returns what follows each prompt with its ids, the reason of its end and, where asked, log-probabilities.

        Args:
            prompts: texts or token ids.
            max_new_tokens: the most new tokens of each; None means up to the model's context.
            stop: texts before which an answer ends; the name of a special token means that token.
            seeds: one for each prompt; None gives all the one seed of the sampling, so equal prompts give equal texts.
            logprobs: whether to keep the log-probability of each new token.
            **sampling: settings of `Sampling`.

        Raises:
            TextError: a text, and the model has no tokenizer.
            GenerationError: a prompt or a setting that cannot be used.
            ConfigError: there is no such setting.
        """
        prompts = several(prompts, expected="a list of texts or of lists of token ids")
        own = [None] * len(prompts) if seeds is None else several(seeds, expected="a list of seeds")
        if len(own) != len(prompts):
            raise GenerationError(f"there are {len(own)} seeds for {len(prompts)} prompts; give one for each")
        rows = [
            self._row(prompt, seed=_seed(seed), logprobs=[] if logprobs else None)
            for prompt, seed in zip(prompts, own, strict=True)
        ]
        settings = Sampling.from_dict(sampling)
        together = max(1, ROWS // settings.beams)
        for first in range(0, len(rows), together):
            for _ in self._pieces(rows[first : first + together], most=max_new_tokens, stop=stop, sampling=settings):
                pass
        return rows

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int | None = MAX_NEW_TOKENS,
        stop: str | Sequence[str] = (),
        **sampling: Any,
    ) -> Iterator[str]:
        """Yields the text that follows a prompt as it comes, whole characters and nothing of a stop string.

        Arguments and errors are those of `generate`. Where beams compete, all comes when the winner is known.
        """
        self._words()
        settings = Sampling.from_dict(sampling)
        yield from filter(None, self._pieces([self._row(prompt)], most=max_new_tokens, stop=stop, sampling=settings))

    def chat(self, messages: Sequence[Message], **settings: Any) -> str:
        """Returns the model's answer to a conversation, written as its chat template writes it.

        Args:
            messages: mappings with ``role`` and ``content``, in order.
            **settings: those of `generate`.

        Raises:
            TextError: the model has no tokenizer, or that has no chat template or refuses the messages.
        """
        return "".join(self.stream_chat(messages, **settings))

    def stream_chat(self, messages: Sequence[Message], **settings: Any) -> Iterator[str]:
        """Yields the answer of `chat` as it comes."""
        words = self._words()
        yield from self.stream(words.encode(words.chat(messages), markup=True), **settings)

    def prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        """Returns the token ids that the model starts from: ids as they are, a text with the tokenizer's frame.

        Raises:
            TextError: a text, and the model has no tokenizer.
            GenerationError: ids that are no whole numbers; or nothing to start from: the text is empty, and the
                tokenizer has no begin or end token.
        """
        if not isinstance(prompt, str):
            return as_ids(prompt)
        words = self._words()
        start = (id for id in (words.begin, words.end) if id is not None)
        ids = words.encode(prompt, framed=True) or list(start)[:1]
        if not ids:
            raise GenerationError("the prompt is empty and the tokenizer has no begin or end token; give some text")
        return ids

    def save(self, folder: str | Path, *, force: bool = False) -> None:
        """Writes the model and its tokenizer to a new folder, which `load` reads.

        Args:
            folder: a new or empty one.
            force: replace a model that is there already.

        Raises:
            StorageError: the folder holds a model and ``force`` is not set, holds anything else, or cannot be written.
        """
        folders.save(
            self.module,
            as_path(folder),
            tokenizer=self.tokenizer,
            frame=self.frame,
            force=force,
            beside=self._write_beside,
        )

    def _pieces(
        self, rows: list[Generation], *, most: int | None, stop: str | Sequence[str], sampling: Sampling
    ) -> Iterator[str]:
        """Runs the loop, keeps the rows' texts and yields each new piece of them, sometimes an empty one."""
        words = None if self.tokenizer is None and not stop else self._words()
        ends, stops = stop_tokens(stop, words)
        ends |= set(self.frame.ends) or ({words.end} if words and words.end is not None else set())
        texts = {} if words is None else {row: Continuation(words, after=row.prompt_ids, stop=stops) for row in rows}
        vocab = None if words is None else words.vocab
        for moved in steps(self.module, rows, sampling=sampling, max_new_tokens=most, ends=ends, vocab=vocab):
            for row in moved:
                if row in texts:
                    yield texts[row].follow(row)

    def _write_beside(self, folder: Path) -> None:
        """Writes what a folder says of a model besides its weights and its tokenizer."""

    def _row(self, prompt: str | Sequence[int], **settings: Any) -> Generation:
        """Returns what is to be made of a prompt."""
        return Generation(prompt_ids=self.prompt_ids(prompt), **settings)

    def _words(self) -> Tokenizer:
        if self.tokenizer is None:
            raise TextError(
                "this model has no tokenizer, so it takes and gives token ids alone; put a tokenizer.json beside its "
                "weights, or use generate_ids"
            )
        return self.tokenizer

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device


def _seed(seed: Any) -> int | None:
    return None if seed is None else Sampling.from_dict({"seed": seed}).seed
