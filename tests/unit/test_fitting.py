"""A law that made losses is found again from them, and what no law can be told from is refused."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from groundup.cli import groundup
from groundup.errors import ConfigError
from groundup.planner import fitting
from groundup.planner.fitting import fit
from groundup.planner.frontiers import Point, envelope, valleys
from groundup.planner.scaling import BESIROGLU, FLOPS_PER_PARAM_TOKEN
from groundup.recipes.ladder import fit_law, law_page, read_ladder

TOKENIZER = '{"version": "1.0"}'


def ladder(count: int, *, noise: float = 0.0, seed: int = 1) -> list[Point]:
    chance = random.Random(seed)
    points = []
    for number in range(count):
        params, tokens = 10 ** chance.uniform(7.5, 10), 10 ** chance.uniform(9, 11.5)
        loss = BESIROGLU.loss(params, tokens) * math.exp(chance.gauss(0, noise))
        points.append(Point(name=str(number), params=params, tokens=tokens, loss=loss))
    return points


def write_run(folder: Path, point: Point, *, vocab: str = TOKENIZER, context: int = 64, whole: bool = True) -> Path:
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "tokenizer.json").write_text(vocab)
    (folder / "config.yaml").write_text("data: {source: books}\n")
    plan = {"params": point.params, "active_params": point.params, "tokens": point.tokens, "context": context}
    (folder / "plan.json").write_text(json.dumps(plan))
    share = (0.25, 0.5, 0.75, 1.0) if whole else (0.25, 0.5)
    lines = [{"step": i, "tokens": point.tokens * s, "loss": point.loss + 1 - s} for i, s in enumerate(share)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if whole:
        told = {"tally": {"tokens": point.tokens}, "validation": {"loss": point.loss}}
        (folder / "result.json").write_text(json.dumps(told))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / f"run-{i}", point) for i, point in enumerate(ladder(8))]


@pytest.mark.slow
@pytest.mark.parametrize("count", [6, 30])
def test_losses_without_noise_give_back_the_constants(count: int):
    found = fit(ladder(count), draws=10)
    law = (found.law.floor, found.law.size, found.law.length, found.law.alpha, found.law.beta)
    true = (BESIROGLU.floor, BESIROGLU.size, BESIROGLU.length, BESIROGLU.alpha, BESIROGLU.beta)
    assert law == pytest.approx(true, rel=1e-3)
    assert found.constants["a"].value == pytest.approx(0.5126, abs=1e-4)
    assert found.loss(70e9, 1.4e12).value == pytest.approx(BESIROGLU.loss(70e9, 1.4e12), rel=1e-5)


@pytest.mark.slow
def test_noise_is_told_by_the_intervals_and_one_diverged_run_changes_next_to_nothing():
    points = ladder(30, noise=0.003)
    found = fit(points, draws=100)
    assert found.constants["alpha"].low < BESIROGLU.alpha < found.constants["alpha"].high
    assert found.constants["beta"].low < BESIROGLU.beta < found.constants["beta"].high
    ahead = found.loss(70e9, 1.4e12)
    assert ahead.low < BESIROGLU.loss(70e9, 1.4e12) < ahead.high
    assert ahead.high - ahead.low < 0.1
    points[3] = replace(points[3], loss=9.0)
    points.reverse()
    assert fit(points, draws=10).loss(70e9, 1.4e12).value == pytest.approx(ahead.value, abs=0.005)


@pytest.mark.slow
def test_no_step_of_another_method_finds_a_lower_sum():
    points = ladder(12, noise=0.01)
    found = fit(points, draws=1)
    runs = torch.tensor([[math.log(p.params), math.log(p.tokens), math.log(p.loss)] for p in points]).double()
    law = found.law
    start = [math.log(law.size), math.log(law.length), math.log(law.floor), law.alpha, law.beta]
    constants = torch.tensor(start).double().requires_grad_()
    search = torch.optim.LBFGS([constants], max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-16,
                               line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> torch.Tensor:
        search.zero_grad()
        size, length, floor, alpha, beta = constants
        terms = torch.stack([size - alpha * runs[:, 0], length - beta * runs[:, 1], floor.expand(len(runs))])
        off = terms.logsumexp(0) - runs[:, 2]
        value = torch.nn.functional.huber_loss(off, torch.zeros_like(off), delta=fitting.DELTA, reduction="sum")
        value.backward()
        return value

    search.step(closure)
    assert found.objective <= float(closure().detach()) * (1 + 1e-3)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (ladder(5), "at least 6"),
        ([replace(p, params=1e8) for p in ladder(8)], "different numbers of parameters"),
        ([replace(p, tokens=1e9 * (1 + i % 2)) for i, p in enumerate(ladder(8))], "different numbers of tokens"),
        ([replace(p, tokens=20 * p.params) for p in ladder(8)], "tokens grow with parameters"),
        ([replace(ladder(1)[0], loss=math.nan), *ladder(7)], "figures above 0"),
        ([replace(ladder(1)[0], tokens=0.0), *ladder(7)], "figures above 0"),
    ],
)
def test_runs_that_tell_no_law_are_refused(points: list[Point], sentence: str):
    with pytest.raises(ConfigError, match=sentence):
        fit(points)


def test_runs_of_equal_operations_show_their_lowest_points():
    points = []
    for flops in (1e19, 1e20, 1e21):
        best = BESIROGLU.best(flops)[0]
        for times in (0.5, 0.75, 1.0, 1.5, 2.0):
            params = best * times
            tokens = flops / FLOPS_PER_PARAM_TOKEN / params
            points.append(Point(name="", params=params, tokens=tokens, loss=BESIROGLU.loss(params, tokens)))
    found = valleys(points)
    assert found is not None
    assert found.exponent == pytest.approx(0.5126, abs=0.01)
    assert valleys(points[:5]) is None


def test_the_envelope_of_curves_is_along_the_best_sizes():
    curves = []
    for params in [10 ** (8 + i / 8) for i in range(17)]:
        curve = tuple((t, BESIROGLU.loss(params, t)) for t in (params * 10 ** (i / 10 - 0.5) for i in range(30)))
        curves.append(Point(name="", params=params, tokens=curve[-1][0], loss=curve[-1][1], curve=curve))
    found = envelope(curves)
    assert found is not None
    assert found.exponent == pytest.approx(0.5126, abs=0.06)
    assert envelope([replace(run, curve=()) for run in curves]) is None


def test_what_is_no_finished_run_is_left_out_and_named(runs: list[Path], tmp_path: Path):
    half = write_run(tmp_path / "half", ladder(1)[0], whole=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    damaged = write_run(tmp_path / "damaged", ladder(1)[0])
    for name in ("plan.json", "result.json", "metrics.jsonl"):
        (damaged / name).write_text('{"tok')
    diverged = write_run(tmp_path / "diverged", ladder(1)[0])
    (diverged / "result.json").write_text('{"tally": {"tokens": 5e9}, "validation": {"loss": NaN}}')
    others = [tmp_path / name for name in ("half", "empty", "notes.txt", "damaged", "diverged", "gone")]
    found = read_ladder([*others, *runs])
    assert len(found.points) == len(runs)
    assert set(found.left_out) == set(map(str, others))
    assert "not finished: 50%" in found.left_out[str(half)]
    assert "not finite" in found.left_out[str(diverged)]


def test_runs_that_read_otherwise_are_refused(runs: list[Path], tmp_path: Path):
    other = write_run(tmp_path / "other", ladder(1)[0], vocab="{}")
    with pytest.raises(ConfigError, match=r"different vocabulary .*run-0 has .*other has"):
        fit_law([*runs, other])
    longer = write_run(tmp_path / "longer", ladder(1)[0], context=128)
    with pytest.raises(ConfigError, match=r"different context .*64.*128"):
        fit_law([*runs, longer])
    (longer / "config.yaml").write_text("data: {source: films}\n")
    with pytest.raises(ConfigError, match=r"different text .*books.*films"):
        fit_law([*runs, longer])


def test_without_a_validation_loss_the_training_loss_is_taken_and_said(runs: list[Path]):
    (runs[0] / "result.json").write_text(json.dumps({"tally": {"tokens": 5e9}}))
    lines = [{"step": i, "tokens": 5e9 * i / 100, "loss": 5.0 - i / 100} for i in range(1, 101)]
    (runs[0] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_ladder(runs)
    assert "training loss" in found.loss
    assert found.points[0].loss == pytest.approx(4.05)


@pytest.mark.slow
def test_the_verb_fits_draws_and_looks_ahead(runs: list[Path], tmp_path: Path):
    page, drawing = tmp_path / "law.html", tmp_path / "law.svg"
    asked = ["plan", "--fit-law", *map(str, runs), "gpt2", "layers=6", "--tokens", "10B", "--html", str(page)]
    told = CliRunner().invoke(groundup, [*asked, "--plot", str(drawing), "--json"])
    assert told.exit_code == 0, told.output
    data = json.loads(told.output)
    assert data["constants"]["alpha"]["value"] == pytest.approx(BESIROGLU.alpha, rel=1e-3)
    ahead = data["forecast"]
    assert ahead["predicted_loss_low"] <= ahead["predicted_loss"] <= ahead["predicted_loss_high"]
    assert ahead["predicted_loss"] == pytest.approx(BESIROGLU.loss(ahead["params"], 10e9), rel=1e-4)
    assert "<svg" in page.read_text() and "http://www.w3.org" in page.read_text()
    assert drawing.read_text().startswith("<?xml")
    assert "<script" not in law_page(fit_law(runs, draws=10))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gpt2"], "no runs"),
        (["nowhere/*"], "no runs"),
        (["gpt2", "gpt3"], "one MODEL at most"),
        (["--tokens", "2B", "."], "name it after"),
        (["."], "at least 6"),
    ],
)
def test_a_mistyped_command_is_told_in_a_sentence(arguments: list[str], sentence: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    told = CliRunner().invoke(groundup, ["plan", "--fit-law", *arguments])
    assert told.exit_code != 0
    assert sentence in str(told.exception) + told.output
