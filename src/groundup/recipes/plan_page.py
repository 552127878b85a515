"""A plan as a page: its figures, plots that a person would rather look at, and where each figure comes from.

The page is one file without scripts and without anything from elsewhere, so it can be mailed and opens anywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

from groundup.errors import ConfigError
from groundup.files import atomic_write
from groundup.planner import units
from groundup.planner.derivation import SUM, Derivation, Term, number, written
from groundup.planner.explain import derivations
from groundup.planner.plan import Plan
from groundup.recipes import charts, plots
from groundup.recipes.plan_plots import (
    layouts_plot,
    loss_plot,
    memory_plot,
    places_plot,
    shape_plot,
)
from groundup.recipes.plan_roofline import roofline_plot
from groundup.recipes.plots import Plot

ACROSS = 6  # tiles beside each other at most
OPTION = re.compile(r"(--[a-z-]+)")
SEE = re.compile(r"<td>see (\w+)</td>")
STYLE = """
:root { color-scheme: light dark }
body { max-width: 74rem; color: var(--ink); background: var(--page); line-height: 1.45 }
h1 { margin-bottom: .2rem } h2 { font-size: 1rem; margin: 0 0 .4rem } .under { color: var(--soft); margin-top: 0 }
.tiles { display: grid; grid-template-columns: repeat(2, 1fr); gap: .6rem; margin: 1.2rem 0 }
@media (min-width: 50rem) { .tiles { grid-template-columns: repeat(var(--across), 1fr) } }
.tiles div { background: var(--card); border-radius: .5rem; padding: .55rem .7rem }
.tiles b { display: block; font-size: 1.1rem; white-space: nowrap }
.tiles span { color: var(--soft); font-size: .85rem }
.no b { color: var(--red) }
.plots { columns: 2 24rem; column-gap: 1rem }
figure { margin: 0 0 1rem; break-inside: avoid; background: var(--card); border-radius: .5rem; padding: .9rem 1rem }
figcaption code { white-space: nowrap }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .4rem }
figure table { font-size: .85rem; margin-top: .5rem } figure td, figure th { padding-right: .8rem }
th, .facts td + td { color: var(--soft) }
svg text { font-family: system-ui, sans-serif; fill: unset }
details { border-bottom: 1px solid var(--grid); padding: .35rem 0 }
summary { font-weight: normal; margin: 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline }
summary code { min-width: 15rem } summary b { min-width: 9rem }
summary span { color: var(--soft); font-size: .88rem; flex: 1 18rem }
summary::before { content: "▸"; color: var(--soft) } details[open] > summary::before { content: "▾" }
.told { margin: .3rem 0 .6rem 1.2rem; font-size: .9rem; overflow-x: auto } .told p { margin: .25rem 0 }
.told td:nth-child(3) { text-align: left; color: var(--soft) } code { font-size: .88em; overflow-wrap: anywhere }
@media (max-width: 40rem) { body { padding: 0 .6rem } figure { padding: .7rem .6rem } }
a { color: var(--blue) } ul { padding-left: 1.2rem } .wide { overflow-x: auto }
"""


def plan_page(plan: Plan, *, title: str | None = None) -> str:
    """Returns a plan as a page of HTML.

    Args:
        plan: what is shown.
        title: of the page; None means the model's size.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    title = title or f"A model of {units.count(plan.params)} parameters"
    tiles = list(_tiles(plan))
    across = math.ceil(len(tiles) / math.ceil(len(tiles) / ACROSS))  # rows of about as many
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class='under'>What training it takes on {escape(plan.machine)}, products in {plan.precision}; "
        "told before anything is spent.</p>",
        f"<div class='tiles' style='--across: {across}'>{''.join(tiles)}</div>",
        f"<div class='plots'>{''.join(map(_figure, _plots(plan)))}</div>",
        "<h2 style='margin-top:2rem'>Every figure, and where it comes from</h2>",
        *(_details(told) for told in derivations(plan)),
        "<h2 style='margin-top:2rem'>What was assumed</h2>",
        f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in plan.assumptions)}</ul>",
        "<h2>Where rules come from</h2>",
        f"<ul>{''.join(f'<li>{escape(source)}</li>' for source in plan.sources)}</ul>",
    ]
    return charts.page(f"groundup plan: {title}", parts, style=plots.css() + STYLE)


def write_page(page: str, file: Path) -> None:
    """Writes a page to a file.

    Raises:
        ConfigError: the path names no file.
        StorageError: the disk is full or the place cannot be written.
    """
    if not file.name:
        raise ConfigError(f"{str(file)!r} names no file for a page; give one, such as plan.html")
    atomic_write(file, page)


def _tiles(plan: Plan) -> Iterator[str]:
    share = units.percent(plan.peak_bytes / plan.memory_bytes)
    yield _tile("parameters", units.count(plan.params), f"{units.count(plan.active_params)} in each token")
    yield _tile("tokens", units.count(plan.tokens), f"{plan.tokens / plan.params:.3g} for each parameter")
    yield _tile("operations", units.flops(plan.train_flops), f"{units.count(plan.petaflop_s_days)} petaflop/s-days")
    fits = "fits" if plan.fits else "does not fit"
    yield _tile(
        "peak memory", units.bytes_(plan.peak_bytes), f"{fits}: {share} of the device", kind="" if plan.fits else "no"
    )
    yield _tile("time of training", units.duration(plan.train_seconds), f"{units.count(plan.steps)} steps")
    yield _tile("time of a step", units.duration(plan.step_seconds), f"{units.percent(plan.utilisation)} utilised")
    if plan.energy_kwh is not None:
        carbon = "" if plan.co2_kg is None else f"{_kilograms(plan.co2_kg)} of CO2"
        yield _tile("energy", f"{units.count(plan.energy_kwh)} kWh", carbon)
    if plan.cost_usd is not None:
        yield _tile("cost", _money(plan.cost_usd), "")
    if plan.predicted_loss is not None:
        yield _tile("loss", f"{plan.predicted_loss:.2f}", "nats per token, Chinchilla's text")


def _tile(name: str, figure: str, note: str, *, kind: str = "") -> str:
    return f"<div class='{kind}'><span>{name}</span><b>{escape(figure)}</b><span>{escape(note)}</span></div>"


def _money(usd: float) -> str:
    if usd >= 1e6:
        return f"{units.count(usd)} USD"
    return f"{usd:,.0f} USD" if usd >= 10 else f"{usd:.2f} USD"


def _kilograms(kg: float) -> str:
    return f"{kg:.3g} kg" if kg < 1000 else f"{units.count(kg / 1000)} t"


def _plots(plan: Plan) -> Iterator[Plot]:
    yield memory_plot(plan)
    layouts = layouts_plot(plan)
    if layouts is not None:
        yield layouts
    yield shape_plot(plan, of="rows")
    yield shape_plot(plan, of="context")
    yield roofline_plot(plan)
    yield loss_plot(plan)
    yield places_plot(plan)


def _figure(plot: Plot) -> str:
    rows = f"<div class='wide'>{charts.table(plot.rows, header=True)}</div>" if plot.rows else ""
    caption = OPTION.sub(r"<code>\1</code>", escape(plot.caption))
    return f"<figure><h2>{escape(plot.title)}</h2>{plot.svg}<figcaption>{caption}</figcaption>{rows}</figure>\n"


def _details(told: Derivation) -> str:
    """A figure, which opens to its derivation."""
    said, meaning = escape(written(told.value, told.unit)), escape(told.meaning)
    head = f"<code>{told.figure}</code> <b>{said}</b> <span>{meaning}</span>"
    lines = [f"<p><code>= {escape(told.formula)}</code></p>"]
    if told.formula != SUM and told.value is not None:
        lines.append(f"<p><code>= {escape(told.with_numbers())} = {_plain(told.value)}</code></p>")
    for terms, title in ((told.terms, ""), (told.breakdown, "<p>The same by kind:</p>")):
        if terms:
            rows = [row for term in terms for row in _rows(term, depth=0)]
            lines += [title, SEE.sub(r"<td><a href='#\1'>see \1</a></td>", charts.table(rows))]
    lines += [f"<p>{escape(note)}</p>" for note in told.notes]
    lines.append(f"<p>Source: {escape(told.source)}</p>")
    return f"<details id='{told.figure}'><summary>{head}</summary><div class='told'>{''.join(lines)}</div></details>"


def _plain(value: float | bool) -> str:
    return written(value, "") if isinstance(value, bool) else number(value)


def _rows(term: Term, *, depth: int) -> Iterator[tuple[str, str, str]]:
    each = ""
    if term.count > 1 and term.value is not None:
        each = f"{term.count} x {written(term.value / term.count, term.unit)}"
    indent = "\u2003" * depth
    yield indent + term.name, written(term.value, term.unit), "; ".join(filter(None, (each, term.source)))
    for part in term.parts:
        yield from _rows(part, depth=depth + 1)
