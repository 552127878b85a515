"""A plan as a page: what it shows is the plan, in one file that opens offline."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import pytest

import signatures
from groundup import cli
from groundup.errors import ConfigError, MissingExtra, StorageError
from groundup.planner import curves
from groundup.planner.explain import derivations
from groundup.planner.explain_time import layouts_tried, step_operations
from groundup.planner.layout import Layout
from groundup.planner.operations import without_sizes
from groundup.planner.plan import Plan, plan
from groundup.planner.scaling import BESIROGLU
from groundup.recipes.plan_page import plan_page, write_page
from groundup.recipes.plan_plots import components, layouts_plot, loss_plot, memory_plot, places_plot
from groundup.recipes.plots import COLOURS, css, drawing, short
from unit.planner_stand_in import GPT2, LLAMA, MACHINE

PLANS: dict[str, Callable[[], Plan]] = {
    "here": lambda: plan(GPT2, on=MACHINE, rows=2, context=16, batch_tokens=128, tokens=1e4),
    "published": lambda: plan(LLAMA, on="A100", region="IS", rows=4, tokens=1e15),
    "shared": lambda: plan(LLAMA, on="16xH100", batch_tokens=2**12, tokens=1e15),
}


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[] if name == "here" else pytest.mark.slow) for name in PLANS]
)
def made(request: pytest.FixtureRequest, _own_cache: None) -> Plan:
    with signatures.unchecked():
        return PLANS[request.param]()


@pytest.fixture(scope="module")
def page(made: Plan) -> str:
    with signatures.unchecked():
        return plan_page(made, title="a <b>")


def drawings(page: str) -> list[ElementTree.Element]:
    found = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    return [ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1)) for svg in found]


def test_a_page_is_one_file_without_scripts_and_without_anything_from_elsewhere(page: str):
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")
    assert not re.search(r"<script|<link|<img|<iframe|@import|https?://|src=|url\((?!#)", page)
    assert set(re.findall(r"href=[\"']([^\"'])", page)) == {"#"}


def test_drawings_are_well_formed_and_told_to_those_who_do_not_see_them(made: Plan, page: str):
    drawn = drawings(page)
    assert len(drawn) >= 4
    assert all(svg.get("role") == "img" and len(svg.get("aria-label", "")) > 20 for svg in drawn)
    assert len({svg.get("aria-label") for svg in drawn}) == len(drawn)


def test_text_in_drawings_is_text(made: Plan, page: str):
    texts = {text for svg in drawings(page) for text in ("".join(node.itertext()) for node in svg.iter("text"))}
    assert {"activations", "weights", "peak memory", "tokens of a row", "operations for each byte moved"} <= texts


def test_names_in_a_page_are_given_once_and_links_lead_to_them(page: str):
    names = Counter(re.findall(r"\bid=[\"']([^\"']+)", page))
    assert max(names.values()) == 1
    assert set(re.findall(r"href=[\"']#([^\"']+)", page)) <= set(names)


def test_colours_are_the_pages_own_in_light_and_in_dark(page: str):
    body = page[page.index("</style>") :]
    assert not re.search(r"#[0-9a-f]{6}\b|rgb\(", body)
    assert set(re.findall(r"var\(--(\w+)\)", body)) <= set(COLOURS)
    assert "prefers-color-scheme: dark" in page
    assert all(css().count(f"--{name}:") == 2 for name in COLOURS)


def test_every_figure_is_there_with_its_derivation(made: Plan, page: str):
    for told in derivations(made):
        at = page.index(f"<details id='{told.figure}'>")
        inside = page[at : page.index("</details>", at)]
        assert escape(told.formula) in inside and escape(told.source) in inside
        assert all(escape(term.name) in inside for term in told.terms)


def test_assumptions_and_sources_stand_on_the_page(made: Plan, page: str):
    assert all(escape(sentence) in page for sentence in (*made.assumptions, *made.sources))


def test_the_bars_of_memory_add_up_to_the_peak(made: Plan):
    assert sum(components(made).values()) == pytest.approx(made.peak_bytes, abs=4)


def test_a_plan_lies_on_its_curves(made: Plan):
    for points, at in ((curves.by_rows(made), made.micro_batch), (curves.by_context(made), made.context)):
        here = next(point for point in points if point.at == at)
        assert here.peak_bytes == made.peak_bytes
        assert here.step_seconds == pytest.approx(made.step_seconds)
        assert [point.at for point in points] == sorted({point.at for point in points})
        assert points[0].peak_bytes < points[-1].peak_bytes and points[0].step_seconds < points[-1].step_seconds


def test_rows_are_no_longer_than_the_model_reads():
    made = plan(GPT2, on=MACHINE, rows=1)
    assert max(point.at for point in curves.by_context(made)) == GPT2.context


def test_no_operation_is_faster_than_what_it_moves():
    made = plan(LLAMA, on=MACHINE, rows=2)
    moves = next(sample.per_second for sample in MACHINE.samples if sample.name == "stream")
    every = step_operations(made)
    assert all(one.moved_bytes / one.seconds <= moves for one in every)
    assert sum(one.seconds for one in without_sizes(every)) == pytest.approx(made.step_seconds)
    assert len({(one.name, one.dtype) for one in without_sizes(every)}) == len(without_sizes(every)) < len(every)


def test_no_other_size_reaches_less_than_the_best_one():
    made = PLANS["published"]()
    params, tokens, least = curves.best_size(made)
    assert params * tokens == pytest.approx(made.params * made.tokens)
    points = curves.iso_flops(made)
    assert least <= min(loss for _, loss in points)
    assert points[0][0] < min(params, made.params) < max(params, made.params) < points[-1][0]
    assert made.predicted_loss == BESIROGLU.loss(made.params, made.tokens) >= least


def test_places_come_the_cleanest_first_and_the_chosen_one_is_among_them():
    made = PLANS["published"]()
    found = curves.carbon_by_place(made)
    amounts = [kg for _, kg in found]
    assert amounts == sorted(amounts)
    assert {grid.name: kg for grid, kg in found}["Iceland"] == made.co2_kg


def test_what_cannot_be_drawn_is_said_with_the_way_to_have_it():
    made = PLANS["here"]()
    places, loss = places_plot(made), loss_plot(made)
    assert not places.svg and "give --watts" in places.caption
    assert not loss.svg and "the law was fitted to runs of" in loss.caption
    assert layouts_plot(made) is None


def test_the_ten_fastest_layouts_are_drawn_and_the_one_that_was_given():
    made = PLANS["shared"]()
    tried = layouts_tried(made)
    assert tried[0].layout == Layout(**(made.layout or {})) and len(tried) > 10
    drawn = layouts_plot(made)
    assert drawn is not None and drawn.svg.count("dp=") == 10
    slow = layouts_plot(made.study.again(layout="dp=8,tp=2,zero=0,recompute=full"))
    assert slow is not None and slow.svg.count("dp=") == 10
    assert "dp=8,tp=2,pp=1,cp=1,ep=1,micro=1,zero=0,rounds=1,recompute=full" in slow.svg


def test_the_same_plan_makes_the_same_drawing():
    made = PLANS["here"]()
    assert memory_plot(made) == memory_plot(made)


def test_a_title_is_text(page: str):
    assert "<h1>a &lt;b&gt;</h1>" in page


def test_plots_without_matplotlib_say_how_to_have_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"pip install 'groundup\[plots\]'"):
        drawing(lambda figure: None, height=1.0, name="none", told="nothing")


def test_figures_on_axes_have_no_zeros_behind_their_points():
    assert [short("1.00 PFLOP"), short("989.0 TFLOP"), short("1.50 GiB"), short("10.0B"), short("100 s")] == [
        "1 PFLOP", "989 TFLOP", "1.50 GiB", "10B", "100 s",
    ]  # fmt: skip


def test_a_page_is_written_to_a_file_and_nowhere_else(tmp_path: Path):
    write_page("<p>", tmp_path / "plan.html")
    assert (tmp_path / "plan.html").read_text() == "<p>"
    with pytest.raises(ConfigError, match=r"names no file for a page; give one, such as plan\.html"):
        write_page("<p>", Path(""))
    for wrong in (tmp_path, tmp_path / "missing" / "plan.html"):
        with pytest.raises(StorageError, match="cannot write"):
            write_page("<p>", wrong)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Plans a small model on the command line; returns the exit code and what it printed."""

    def run(*arguments: str) -> str:
        small = ["gpt2", "layers=1", "vocab=100", "--context", "16", "--on", "A100"]
        monkeypatch.setattr(sys, "argv", ["groundup", "plan", *small, *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        return f"{end.value.code or 0}: {printed.out}{printed.err}"

    return run


@pytest.mark.usefixtures("unchecked_signatures")
def test_the_command_line_tells_where_figures_come_from(call: Callable[..., str]):
    told = call("--explain", "cost_usd")
    assert told.startswith("0: cost_usd = ") and "devices * train_seconds / 3600 * usd_per_hour" in told
    assert call("--explain", "all").count("\n  source: ") > 30
    figures = json.loads(call("--explain", "all", "--json").removeprefix("0: "))
    assert all(math.isclose(told["total"], told["value"]) for told in figures if told["value"] is not None)
    wrong = call("--explain", "peek_bytes")
    assert wrong.startswith("2: ") and "did you mean 'peak_bytes'" in wrong


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_signatures")
def test_the_command_line_writes_a_page(call: Callable[..., str], tmp_path: Path):
    file = tmp_path / "plan.html"
    assert call("--html", str(file)) == f"0: {file} is written; open it in a browser\n"
    assert "<h1>gpt2 layers=1 vocab=100</h1>" in file.read_text()
    assert "a folder stands in its place" in call("--html", str(tmp_path))
