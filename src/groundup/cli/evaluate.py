"""``groundup evaluate``."""

from __future__ import annotations

from typing import Any

import click

from groundup.cli.options import as_json, offline, print_json


@click.command()
@click.argument("model")
@click.option("--data", "source", help="A file, folder or dataset id.  [default: what the run held out]")
@click.option("--field", help="The name of the text in .jsonl, .tsv and .parquet files.")
@click.option("--context", type=int, help="Tokens of a window.  [default: what the run trained with]")
@click.option("--stride", type=int, help="Tokens by which windows advance.  [default: half of the context]")
@as_json
@offline
def evaluate(model: str, source: str | None, as_json: bool, **options: Any) -> None:
    """Tell how well MODEL predicts a text: loss, perplexity and bits per byte, beside general compressors.

    Example:  groundup evaluate runs/quickstart --data notes.txt
    """
    from groundup.cli.draw import Drawing
    from groundup.recipes.evaluate import evaluate as measure

    with Drawing() as drawing:
        figures = measure(model, source, watch=drawing, **options)
    if as_json:
        print_json(figures)
        return
    bits = figures.pop("compressors", {})
    figures |= {f"bits per byte of {name}": value for name, value in bits.items()}
    width = max(map(len, figures))
    for name, value in figures.items():
        name = name.replace("_", " ")
        shown = f"{value:,.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        click.echo(f"{name:{width}}  {shown}")
