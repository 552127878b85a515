"""``groundup tokenizer train|encode|compare``."""

from __future__ import annotations

from pathlib import Path

import click

from groundup.cli.options import COUNT, Folder, as_json, offline, print_json, read_stdin


@click.group()
def tokenizer() -> None:
    """Train a tokenizer, encode with one, or compare several on a text.

    Example:  groundup tokenizer train corpus/ --vocab 8192 --out tokenizers/mine
    """


@tokenizer.command()
@click.argument("source")
@click.option("--kind", type=click.Choice(["bpe", "char", "word"]), default="bpe", show_default=True)
@click.option("--vocab", type=COUNT, default=8192, show_default=True, help="How many tokens there are in all.")
@click.option("--field", help="The name of the text in .jsonl, .tsv and .parquet files.")
@click.option("--special", multiple=True, help="A special token that it has too, such as [MASK]; may be given often.")
@click.option("--out", type=Folder(), required=True, help="A new folder to write to.")
@as_json
@offline
def train(
    source: str, kind: str, vocab: int, field: str | None, special: tuple[str, ...], out: Path, as_json: bool
) -> None:
    """Train a tokenizer on SOURCE: a file, a folder, ``python`` or a dataset id.

    Example:  groundup tokenizer train python --vocab 4096 --out tokenizers/python
    """
    from groundup.cli.draw import Drawing
    from groundup.data.beside import written_beside
    from groundup.data.sources import documents
    from groundup.text.train import train as make

    with Drawing(as_json=as_json) as drawing, written_beside(out) as folder:
        drawing.stage(f"Training {out} on {source}")
        texts = (document.text for document in documents(source, field=field))
        made = make(texts, kind=kind, vocab=vocab, special=special)
        made.save(folder)
    if as_json:
        print_json({"tokenizer": str(out), "kind": kind, "vocab": made.vocab})
    else:
        click.echo(f"{out}: {made.vocab} tokens")


@tokenizer.command()
@click.argument("path")
@click.argument("text", required=False)
@as_json
def encode(path: str, text: str | None, as_json: bool) -> None:
    """Show TEXT, or standard input, as the tokens of the tokenizer at PATH.

    Example:  groundup tokenizer encode runs/quickstart/tokenizer "def fib(n):"
    """
    from groundup.text.tokenizer import Tokenizer

    words = Tokenizer.load(path)
    ids = words.encode(read_stdin() if text is None else text)
    if as_json:
        print_json({"ids": ids, "tokens": [words.decode([id]) for id in ids]})
        return
    for id in ids:
        click.echo(f"{id:>7}  {words.decode([id])!r}")


@tokenizer.command()
@click.argument("source")
@click.argument("paths", nargs=-1, required=True)
@as_json
@offline
def compare(source: str, paths: tuple[str, ...], as_json: bool) -> None:
    """Compare how many tokens the tokenizers at PATHS need for SOURCE.

    Example:  groundup tokenizer compare notes.txt tokenizers/mine runs/quickstart/tokenizer
    """
    from groundup.recipes.tokenizers import compare as measure

    rows = measure(source, paths)
    if as_json:
        print_json(rows)
        return
    click.echo(f"{'tokens':>12}  {'bytes a token':>13}  {'vocabulary':>10}  tokenizer")
    for row in rows:
        click.echo(f"{row['tokens']:>12,}  {row['bytes_per_token']:>13.3f}  {row['vocab']:>10,}  {row['tokenizer']}")
