"""``groundup data build|preview``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import click

from groundup.cli.options import COUNT, Folder, as_json, offline, print_json


@click.group()
def data() -> None:
    """Build a corpus of tokens from text, or look into a source.

    Example:  groundup data build books/ --tokenizer runs/quickstart/tokenizer --out corpora/books
    """


@data.command()
@click.argument("source")
@click.option("--tokenizer", required=True, help="The folder or file of the tokenizer.")
@click.option("--out", type=Folder(), required=True, help="A new folder to write to.")
@click.option("--held-out", default=0.05, show_default=True, help="The share of documents kept for validation.")
@click.option("--seed", default=0, show_default=True, help="Draws which documents are kept.")
@click.option("--field", help="The name of the text in .jsonl, .tsv and .parquet files.")
@click.option("--target", help="The name of the target of pairs, whose source is --field.")
@click.option("--workers", type=COUNT, help="Threads that tokenize; by default one a core.")
@as_json
@offline
def build(source: str, tokenizer: str, out: Path, as_json: bool, **settings: Any) -> None:
    """Clean, split and tokenize SOURCE: a file, a folder, ``python`` or a dataset id.

    Example:  groundup data build books/ --tokenizer runs/quickstart/tokenizer --out corpora/books
    """
    from groundup.cli.draw import Drawing
    from groundup.data.shards import build as make
    from groundup.text.tokenizer import Tokenizer

    words = Tokenizer.load(tokenizer)
    with Drawing() as drawing:
        drawing.stage(f"Building {out}")
        corpus = make(source, out, tokenizer=words, progress=drawing.progress, **settings)
    if as_json:
        print_json(corpus.manifest)
        return
    click.echo(f"{out}: {corpus.duplicates} exact duplicates dropped")
    for name in corpus.manifest["splits"]:
        split = corpus.split(name)
        click.echo(
            f"  {name:5}  {split.documents_count:>9,} documents  {split.tokens:>13,} tokens  "
            f"{split.text_bytes:>13,} bytes"
        )


@data.command()
@click.argument("source")
@click.option("--count", type=COUNT, default=5, show_default=True, help="Documents to show.")
@click.option("--characters", type=COUNT, default=300, show_default=True, help="Of each document.")
@click.option("--field", help="The name of the text in .jsonl, .tsv and .parquet files.")
@as_json
@offline
def preview(source: str, count: int, characters: int, field: str | None, as_json: bool) -> None:
    """Show the first documents of SOURCE as a run would read them.

    Example:  groundup data preview books/ --count 2
    """
    from groundup.data.sources import documents

    shown = islice(documents(source, field=field), count)
    if as_json:
        print_json([{"name": document.name, "text": document.text[:characters]} for document in shown])
        return
    for document in shown:
        click.secho(f"{document.name}  ({len(document.text.encode()):,} bytes)", bold=True)
        click.echo(document.text[:characters].rstrip() + "\n")
