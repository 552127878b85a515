"""The command line: one short file a verb, no logic; nothing here imports torch before a verb runs."""

from __future__ import annotations

import importlib
import os
import sys
import traceback

import click

from groundup.errors import GroundupError, nearest

EXIT_FAULT, EXIT_MISTAKE, EXIT_INTERRUPTED = 1, 2, 130

# The verbs in the order of `groundup --help`: where each lives, and its help in one line.
VERBS = {
    "quickstart": ("quickstart", "See it all in five minutes: plan, train, evaluate and sample a small model here."),
    "list": ("listing", "List models, hardware or corpora by name."),
    "show": ("show", "Show a model's tree: shapes, parameters, operations and state of every part."),
    "plan": ("plan", "Tell what a training run will take, before anything is spent."),
    "tokenizer": ("tokenizer", "Train a tokenizer, encode with one, or compare several on a text."),
    "data": ("data", "Build a corpus of tokens from text, or look into a source."),
    "train": ("train", "Train a model on text."),
    "resume": ("train", "Go on with a run that was stopped."),
    "evaluate": ("evaluate", "Tell how well a model predicts a text: loss, perplexity, bits per byte."),
    "generate": ("generate", "Continue a prompt."),
    "audit": ("audit", "Compare a run's plan with what was measured."),
    "doctor": ("doctor", "Tell what this machine is, what is installed, and what is missing."),
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
        module, help_line = VERBS[cmd_name]
        command = getattr(importlib.import_module(f"groundup.cli.{module}"), cmd_name.replace("list", "listing"))
        command.short_help = help_line
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the verbs with their help lines, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()], col_max=14)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the verb that was typed, or refuses with the nearest one."""
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            hint = nearest(args[0], VERBS) or "see groundup --help"
            raise click.UsageError(f"there is no verb {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="MODEL is a preset (groundup list models), a run or checkpoint folder, a Hugging Face folder or id, a spec "
    "in .yaml or .json, or a bare config.json. With --debug a mistake shows its traceback.",
)
@click.version_option(package_name="groundup")
def groundup() -> None:
    """Build language models from the ground up, and know before you start what it will take.

    Begin with:  groundup quickstart
    """


def main() -> None:
    """Runs the command line; exits with 0, with 2 on a mistake of the user's, with 1 on a fault of ours."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        groundup.main(arguments, prog_name="groundup", standalone_mode=False)
    except click.ClickException as mistake:
        mistake.show()
        sys.exit(EXIT_MISTAKE)
    except GroundupError as mistake:
        _end(f"Error: {mistake}", EXIT_MISTAKE, debug=debug)
    except (KeyboardInterrupt, click.Abort):
        _end("Interrupted.", EXIT_INTERRUPTED, debug=debug)
    except BrokenPipeError:
        # The reader of a pipe has seen enough; what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as fault:  # the last resort: a fault of ours is told as one, in one line
        _end(f"Fault in groundup ({type(fault).__name__}: {fault}); --debug shows where", EXIT_FAULT, debug=debug)


def _end(line: str, code: int, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    click.echo(line, err=True)
    sys.exit(code)
