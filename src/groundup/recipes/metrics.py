"""Where the figures of steps go: a line each in metrics.jsonl and, when asked, TensorBoard's events beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from groundup.errors import MissingExtra
from groundup.evals.perplexity import Score
from groundup.recipes.place import Place
from groundup.training.steps import Step

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

Entry = dict[str, Any]  # figures by name, "step" among them; several that belong together may stand in one of their own


@contextmanager
def metrics(place: Place, *, after: int, tensorboard: bool) -> Iterator[Callable[[Entry], None]]:
    """Gives the function that takes the figures of a step.

    Args:
        place: the run.
        after: the step to go on from; what was logged of later ones is forgotten.
        tensorboard: whether events are written too.

    Raises:
        MissingExtra: tensorboard is asked for and not installed.
    """
    place.forget_after(after)
    if not tensorboard:
        yield place.log
        return
    with tensorboard_writer()(place.folder, purge_step=after + 1) as writer:

        def log(entry: Entry) -> None:
            place.log(entry)
            for name, value in _scalars(entry):
                writer.add_scalar(name, value, entry["step"])

        yield log


def entry_of(step: Step, score: Score | None) -> Entry:
    """Returns the figures of a step, with its score on the validation text where that was taken."""
    entry: Entry = {
        "step": step.tally.steps,
        "tokens": step.tally.tokens,
        "seconds": round(step.tally.seconds, 3),
        "loss": step.loss,
        "gradient_norm": step.gradient_norm,
        "rate": step.rate,
        "tokens_per_second": step.tokens / step.seconds,
    }
    return entry if score is None else entry | {"validation": score.to_dict()}


def tensorboard_writer() -> type[SummaryWriter]:
    """Returns the class that writes events.

    Raises:
        MissingExtra: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as fault:
        raise MissingExtra("tensorboard", purpose="writing events for TensorBoard", extra="tensorboard") from fault
    return SummaryWriter


def _scalars(entry: Entry, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields the figures with their names, those within others as TensorBoard groups them: ``validation/loss``."""
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif name != "step":
            yield prefix + name, value
