"""A comparison brings designs to one size, trains them alike, and says who is better beyond chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from groundup.data.shards import build
from groundup.errors import ConfigError, DataError, ModelError, StorageError, TrainingError
from groundup.files import alone
from groundup.optim.joint import JointOptimizer
from groundup.optim.optimizers import AdamW
from groundup.recipes.compare import compare, named
from groundup.recipes.comparison import Comparison
from groundup.recipes.settings import read_spec
from groundup.recipes.watch import Watch
from groundup.text.train import train

SMALL = ["data.vocab=280", "context=32", "rows=2"]


class Brittle(AdamW):
    """Breaks the weights in its fifth step at any rate above AdamW's own."""

    def build(self, model: nn.Module, *, products: torch.dtype = torch.float32) -> JointOptimizer:
        made = super().build(model, products=products)
        if self.lr > AdamW().lr:
            made.parts[0].register_step_post_hook(self.broken)
        return made

    @staticmethod
    def broken(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for weight, state in optimizer.state.items():
            weight.data[state["step"].expand_as(weight) > 4] = float("nan")


class Late(AdamW):
    """Breaks the weights once, at a step that is told it."""

    at: ClassVar[int | None] = None

    def build(self, model: nn.Module, *, products: torch.dtype = torch.float32) -> JointOptimizer:
        made = super().build(model, products=products)
        made.parts[0].register_step_post_hook(self.broken)
        return made

    @staticmethod
    def broken(optimizer: torch.optim.Optimizer, *_: object) -> None:
        weight, state = next(iter(optimizer.state.items()))
        if Late.at is not None and state["step"] > Late.at:
            weight.data.fill_(float("nan"))
            Late.at = None


class Stages(Watch):
    def __init__(self, *, stop: str = "never") -> None:
        self.titles: list[str] = []
        self.until = stop

    def stage(self, title: str) -> None:
        self.titles.append(title)
        if self.until in title:
            raise KeyboardInterrupt


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i}.txt").write_text(f"Document {i}. " + "the cat sat on the mat and saw a rat. " * (5 + i % 7))
    return folder


def corpus(texts: Path, folder: Path, *, held_out: float) -> None:
    words = train([path.read_text() for path in texts.iterdir()], vocab=280)
    build(texts, folder, tokenizer=words, held_out=held_out)


def test_designs_are_named_by_presets_and_how_they_begin():
    found = named(["gpt2", "llama", "mamba", "rwkv", "lstm"])
    mixers = [type(part.mixer).__name__ for spec in found.values() if (part := spec.layers[0].mix)]
    assert mixers == ["Attention", "Attention", "Mamba", "RWKV4", "LSTM"]


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        (["gpt2"], ConfigError, "needs two architectures"),
        (["gpt2", "gpt2"], ConfigError, "gpt2 is there twice"),
        (["gpt2", "bert-base"], ModelError, "bert-base does not read from left to right"),
        (["gpt2", "gtp2"], ModelError, "did you mean 'gpt2'"),
    ],
)
def test_what_cannot_be_compared_is_refused(models: list[str], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        named(models)


def test_too_small_a_budget_is_refused_before_any_run(texts: Path, tmp_path: Path):
    for budget in (0.05, 0.06):  # what was refused may be asked for otherwise in the same folder
        with pytest.raises(ConfigError, match=r"give a --budget of [0-9]+m or fewer architectures"):
            compare(["gpt2", "llama"], folder=tmp_path / "c", budget=budget, source=str(texts), settings=SMALL)


@pytest.mark.parametrize(
    ("source", "setting", "error", "message"),
    [
        ("texts", "objective=prefixlm", ConfigError, "objective=PrefixLM does not score whole documents"),
        ("nowhere", "rows=2", DataError, "nowhere"),
        ("corpus", "rows=2", DataError, "holds no text out"),
    ],
)
def test_what_no_run_could_be_scored_on_is_refused_before_anything_is_made(
    texts: Path, tmp_path: Path, source: str, setting: str, error: type[Exception], message: str
):
    corpus(texts, tmp_path / "corpus", held_out=0.0)
    with pytest.raises(error, match=message):
        compare(["gpt2", "llama"], folder=tmp_path / "c", source=str(tmp_path / source), settings=[*SMALL, setting])
    assert not (tmp_path / "c").exists()


def test_a_folder_is_compared_in_by_one_process_at_a_time(texts: Path, tmp_path: Path):
    with alone(tmp_path), pytest.raises(StorageError, match="another process works on"):
        compare(["gpt2", "llama"], folder=tmp_path, budget=0.05, source=str(texts), settings=SMALL)


@pytest.mark.slow
def test_a_corpus_is_compared_on_and_a_rate_that_diverges_is_left_out(texts: Path, tmp_path: Path):
    corpus(texts, tmp_path / "corpus", held_out=0.2)
    asked: dict[str, Any] = {"folder": tmp_path / "c", "budget": 10.0, "seeds": 1, "source": str(tmp_path / "corpus")}
    found = compare(["gpt2", "lstm"], settings=[*SMALL, "optimizer=brittle"], **asked)
    for row in found["entrants"]:
        assert row["rates_diverged"] == [2.0] and row["rate_factor"] <= 1
        assert f"{row['name']} did not train at 2 times the rates" in (tmp_path / "c" / "index.html").read_text()
    assert not (tmp_path / "c" / "corpus").exists()
    for path in (tmp_path / "c").glob("*/memory.json"):  # as on a system that does not forget a peak
        told = [at | {"measured_training_bytes": None} for at in json.loads(path.read_text())]
        path.write_text(json.dumps(told))
    again = compare(["gpt2", "lstm"], settings=[*SMALL, "optimizer=brittle"], **asked)
    assert again["verdict"] == found["verdict"]


@pytest.mark.slow
def test_a_rate_at_which_a_whole_run_diverges_is_left_out(texts: Path, tmp_path: Path):
    asked: dict[str, Any] = {"folder": tmp_path / "c", "budget": 10.0, "seeds": 2, "source": str(texts)}
    asked["settings"] = [*SMALL, "optimizer=late"]
    with pytest.raises(KeyboardInterrupt):
        compare(["gpt2", "lstm"], watch=Stages(stop="gpt2, seed 2"), **asked)
    Late.at = read_spec(tmp_path / "c" / "comparison.yaml", Comparison).entrants[0].steps // 2
    watch = Stages()
    found = compare(["gpt2", "lstm"], watch=watch, **asked)
    row = next(row for row in found["entrants"] if row["name"] == "gpt2")
    assert len(row["rates_diverged"]) == 1 and row["rate_factor"] not in row["rates_diverged"]
    assert [title for title in watch.titles if "gpt2, seed" in title][-2:] == ["gpt2, seed 1 of 2", "gpt2, seed 2 of 2"]


@pytest.mark.slow
def test_an_architecture_that_trains_at_no_rate_is_told(texts: Path, tmp_path: Path):
    asked: dict[str, Any] = {"folder": tmp_path / "c", "budget": 10.0, "seeds": 1, "source": str(texts)}
    with pytest.raises(TrainingError, match=r"gpt2 does not train at any of the rates from 0\.125 to 2 times"):
        compare(["gpt2", "lstm"], settings=[*SMALL, "optimizer=brittle", "optimizer.lr=1.0"], **asked)


@pytest.mark.slow
def test_a_comparison_that_was_stopped_goes_on_and_takes_another_architecture(texts: Path, tmp_path: Path):
    folder = tmp_path / "c"
    asked: dict[str, Any] = {"budget": 20.0, "seeds": 2, "source": str(texts), "settings": SMALL}
    with pytest.raises(KeyboardInterrupt):
        compare(["gpt2", "rwkv"], folder=folder, watch=Stages(stop="rwkv, seed 1"), **asked)
    watch = Stages()
    found = compare(["gpt2", "rwkv"], folder=folder, watch=watch, **asked)
    assert [title for title in watch.titles if "seed" in title] == ["rwkv, seed 1 of 2", "rwkv, seed 2 of 2"]
    rows = found["entrants"]
    assert {row["name"] for row in rows} == {"gpt2", "rwkv"}
    assert rows[0]["bits_per_byte"]["value"] <= rows[1]["bits_per_byte"]["value"]
    assert rows[1]["verdict"] in ("worse", "cannot tell")
    assert max(row["matched"] for row in rows) / min(row["matched"] for row in rows) < 1.03
    for row in rows:
        for point in row["memory"]:
            assert point["planned_state_bytes"] == point["measured_state_bytes"]
    assert json.loads((folder / "comparison.json").read_text()) == found
    page = (folder / "index.html").read_text()
    assert all(sentence.split()[0] in page for sentence in found["verdict"])

    more = compare(["gpt2", "rwkv", "lstm"], folder=folder, **asked)
    assert len(more["entrants"]) == 3
    before = {row["name"]: row["bits_per_byte"]["value"] for row in rows}
    assert before.items() <= {row["name"]: row["bits_per_byte"]["value"] for row in more["entrants"]}.items()
    with pytest.raises(ConfigError, match="holds a comparison with seeds=2 and not 3; give another --out"):
        compare(["gpt2", "rwkv"], folder=folder, **asked | {"seeds": 3})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds no comparison"):
        compare(["gpt2", "rwkv"], folder=tmp_path / "full", **asked)
