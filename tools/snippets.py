"""Runs the snippets of the README and of docs/ as a reader would, page by page, from top to bottom.

    python tools/snippets.py                       runs every page
    python tools/snippets.py README.md             runs one page
    python tools/snippets.py --command quickstart  prints the command that a page marks with this name

A page has one folder, which is empty at its start, and one Python namespace. Every ``python`` and ``sh`` block is run,
and a failure is told with its page and line. An HTML comment on the line above a block changes that:

    <!-- not run: REASON -->   the block is left out
    <!-- command: NAME -->     the block is one line that .ci/run runs by itself, in a fresh copy of the repository
    <!-- file: NAME -->        the block is a file of the page's folder
    <!-- compared -->          the ``text`` block has to be what the block before it printed
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]*?) -->\n+)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int  # of the first line inside the fence
    language: str
    text: str
    mark: str  # the comment above it, or ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


class SnippetError(Exception):
    """A snippet that does not do what its page says."""


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        yield Block(
            page=str(page.relative_to(ROOT)),
            line=text.count("\n", 0, found.start("text")) + 1,
            language=found["language"],
            text=found["text"],
            mark=found["mark"] or "",
        )


def run_page(page: Path) -> None:
    """Runs the blocks of a page in one folder and one namespace, and stops at the first that fails."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path(".venv").symlink_to(sys.prefix)  # a page may write .venv/bin/groundup
        for block in blocks(page):
            if block.language == "text" and block.mark == "compared":
                compare(block, printed)
            elif block.mark.startswith("file: "):
                Path(block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
            elif block.language not in ("python", "sh") or block.mark.startswith("command: "):
                continue
            elif block.mark.startswith("not run: "):
                print(f"{block.place}  {block.mark}")
            else:
                start = time.monotonic()
                printed = run_python(block, namespace) if block.language == "python" else run_shell(block)
                print(f"{block.place}  {block.language} ran in {time.monotonic() - start:.1f} s", flush=True)


def run_python(block: Block, namespace: dict[str, object]) -> str:
    printed = io.StringIO()
    padding = "\n" * (block.line - 1)  # so that a traceback has the line numbers of the page
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(padding + block.text, block.page, "exec"), namespace)
    except (Exception, SystemExit) as fault:
        lines = [frame.lineno for frame in traceback.extract_tb(fault.__traceback__) if frame.filename == block.page]
        told = "".join(traceback.format_exception(fault))
        raise SnippetError(f"{block.page}:{(lines or [block.line])[-1]}\n{printed.getvalue()}{told}") from fault
    return printed.getvalue()


def run_shell(block: Block) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", "-e", "-c", block.text]
    done = subprocess.run(
        command, env=os.environ | {"PATH": path}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise SnippetError(f"{block.place}\n{block.text}{done.stdout}{done.stderr}exit status {done.returncode}")
    return done.stdout


def compare(block: Block, printed: str) -> None:
    if block.text.split("\n") != printed.split("\n"):
        raise SnippetError(f"{block.place}\nthe page shows\n{block.text}but the block before it printed\n{printed}")


def marked_command(name: str) -> str:
    """Returns the one-line command that is marked with ``<!-- command: NAME -->`` on one of the pages."""
    found = [block for page in PAGES for block in blocks(page) if block.mark == f"command: {name}"]
    if [block.text.count("\n") for block in found] != [1]:
        places = ", ".join(block.place for block in found) or "none"
        raise SnippetError(f"expected one block of one line below <!-- command: {name} -->, but found {places}")
    return found[0].text.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    parser.add_argument("--command", metavar="NAME", help="print the marked command instead")
    arguments = parser.parse_args()
    try:
        if arguments.command:
            print(marked_command(arguments.command))
            return
        with tempfile.TemporaryDirectory() as cache:
            os.environ["GROUNDUP_CACHE"] = cache  # no snippet is among the user's own runs
            for page in [page.resolve() for page in arguments.pages] or PAGES:
                run_page(page)
    except SnippetError as fault:
        sys.exit(f"FAILED {fault}")


if __name__ == "__main__":
    main()
