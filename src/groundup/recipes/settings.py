"""Everything that a pretraining run is, as one value that is written to config.yaml and read back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import yaml

from groundup import devices
from groundup.errors import ConfigError, SpecError
from groundup.files import read_limited
from groundup.hub.spec_file import MOST_BYTES_YAML
from groundup.model.model import Model
from groundup.objectives.objective import Objective, Shape, Usual
from groundup.objectives.usual import usual
from groundup.optim.optimizers import AdamW, Optimizer
from groundup.optim.schedules import Cosine, Schedule
from groundup.specs import AnySpec, Limit, Positive, Seed, Size, Spec, override_all
from groundup.text.train import KINDS
from groundup.training.budget import Budget

PRECISIONS = ("auto", *devices.NAMES)
Times = Annotated[int, Limit("a whole number from 1 to 10,000", lambda n: 1 <= n <= 10_000)]


class Data(Spec):
    """What a run reads.

    Attributes:
        source: a file, a folder, ``python`` for the standard library's source, a Hugging Face dataset id, or a corpus
            that ``groundup data build`` made, whose tokenizer and held-out share are its own.
        tokenizer: a file or folder to take the tokenizer from; None trains one on the source.
        tokens: of which kind the tokenizer is that is trained: ``bpe``, ``char`` or ``word``.
        vocab: its size; None means the model's.
        held_out: the share of documents that is kept for validation.
        field: the name of the text, or of the source of a pair, in .jsonl, .tsv and .parquet files; None takes the
            usual names.
        target: the name of the target of a pair, for objectives that read pairs.
    """

    source: str = "python"
    tokenizer: str | None = None
    tokens: str = "bpe"
    vocab: Size | None = None
    held_out: float = 0.05
    field: str | None = None
    target: str = "target"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens not in KINDS:
            raise ConfigError(f"data.tokens={self.tokens!r} is no kind of tokenizer; choose from {', '.join(KINDS)}")
        if not 0 < self.held_out < 1:
            raise ConfigError(
                f"data.held_out={self.held_out} must be above 0 and below 1: a run is scored on that share"
            )


class Run(Spec):
    """A pretraining run.

    Attributes:
        model: what is trained.
        objective: what it learns; by default what is usual for the kind of the model.
        data: what it reads.
        optimizer: what updates the weights.
        schedule: the learning rate over the run.
        budget: how long it lasts.
        rows: sequences in a micro-batch.
        context: tokens of a sequence; None means the model's context.
        accumulate: micro-batches in a step.
        clip: the largest norm of the gradient.
        precision: ``bf16`` or ``fp32`` for the matrix products; ``auto`` means bf16 where the processor has it.
        seed: of the first weights, of the order of the data and of dropout.
        compile: whether the model is compiled.
        save_seconds: time between checkpoints.
        evaluations: how often the validation loss is taken over the run, the end included.
        prompts: what the trained model continues at the end; none means how three held-out documents begin.
    """

    model: Model
    objective: Objective = Usual()
    data: Data = Data()
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Cosine()
    budget: Budget
    rows: Size = 16
    context: Size | None = None
    accumulate: Times = 1
    clip: Positive = 1.0
    precision: str = "auto"
    seed: Seed = 0
    compile: bool = False
    save_seconds: Positive = 300.0
    evaluations: Times = 10
    prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision={self.precision!r} does not exist; choose from {', '.join(PRECISIONS)}")
        if self.length > self.model.longest:
            raise ConfigError(
                f"context={self.length} is longer than the model's context of {self.model.longest}; "
                "lower it, or raise model.context"
            )
        if self.objective == Usual():
            object.__setattr__(self, "objective", usual(self.model))  # so that it is told, saved and can be changed
        self.objective.check(self.model)

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return self.model.longest if self.context is None else self.context

    @property
    def shape(self) -> Shape:
        """What the objective makes of such a sequence."""
        return self.objective.shape(self.model, self.length)

    @property
    def target(self) -> str | None:
        """The name of the field of targets; None where it reads no pairs."""
        return self.data.target if self.objective.pairs else None

    @property
    def step_tokens(self) -> int:
        """Tokens of text in a step."""
        return self.rows * self.shape.text * self.accumulate


def with_overrides(run: Run, settings: Iterable[str]) -> Run:
    """Returns the run with settings of the form ``optimizer.lr=3e-4`` or ``layers.*.mix.mixer.position.theta=1e6``.

    A path that begins with a part of the model may leave ``model.`` out.

    Raises:
        ConfigError: not of that form, or no such setting (the message names the nearest).
        SpecError: the settings do not fit together.
    """
    own, of_model = ({f.name for f in fields(spec)} for spec in (Run, type(run.model)))
    only_model = of_model - own
    return override_all(run, _changes(settings, lambda p: f"model.{p}" if p.split(".")[0] in only_model else p))


def model_with(model: Model, settings: Iterable[str]) -> Model:
    """Returns the model with settings of the form ``width=256`` or ``layers=6``; the errors are `with_overrides`'."""
    return override_all(model, _changes(settings, lambda path: path.removeprefix("model.")))


def _changes(settings: Iterable[str], full: Callable[[str], str]) -> dict[str, object]:
    """The values by their full paths, as ``full`` makes them; the last of two for a path counts, at its own place."""
    changes: dict[str, object] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"{setting!r} is no setting; write it as name=value, as in optimizer.lr=3e-4")
        path = full(path)
        changes.pop(path, None)
        changes[path] = read_value(text)
    return changes


def read_value(text: str) -> object:
    """Returns a value from the command line as YAML reads it: numbers, words, lists, mappings."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        raise ConfigError(f"{text[:80]!r} is not a value that YAML can read; put it in quotes") from fault


def read_run(path: Path) -> Run:
    """Returns the run that a config.yaml describes.

    Raises:
        ConfigError: the file cannot be read as one.
    """
    return read_spec(path, Run)


def read_spec(path: Path, kind: type[AnySpec]) -> AnySpec:
    """Returns the spec of a kind that a YAML file holds.

    Raises:
        ConfigError: the file cannot be read as one.
    """
    data = _read_yaml(path)
    try:
        return kind.from_dict(data)
    except (ConfigError, SpecError) as fault:
        raise type(fault)(f"{path}: {fault}") from fault


def is_run(path: Path) -> bool:
    """Returns whether a file describes a run, and not a model alone.

    Raises:
        ConfigError: the file cannot be read.
    """
    data = _read_yaml(path)
    return isinstance(data, dict) and data.get("kind") == Run.__name__


def _read_yaml(path: Path) -> object:
    try:
        return yaml.safe_load(read_limited(path, most_bytes=MOST_BYTES_YAML).decode())
    except FileNotFoundError as fault:
        raise ConfigError(f"{path} is not there; give the config.yaml of a run, or a MODEL") from fault
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path} cannot be read as text: {fault}") from fault
    except RecursionError as fault:
        raise ConfigError(f"{path} is nested too deeply to be a configuration; mend it there") from fault
    except ValueError as fault:  # a date that does not exist
        raise ConfigError(f"{path} has a value that YAML cannot read: {fault}; put it in quotes") from fault
    except yaml.YAMLError as fault:
        where = getattr(fault, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise ConfigError(f"{path} is not YAML{line}: {getattr(fault, 'problem', 'damaged')}; mend it there") from fault


def write_spec(spec: Spec) -> str:
    """Returns the text of a config.yaml: every setting, so that later defaults do not change what it was."""
    return yaml.safe_dump(spec.to_dict(whole=True), sort_keys=False, allow_unicode=True, width=120)
