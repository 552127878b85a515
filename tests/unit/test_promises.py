"""What a part of the user's own does not keep is found before it learns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import groundup as gu
from groundup.errors import SpecError
from groundup.model.promises import broken, own_kinds
from groundup.recipes.pretrain import pretrain
from groundup.recipes.settings import Data, Run
from groundup.recipes.watch import Watch
from groundup.training.budget import Steps


class Summed(gu.MixerSpec):
    """Adds up the stream, and does one thing wrong."""

    fault: str = ""

    @property
    def steady(self) -> bool:
        return self.fault != "unsteady"

    def build(self, width: int) -> SummedMixer:
        return SummedMixer(self.fault, width)


@dataclass
class SummedState(gu.State):
    held: Tensor


class SummedMixer(gu.Mixer):
    def __init__(self, fault: str, width: int) -> None:
        super().__init__()
        self.fault, self.out = fault, gu.Linear(width, width, bias=False, role="out")
        self.scale = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, ctx: gu.Context, state: Any = None) -> Tensor:
        if self.fault == "eights" and x.shape[1] % 8:
            raise ValueError(f"{x.shape[1]} tokens are no eights")
        if self.fault.startswith("early"):
            x = x.roll(-1, 1)
        if ctx.real is not None and self.fault != "padded":
            x = x * ctx.real[..., None]
        held = x.cumsum(1)
        if ctx.starts is not None and self.fault != "packed":
            first = torch.where(ctx.starts, torch.arange(x.shape[1]), 0).cummax(1).values
            held = held - (held - x).gather(1, first[..., None].expand_as(x))
        if state is not None and self.fault not in ("forgetful", "unsteady"):
            if self.fault == "raising":
                raise KeyError("no such thing")
            held = held + state.held[:, None]
            state.held.copy_(held[:, -1])
        if self.fault == "narrow":
            return x[..., :5]
        if self.fault == "endless":
            return x / 0
        if self.fault == "early at zero":
            held = held * self.scale
        return self.out(held / held.abs().amax(-1, keepdim=True).clamp(min=1.0))

    def new_state(self, rows: int, max_len: int, *, device: Any = None, dtype: Any = None) -> SummedState:
        return SummedState(held=torch.zeros(rows, self.out.in_features, device=device, dtype=dtype))


def model(fault: str) -> gu.Decoder:
    layer = gu.Layer(mix=gu.Residual(Summed(fault=fault)), ffn=gu.Residual(gu.GatedMLP(hidden=8)))
    return gu.Decoder(width=16, vocab=270, context=16, layers=gu.pattern([layer], of=2), head=gu.Tied())


@pytest.mark.parametrize("fault", ["", "unsteady"])
def test_a_mixer_that_keeps_what_it_promises_is_let_alone(fault: str):
    assert broken(model(fault)) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("packed", "a document sees those packed before it"),
        ("forgetful", "a text read in pieces, as when generating, gives other logits"),
        ("padded", "padding behind a row changes what is remembered"),
        ("raising", "KeyError: 'no such thing', where a text is read in pieces"),
    ],
)
def test_what_is_not_kept_is_one_sentence(fault: str, words: str):
    found = broken(model(fault))
    assert words in found[0]
    assert found[0].startswith("Summed: ")


def test_a_mixer_that_sees_later_tokens_is_refused():
    with pytest.raises(SpecError, match="Summed: a later token changes what is made of an earlier one"):
        broken(model("early"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("narrow", r"SummedMixer makes \(2, 12, 5\) of a stream of \(2, 12, 16\); a mixer returns the shape"),
        ("endless", "SummedMixer makes nan or infinity of finite numbers"),
    ],
)
def test_a_mixer_that_makes_no_stream_is_refused(fault: str, words: str):
    with pytest.raises(SpecError, match=words):
        broken(model(fault))


class Divided(gu.RMSNorm):
    """A norm that divides by zero."""

    def build(self, width: int) -> torch.nn.Module:
        class Module(torch.nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x / (x - x)

        return Module()


def test_logits_that_are_no_numbers_are_refused_as_such():
    spec = model("").replace(norm=Divided())
    with pytest.raises(SpecError, match="Divided and Summed: the first weights give logits of nan or infinity"):
        broken(spec)


class Unbuilt(gu.MixerSpec):
    """Has no build."""


class Misbuilt(gu.MixerSpec):
    """Builds what is no mixer."""

    def build(self, width: int) -> Any:
        return torch.nn.Linear(width, width)


@pytest.mark.parametrize(
    ("mixer", "words"),
    [
        (Unbuilt(), r"Unbuilt has no build; define build\(self, width\)"),
        (Misbuilt(), r"Misbuilt.build returns Linear; expected a groundup.Mixer"),
    ],
)
def test_a_spec_without_a_mixer_is_told_where_it_is_built(mixer: gu.MixerSpec, words: str):
    layer = gu.Layer(mix=gu.Residual(mixer))
    with pytest.raises(SpecError, match=words):
        gu.Decoder(width=16, vocab=270, context=16, layers=(layer,), head=gu.Tied()).build()


def test_a_part_that_starts_at_zero_hides_nothing():
    with pytest.raises(SpecError, match="a later token changes"):
        broken(model("early at zero"))


def test_a_mixer_that_cannot_read_a_few_tokens_is_told_and_let_go_on():
    assert broken(model("eights")) == [
        "Summed: ValueError: 12 tokens are no eights, when it was tried on 12 tokens (docs/own-architecture.md)."
    ]


@pytest.mark.parametrize("context", [5, 12, 13])
def test_a_short_context_is_no_fault(context: int):
    spec = model("").replace(context=context, embed=gu.Embed(position=gu.Learned(length=context)))
    assert broken(spec) == []


def test_parts_of_groundup_are_none_of_the_users():
    assert own_kinds(gu.spec("gpt2")) == broken(gu.spec("gpt2")) == []
    assert own_kinds(model("")) == ["Summed"]


class Heard(Watch):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_run_is_told_before_it_begins(tmp_path: Path):
    for i in range(8):
        (tmp_path / f"{i}.txt").write_text(f"{i} times to be or not to be, that is the question. " * 100)
    data = Data(source=str(tmp_path), vocab=270, held_out=0.5)
    run = Run(model=model("early"), data=data, budget=Steps(1), rows=2)
    with pytest.raises(SpecError, match="a later token changes"):
        pretrain(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    watch = Heard()
    pretrain(run.replace(model=model("packed")), tmp_path / "run", watch=watch)
    assert "a document sees those packed before it" in watch.said[0]
