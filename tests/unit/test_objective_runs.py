"""Runs with objectives beside the next token, from text to score."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from groundup.cli import groundup as command
from groundup.errors import ConfigError, GenerationError, TextError
from groundup.families.bert import bert
from groundup.families.llama import llama
from groundup.families.t5 import t5
from groundup.infer.load import load
from groundup.infer.text_encoder import TextEncoder
from groundup.infer.text_to_text import TextToText
from groundup.model.model import Model
from groundup.objectives.denoising import Denoising
from groundup.objectives.diffusion import MaskedDiffusion
from groundup.objectives.masked import Masked, WholeWords
from groundup.objectives.mixture import Mixture
from groundup.objectives.objective import Objective
from groundup.objectives.prefix import PrefixLM
from groundup.objectives.span_corruption import SpanCorruption
from groundup.objectives.translation import Translation
from groundup.optim.optimizers import AdamW, Muon
from groundup.planner.audit import audit
from groundup.recipes.evaluate import evaluate
from groundup.recipes.pretrain import pretrain, resume
from groundup.recipes.prove import prove
from groundup.recipes.settings import Data, Run, read_run
from groundup.recipes.train import resolve_run, train
from groundup.recipes.watch import Watch
from groundup.text.train import train as train_tokenizer
from groundup.training.budget import Steps, updates
from groundup.training.steps import Step

BERT = bert(width=16, layers=1, heads=2, vocab=400, context=24)
LLAMA = llama(width=16, layers=1, heads=2, hidden=24, vocab=400, context=24, tied=True)
T5 = t5(width=16, layers=1, heads=2, head_width=8, hidden=24, vocab=400, context=32)
CASES: dict[str, tuple[Model, Objective]] = {
    "masked": (BERT, Masked()),
    "masked, whole words": (BERT, Masked(unit=WholeWords())),
    "diffusion": (BERT, MaskedDiffusion()),
    "span corruption": (T5, SpanCorruption()),
    "span corruption, decoder": (LLAMA, SpanCorruption()),
    "denoising": (T5, Denoising()),
    "prefix": (LLAMA, PrefixLM()),
    "mixture": (T5, Mixture()),
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    draw = random.Random(0)
    for number in range(40):
        lines = (f"The {draw.choice(['cat', 'dog', 'cow'])} sat on mat {draw.randrange(50)}.\n" for _ in range(12))
        (folder / f"{number}.txt").write_text("".join(lines))
    return folder


def settings(texts: Path, name: str) -> Run:
    model, objective = CASES[name]
    data = Data(source=str(texts), vocab=270 + len(objective.special), held_out=0.2)
    return Run(model=model, objective=objective, data=data, budget=Steps(4), rows=4, evaluations=2, optimizer=AdamW())


class Stop(Watch):
    """Presses Ctrl-C in a step, as a user would."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: Step, **_figures: float | None) -> None:
        import signal

        if step.tally.steps == self.at:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_planned_trained_resumed_and_scored(name: str, texts: Path, tmp_path: Path) -> None:
    run = settings(texts, name)
    whole = pretrain(run, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        pretrain(run, tmp_path / "stopped", watch=Stop(at=2))
    again = resume(tmp_path / "stopped")
    weights = [path.read_bytes() for path in sorted(tmp_path.glob("*/checkpoints/step-000004/model.safetensors"))]
    assert weights[0] == weights[1]
    assert again.score == whole.score
    found = {entry.quantity: entry for entry in audit(tmp_path / "whole").entries}
    assert found["parameters"].error == 0
    if not isinstance(
        run.objective, PrefixLM | Mixture | MaskedDiffusion
    ):  # whose lengths are drawn, so that the plan holds in the mean
        assert found["step_flops"].error == pytest.approx(0, abs=0.02)
    assert found["steps"].error == 0
    assert read_run(tmp_path / "whole" / "config.yaml").objective == run.objective
    told = evaluate(str(tmp_path / "whole"))
    assert (told["objective"], told["loss"]) == (type(run.objective).__name__, pytest.approx(whole.score.loss))
    assert "bits_per_byte" not in told
    on_text = evaluate(str(tmp_path / "whole"), str(texts / "3.txt"))
    assert on_text["loss"] > 0


@pytest.mark.slow
def test_texts_are_translated_as_was_learnt(tmp_path: Path) -> None:
    """A language in which every word has its word and adjectives stand behind."""
    words = {"red": "roja", "old": "vieja", "big": "grande", "house": "casa", "table": "mesa", "box": "caja"}
    sources = [(a, b, n) for a in list(words)[:3] for b in list(words)[:3] for n in list(words)[3:]]
    rows = [{"source": f"{a} {b} {n}", "target": f"{words[n]} {words[b]} {words[a]}"} for a, b, n in sources]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"width": 64, "layers": 1, "heads": 2, "head_width": 32, "hidden": 128, "context": 12}
    run = Run(
        model=t5(**sizes, vocab=300, tied=False, gated=True, act="silu"),
        objective=Translation(),
        data=Data(source=str(tmp_path / "pairs.jsonl"), vocab=290, held_out=0.1),
        optimizer=Muon(lr=0.02, adamw=AdamW(lr=3e-3)),
        budget=Steps(200),
        rows=8,
        evaluations=2,
    )
    pretrain(run, tmp_path / "run")
    found = load(tmp_path / "run")
    assert evaluate(str(tmp_path / "run"))["loss"] < 0.5
    for row in rows[::5]:
        assert found.generate(row["source"], temperature=0.0, max_new_tokens=11) == row["target"]
    assert prove(tmp_path / "run").holds


def test_a_resumed_run_is_proven_to_lose_nothing(texts: Path, tmp_path: Path) -> None:
    pretrain(settings(texts, "masked"), tmp_path / "run")
    assert prove(tmp_path / "run").holds


def test_a_model_that_fills_in_is_trained_from_python(texts: Path, tmp_path: Path) -> None:
    made = train(
        BERT.with_words(280, end=0),
        data=texts,
        budget=updates(3),
        folder=tmp_path / "run",
        objective=Masked(rate=0.3),
        rows=2,
    )
    assert isinstance(made.model, TextEncoder)
    found = load(tmp_path / "run")
    assert isinstance(found, TextEncoder)
    ways = found.fill("The [MASK] sat on [MASK] 3.", count=4)
    assert len(ways) == 4
    assert all(way.text.startswith("The") and len(way.tokens) == 2 for way in ways)
    assert [way.probability for way in ways] == sorted((way.probability for way in ways), reverse=True)
    assert found.generate("The [MASK] sat") == found.fill("The [MASK] sat")[0].text
    assert next(iter(found.stream("The [MASK] sat"))) == found.fill("The [MASK] sat")[0].text
    with pytest.raises(GenerationError, match="nothing is masked"):
        found.fill("The cat sat")
    with pytest.raises(GenerationError, match="asks for no filling"):
        found.fill("The [MASK] sat", count=0)


def test_settings_of_the_objective_are_dotted_and_saved(texts: Path, tmp_path: Path) -> None:
    run = resolve_run(
        "bert-tiny", steps=1, source=str(texts), settings=["objective.rate=0.3", "objective.unit=wholewords"]
    )
    assert run.objective == Masked(rate=0.3, unit=WholeWords())
    assert resolve_run("bert-tiny", steps=1, settings=["objective=masked"]).objective == Masked()
    small = ["--steps", "1", "--data", str(texts), "width=16", "context=16", "model.context=16", "data.vocab=280"]
    parts = ["layers.*.mix.mixer.heads=2", "layers.*.mix.mixer.kv_heads=2", "layers.*.mix.mixer.head_width=8", "rows=2"]
    command.main(
        ["train", "bert-tiny", "objective=masked", *parts, *small, "--out", str(tmp_path / "run"), "--json"],
        standalone_mode=False,
    )
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["objective"]["kind"] == "Masked"
    assert saved["objective"]["rate"] == 0.15
    assert json.loads((tmp_path / "run" / "result.json").read_text())["validation"]["loss"] > 0


def test_what_does_not_fit_is_said_before_anything_is_made(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="objective=Masked cannot train the model, which does not see both sides"):
        resolve_run("gpt2", steps=1, settings=["objective=masked"])
    with pytest.raises(ConfigError, match="NextToken cannot train the model, which reads what comes after"):
        resolve_run("bert-tiny", steps=1, settings=["objective=next_token"])
    with pytest.raises(ConfigError, match="has no head that predicts tokens"):
        resolve_run("minilm-l6", steps=1)
    words = train_tokenizer([path.read_text() for path in texts.iterdir()], vocab=270)
    words.save(tmp_path / "words")
    run = settings(texts, "masked").replace(data=Data(source=str(texts), tokenizer=str(tmp_path / "words")))
    with pytest.raises(TextError, match=r"has no special token \[MASK\], which objective=Masked needs"):
        pretrain(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_gaps_of_a_text_are_filled_by_what_was_learnt(tmp_path: Path) -> None:
    """Every sentence of this text is one of three, so what is left out of one is known from the rest."""
    colours = {"grass": "green and soft", "snow": "white and cold", "coal": "black and hard"}
    draw = random.Random(0)
    lines = (draw.choice(list(colours)) for _ in range(400))
    (tmp_path / "text.txt").write_text("".join(f"{thing} is {colours[thing]} here.\n" for thing in lines))
    sizes = {"width": 64, "layers": 1, "heads": 2, "head_width": 32, "hidden": 128, "context": 32}
    model = t5(**sizes, vocab=400, tied=False, gated=True, act="silu")
    run = Run(
        model=model,
        data=Data(source=str(tmp_path / "text.txt"), tokens="word", vocab=115, held_out=0.1),
        objective=SpanCorruption(length=1.5),
        optimizer=Muon(lr=0.02, adamw=AdamW(lr=3e-3)),
        budget=Steps(400),
        rows=16,
        evaluations=1,
    )
    pretrain(run, tmp_path / "run")
    found = load(tmp_path / "run")
    assert isinstance(found, TextToText)
    for thing, colour in colours.items():
        first, _, last = colour.partition(" and ")
        text = f"\n{thing} is<extra_id_0> and {last} here.\n"
        assert found.infill(text, max_new_tokens=8).strip() == f"{thing} is {first} and {last} here."
    with pytest.raises(GenerationError, match="nothing is left out of the text"):
        found.infill("snow is white")
