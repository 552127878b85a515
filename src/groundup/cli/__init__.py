"""The command line: one short file a verb, no logic; nothing here imports torch before a verb runs."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from groundup.errors import GroundupError, nearest
from groundup.files import as_path

IMPORT = "GROUNDUP_IMPORT"  # the variable that names a Python file with kinds of the user's own
EXIT_FAULT, EXIT_MISTAKE = 1, 2
EXIT_INTERRUPTED, EXIT_PIPE = 128 + 2, 128 + 13  # what shells make of SIGINT and SIGPIPE


@dataclass(frozen=True)
class Verb:
    """Where a verb lives, and its help in one line."""

    module: str
    command: str
    help: str


# In the order of `groundup --help`.
VERBS = {
    "quickstart": Verb(
        "quickstart", "quickstart", "See it all in five minutes: plan, train, evaluate and sample a small model here."
    ),
    "list": Verb("listing", "listing", "List models, recipes, corpora or hardware by name."),
    "show": Verb("show", "show", "Show a model's tree: shapes, parameters, operations and state of every part."),
    "plan": Verb("plan", "plan", "Tell what a training run will take, before anything is spent."),
    "tokenizer": Verb("tokenizer", "tokenizer", "Train a tokenizer, encode with one, or compare several on a text."),
    "data": Verb("data", "data", "Build a corpus of tokens from text, or look into a source."),
    "train": Verb("train", "train", "Train a model on text."),
    "resume": Verb("train", "resume", "Go on with a run that was stopped."),
    "compare": Verb("compare", "compare", "Find out which architecture is best on a text, at a matched budget."),
    "evaluate": Verb("evaluate", "evaluate", "Tell how well a model predicts a text: loss, perplexity, bits per byte."),
    "generate": Verb("generate", "generate", "Continue a prompt."),
    "audit": Verb("audit", "audit", "Compare a run's plan with what was measured."),
    "doctor": Verb("doctor", "doctor", "Tell what this machine is, what is installed, and what is missing."),
}


class Verbs(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the verbs in the order in which a newcomer meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns the command of a verb, or None."""
        if cmd_name not in VERBS:
            return None
        verb = VERBS[cmd_name]
        command = getattr(importlib.import_module(f"groundup.cli.{verb.module}"), verb.command)
        command.short_help = verb.help
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the verbs with their help lines, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()], col_max=14)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the verb that was typed, or refuses with the nearest one."""
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            hint = nearest(args[0], VERBS) or "see groundup --help"
            raise click.UsageError(f"there is no verb {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Reads the arguments; help is printed here."""
        with _reader_may_leave():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb."""
        with _reader_may_leave():
            return super().invoke(ctx)


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Ends quietly when the reader of a pipe has seen enough; click itself would take that for a fault."""
    try:
        yield
    except BrokenPipeError as gone:
        # What is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(EXIT_PIPE) from gone


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="MODEL is a preset (groundup list models), a run or checkpoint folder, a Hugging Face folder or id, a spec "
    "in .yaml or .json, a bare config.json, or one of your own as FILE.py:NAME. What FILE.py defines is known to every "
    f"verb where {IMPORT}=FILE.py is set. With --debug a mistake shows its traceback.",
)
@click.version_option(package_name="groundup")
def groundup() -> None:
    """Build language models from the ground up, and know before you start what it will take.

    Begin with:  groundup quickstart
    """
    if IMPORT in os.environ:
        from groundup.hub.own_file import import_file

        import_file(as_path(os.environ[IMPORT]))


def main() -> None:
    """Runs the command line and exits: 0 done, 2 a mistake of the user's, 1 a fault of ours, 130 stopped.

    It exits with 141 where the reader of a pipe has left.
    """
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        sys.exit(groundup.main(arguments, prog_name="groundup", standalone_mode=False))
    except click.ClickException as mistake:
        mistake.show()
        sys.exit(EXIT_MISTAKE)
    except GroundupError as mistake:
        _end(f"Error: {mistake}", EXIT_MISTAKE, debug=debug)
    except (KeyboardInterrupt, click.Abort) as stopped:
        _end(f"Interrupted. {str(stopped) or 'Calling it again is safe.'}", EXIT_INTERRUPTED, debug=debug)
    except OSError as fault:  # the disk, the terminal or the rights are not as they should be
        _end(f"Error: {fault}; mend that and try again", EXIT_MISTAKE, debug=debug)
    except Exception as fault:  # the last resort: a fault of ours is told as one, in one line
        theirs = _in_own_file(fault)
        if theirs:
            _end(f"Error: {theirs}; --debug shows all of it", EXIT_MISTAKE, debug=debug)
        _end(f"Fault in groundup ({type(fault).__name__}: {fault}); --debug shows where", EXIT_FAULT, debug=debug)


def _in_own_file(fault: Exception) -> str | None:
    """Where in a file of the user's it happened, if any was imported."""
    own_file = sys.modules.get("groundup.hub.own_file")
    return own_file.blame(fault) if own_file else None


@contextmanager
def resumable(folder: Path, *, command: str = "groundup resume {folder}") -> Iterator[None]:
    """Says how to go on with the run in a folder where it is interrupted, by this command."""
    try:
        yield
    except KeyboardInterrupt as pressed:
        if (folder / "config.yaml").is_file():
            raise click.Abort(f"Go on with: {command.format(folder=shlex.quote(str(folder)))}") from pressed
        raise


def _end(line: str, code: int, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    click.echo(line, err=True)
    sys.exit(code)
