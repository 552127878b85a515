"""``groundup generate``."""

from __future__ import annotations

import sys
from typing import Any

import click

from groundup.cli.options import COUNT, as_json, offline, print_json, read_stdin


@click.command()
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--max-new-tokens", type=COUNT, default=128, show_default=True, help="Tokens to add at most.")
@click.option("--temperature", type=float, help="0 always takes the likeliest token.  [default: 0.8; 0 with --beams]")
@click.option("--top-k", type=COUNT, help="Draw from the k likeliest tokens.")
@click.option("--top-p", type=float, help="Draw from the likeliest tokens that make up this probability.")
@click.option("--min-p", type=float, help="Draw from tokens at least this likely beside the likeliest.")
@click.option("--repetition-penalty", default=1.0, show_default=True, help="Above 1, tokens seen before lose weight.")
@click.option(
    "--beams", type=COUNT, default=1, show_default=True, help="Above 1, so many texts compete by beam search."
)
@click.option(
    "--length-penalty", default=1.0, show_default=True, help="Above 0, longer texts win more often; for beams."
)
@click.option("--stop", multiple=True, help="Text that ends the answer; may be given several times.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same text.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Of the weights; by default as stored.")
@click.option("--device", help="cpu, cuda or mps; by default the best that is there.")
@as_json
@offline
def generate(model: str, prompt: str | None, as_json: bool, **options: Any) -> None:
    """Continue PROMPT, or standard input, with MODEL; an encoder-decoder answers it, an encoder fills in its masks.

    Example:  groundup generate runs/quickstart "def fib(n):"
    """
    from groundup.infer.load import load

    place = {name: options.pop(name) for name in ("dtype", "device")}
    if prompt is None and sys.stdin is not None and not sys.stdin.isatty():
        prompt = read_stdin()
    options["stop"] = list(options["stop"])
    if options["temperature"] is None:
        options["temperature"] = 0.8 if options["beams"] == 1 else 0.0
    loaded, prompt = load(model, **place), prompt or ""
    if as_json:
        (made,) = loaded.generations([prompt], **options)
        print_json({"model": model, "prompt": prompt, "text": made.text, "ids": made.ids, "finish": made.finish})
        return
    for piece in loaded.stream(prompt, **options):
        click.echo(piece, nl=False)
        sys.stdout.flush()
    click.echo()
