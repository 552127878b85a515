"""What a comparison of architectures came to: a table, a verdict in words, and a page with drawings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from groundup.errors import ConfigError
from groundup.evals.paired import Interval, Paired
from groundup.files import atomic_write, json_lines
from groundup.planner import books, units
from groundup.planner.machine import calibrate
from groundup.recipes import charts
from groundup.recipes.audit import audit
from groundup.recipes.comparison import FARTHEST, Comparison, Entrant, figure
from groundup.recipes.place import Place

CONFIDENCE = 0.95
MATCHED = {
    "flops": "operations of the training",
    "params": "parameters",
    "memory": "planned peak memory of the training above the program",
    "time": "time of the training",
}
Findings = dict[str, Any]


def write_findings(comparison: Comparison, folder: Path) -> Findings:
    """Returns what a finished comparison came to, and writes it as comparison.json and index.html.

    Raises:
        ConfigError: its runs were not scored on the same documents.
    """
    found = findings(comparison, folder)
    atomic_write(folder / "comparison.json", json.dumps(found, indent=2) + "\n")
    atomic_write(folder / "index.html", _page(comparison, folder, found))
    return found


def findings(comparison: Comparison, folder: Path) -> Findings:
    """Returns the figures of every architecture, the best first, and who is better than whom beyond chance.

    The verdicts against the best hold together with 95% confidence: each alone is asked for more (Bonferroni's
    correction).

    Raises:
        ConfigError: its runs were not scored on the same documents.
    """
    nats, text_bytes = _scores(comparison, folder)
    paired = Paired(nats, text_bytes)
    order = sorted(comparison.entrants, key=lambda entrant: paired.means[entrant.name])
    best = order[0].name
    confidence = 1 - (1 - CONFIDENCE) / max(len(order) - 1, 1)
    rows = []
    for entrant in order:
        row = _figures(comparison, entrant, folder / entrant.name)
        row["bits_per_byte"] = asdict(paired.bits_per_byte(entrant.name, confidence=CONFIDENCE))
        if entrant.name != best:
            row["above_best"] = asdict(paired.difference(entrant.name, best, confidence=confidence))
            row["verdict"] = paired.verdict(entrant.name, best, confidence=confidence)
        rows.append(row)
    return {
        "match": comparison.match,
        "budget_seconds": comparison.budget,
        "seeds": comparison.seeds,
        "documents": len(text_bytes),
        "text_bytes": int(text_bytes.sum()),
        "machine": calibrate().processor,
        "entrants": rows,
        "verdict": list(_words(rows)),
    }


def rows_of(found: Findings) -> list[tuple[str, ...]]:
    """Returns the findings as a table whose first row is its header."""
    header = ("", "bits/byte", "95% between", "parameters", "tokens", "rates", "trains at", "writes at", "to the best")
    body = [
        (
            row["name"],
            f"{row['bits_per_byte']['value']:.4f}",
            f"{row['bits_per_byte']['low']:.3f}-{row['bits_per_byte']['high']:.3f}",
            units.count(row["parameters"]),
            units.count(row["tokens"]),
            f"x {row['rate_factor']:g}",
            f"{units.count(row['training_tokens_per_second'])}/s",
            f"{units.count(row['generating_tokens_per_second'])}/s",
            row.get("verdict", "is the best"),
        )
        for row in found["entrants"]
    ]
    return [header, *body]


def _scores(comparison: Comparison, folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The nats of every document by architecture and seed, and the length of the documents."""
    nats: dict[str, np.ndarray] = {}
    lengths: dict[str, int] | None = None
    for entrant in comparison.entrants:
        rows = []
        for seed in range(comparison.seeds):
            path = Place(folder / entrant.name / f"seed-{seed}").documents
            read = {line["document"]: line for line in json_lines(path)}
            there = {name: line["text_bytes"] for name, line in read.items()}
            if lengths is not None and there != lengths:
                raise ConfigError(f"{path} scores other documents than the first run; compare in a new folder")
            lengths = there
            rows.append([line["loss"] * line["tokens"] for line in read.values()])
        nats[entrant.name] = np.array(rows)
    return nats, np.array(list((lengths or {}).values()), dtype=float)


def _figures(comparison: Comparison, entrant: Entrant, place: Path) -> Findings:
    """The plain figures of one architecture."""
    results = [json.loads(Place(place / f"seed-{seed}").result.read_text()) for seed in range(comparison.seeds)]
    audited = {entry.quantity: entry for entry in audit(place / "seed-0").entries}
    tried = [json.loads(path.read_text(encoding="utf-8")) for path in place.glob("rate-*.json")]
    factor = min((one for one in tried if one["loss"] is not None), key=lambda one: one["loss"])["factor"]
    tokens = results[0]["tally"]["tokens"]
    flops = books.train_flops_per_token(entrant.model, context=comparison.run.length)
    steps, seconds = (float(np.mean([result["tally"][name] for result in results])) for name in ("steps", "seconds"))
    train_flops = steps * comparison.run.step_tokens * flops
    matched = {"flops": train_flops, "time": seconds}.get(comparison.match)
    return {
        "name": entrant.name,
        "parameters": books.params(entrant.model),
        "active_parameters": books.active_params(entrant.model),
        "layers": len(entrant.model.layers),
        "width": entrant.model.width,
        "tokens": tokens,
        "steps": round(steps),
        "train_flops": train_flops,
        "train_seconds": seconds,
        "matched": figure(comparison.match, comparison.run, entrant.model) if matched is None else matched,
        "rate_factor": factor,
        "rate_at_edge": factor in (1 / FARTHEST, FARTHEST),
        "rates_diverged": sorted(one["factor"] for one in tried if one["loss"] is None),
        "training_tokens_per_second": comparison.run.step_tokens * steps / seconds,
        "generating_tokens_per_second": json.loads((place / "generating.json").read_text())["tokens_per_second"],
        "planned_peak_bytes": audited["peak_bytes"].predicted,
        "measured_peak_bytes": audited["peak_bytes"].measured,
        "memory": json.loads((place / "memory.json").read_text()),
    }


def _words(rows: Sequence[Findings]) -> Iterator[str]:
    """The verdict, a sentence an architecture."""
    best, *others = rows
    least = Interval(**best["bits_per_byte"])
    yield f"{best['name']} predicts best: {least.value:.4f} bits per byte ({least.low:.3f} to {least.high:.3f})."
    for row in others:
        above = Interval(**row["above_best"])
        span = f"{above.value:+.4f} bits per byte ({above.low:+.4f} to {above.high:+.4f})"
        if row["verdict"] == "cannot tell":
            yield f"{row['name']}: cannot tell it from {best['name']}, {span}."
        else:
            yield f"{row['name']} is {row['verdict']} than {best['name']}, by {span}."
    for row in rows:
        if row["rate_at_edge"]:
            times = f"{row['rate_factor']:g} times the rates"
            yield f"{row['name']} did best at {times}, the edge of what was tried, so it may do better still."
        if row["rates_diverged"]:
            times = " and ".join(f"{factor:g}" for factor in row["rates_diverged"])
            yield f"{row['name']} did not train at {times} times the rates, where its loss did not stay finite."


def _page(comparison: Comparison, folder: Path, found: Findings) -> str:
    rows = found["entrants"]
    curves = {row["name"]: _curve(folder / row["name"] / "seed-0", row) for row in rows}
    offs = [row["matched"] for row in rows]
    trained = comparison.seeds * sum(row["train_seconds"] for row in rows)
    facts = [
        ("matched", f"{MATCHED[comparison.match]}, within {max(offs) / min(offs) - 1:.1%}"),
        (
            "text",
            f"{comparison.run.data.source}; scored on {found['documents']} documents, {found['text_bytes']:,} bytes",
        ),
        ("seeds", comparison.seeds),
        ("budget", units.duration(comparison.budget)),
        ("trained for", f"{units.duration(trained)} in all, besides the search for rates"),
        ("machine", found["machine"]),
    ]
    bits = [(row["name"], *(row["bits_per_byte"][key] for key in ("value", "low", "high"))) for row in rows]
    parts = [
        f"<h1>{escape(folder.resolve().name)}</h1>",
        charts.table(facts, kind="facts"),
        "<h2>Verdict</h2>",
        *(f"<p>{escape(sentence)}</p>" for sentence in found["verdict"]),
        "<h2>Bits per byte on text that was held out, lower is better</h2>",
        "<p>Lines: where it lies with 95% confidence, over documents and seeds. What sets two architectures apart is "
        "their difference on the same documents, which is surer than these lines; see the verdict.</p>",
        charts.intervals(bits, write=lambda value: f"{value:.3f}"),
        "<h2>All figures</h2>",
        charts.table(rows_of(found), header=True),
        "<h2>Loss in training, by operations spent</h2>",
        charts.lines(curves, x=units.flops),
        "<h2>Memory of a step of training one row, by its length</h2>",
        "<p>Above the program itself. Lines: planned. Dots: measured.</p>",
        _memory(rows, "training"),
        "<h2>Memory of generating one row, by its length</h2>",
        "<p>The state that an architecture keeps of what it has read. Lines: planned. Dots: measured.</p>",
        _memory(rows, "state"),
        "<h2>The architectures</h2>",
        *(
            f"<h3>{escape(entrant.name)}</h3><pre>{escape(repr(entrant.model))}</pre>"
            for entrant in comparison.entrants
        ),
    ]
    return charts.page(f"groundup: {folder.resolve().name}", parts)


def _curve(run: Path, row: Findings) -> list[tuple[float, float]]:
    """The training loss of a run by operations, as the mean of three neighbours, so that curves can be told apart."""
    flops = row["train_flops"] / row["tokens"]
    logged = [(flops * line["tokens"], line["loss"]) for line in json_lines(Place(run).metrics)]
    groups = [logged[i : i + 3] for i in range(0, len(logged), 3)]
    return [(group[-1][0], float(np.mean([loss for _, loss in group]))) for group in groups]


def _memory(rows: Sequence[Findings], kind: str) -> str:
    planned, measured = (
        {row["name"]: list(_known(row, f"{side}_{kind}_bytes")) for row in rows} for side in ("planned", "measured")
    )
    return charts.lines(planned, dots=measured, logarithmic=True, x=lambda n: f"{n:,.0f}", y=units.bytes_)


def _known(row: Findings, name: str) -> Iterator[tuple[float, float]]:
    """A figure of memory by the length of the text, where it is known."""
    yield from ((at["context"], max(at[name], 1.0)) for at in row["memory"] if at[name] is not None)
