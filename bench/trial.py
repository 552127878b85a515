"""One training, measured in a process of its own: its peak memory, the time of its steps and of its tokens.

The process is bare: it builds the model, takes steps of random tokens as `groundup train` takes them, and writes some
tokens. The peak is VmHWM, the most that was ever resident since the process began, on CUDA that of PyTorch's allocator.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundup.context import Batch
    from groundup.model.model import Model

PROMPT = 64  # tokens, after which a model writes
WARM = 2  # steps and tokens that are not counted


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is trained.

    Attributes:
        preset: whose architecture the model has.
        params: about as many, in parts that grow with the width.
        vocab: token ids.
        rows: of a micro-batch.
        context: tokens of a row.
        accumulate: micro-batches of a step.
        precision: ``bf16`` or ``fp32``.
        optimizer: ``adamw`` or ``muon``.
        steps: that are measured; 0 takes one and counts that.
        tokens: that are written and measured; 0 for models that do not write.
        limit_bytes: the memory that the process may have; 0 means all there is.
    """

    preset: str
    params: float
    vocab: int
    rows: int
    context: int
    accumulate: int = 1
    precision: str = "bf16"
    optimizer: str = "adamw"
    steps: int = 8
    tokens: int = 0
    limit_bytes: int = 0

    def design(self) -> Model:
        """Returns the model: a decoder at its size; of other kinds, the preset with fewer layers."""
        import groundup as gu
        from groundup.model.decoder import Decoder
        from groundup.planner import books
        from groundup.planner.sizing import fitted

        spec = gu.spec(self.preset)
        if isinstance(spec, Decoder):
            sizes = {"vocab": self.vocab, "context": self.context, "tolerance": 0.2}
            return fitted(spec, target=self.params, measure=books.params, **sizes)
        return FEWER[self.preset](self)

    def plan(self) -> Any:
        """Returns what is planned for it."""
        import groundup as gu
        from groundup.objectives.usual import usual
        from groundup.optim.optimizers import Optimizer

        spec = self.design()
        batch = self.accumulate * self.rows * usual(spec).shape(spec, self.context).text
        return gu.plan(
            spec,
            rows=self.rows,
            context=self.context,
            batch_tokens=batch,
            precision=self.precision,
            optimizer=Optimizer.from_dict({"kind": self.optimizer}),
            objective=usual(spec),
        )


def bert(trial: Trial) -> Model:
    from groundup.families.bert import bert as make

    width = width_for(trial, of_layer=12)
    return make(width=width, layers=6, heads=width // 64, vocab=trial.vocab, context=trial.context)


def longformer(trial: Trial) -> Model:
    from groundup.families.longformer import longformer as make

    width = width_for(trial, of_layer=15)
    sizes = {"width": width, "heads": width // 64, "vocab": trial.vocab, "context": trial.context}
    return make(windows=[trial.context // 4] * 6, **sizes)


def t5(trial: Trial) -> Model:
    from groundup.families.t5 import t5 as make

    width = width_for(trial, of_layer=28)
    sizes = {"hidden": 4 * width, "vocab": trial.vocab, "context": trial.context}
    return make(width=width, layers=6, heads=width // 64, **sizes)


def width_for(trial: Trial, *, of_layer: int) -> int:
    """Returns the width, a multiple of 64, of six layers with so many times its square of weights each."""
    widths = range(64, 2048, 64)
    return min(widths, key=lambda width: abs(6 * of_layer * width**2 + trial.vocab * width - trial.params))


FEWER: dict[str, Callable[[Trial], Model]] = {"bert-base": bert, "longformer-base-4096": longformer, "t5-base": t5}


def measured(trial: Trial) -> dict[str, Any]:
    """Returns what a trial took: ``peak_bytes``, ``step_seconds``, ``token_seconds``; or ``out_of_memory``."""
    command = [sys.executable, __file__, json.dumps(asdict(trial)), json.dumps(trial.design().to_dict())]
    group = memory_group(trial.limit_bytes) if trial.limit_bytes else None
    run = subprocess.run(command, capture_output=True, text=True, preexec_fn=group)
    if run.returncode:
        return {"out_of_memory": out_of_memory(run), "told": run.stderr.strip().splitlines()[-1:]}
    return json.loads(run.stdout.splitlines()[-1])


def out_of_memory(run: subprocess.CompletedProcess[str]) -> bool:
    """Returns whether a process died of too little memory; raises where it died of anything else."""
    if run.returncode == -9 or "memory" in run.stderr.lower() or "MemoryError" in run.stderr:
        return True
    raise SystemExit(f"a trial ended with status {run.returncode}:\n{run.stderr}")


def memory_group(limit_bytes: int) -> Callable[[], None]:
    """Returns what a process calls to be held to a limit: a control group's where that can be made, else ulimit's."""
    old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    root, name = (old, "memory.limit_in_bytes") if (old / "tasks").exists() else (new, "memory.max")
    folder = root / f"groundup-{limit_bytes}"

    def enter() -> None:
        try:
            folder.mkdir(exist_ok=True)
            (folder / name).write_text(str(limit_bytes))
            (folder / "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

    return enter


def take(trial: Trial, spec: Model) -> dict[str, Any]:
    """Takes the steps and writes the tokens, in this process."""
    import torch

    from groundup.objectives.usual import usual
    from groundup.optim.optimizers import Optimizer
    from groundup.optim.schedules import Constant
    from groundup.planner import measure
    from groundup.training.allocator import keep_freed_memory
    from groundup.training.budget import Steps
    from groundup.training.steps import steps

    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = spec.build().to(device)
    objective, dtype = usual(model.spec), {"bf16": torch.bfloat16, "fp32": torch.float32}[trial.precision]
    run = steps(
        model,
        lambda number: batch(trial, model.spec, number),
        objective.loss,
        Optimizer.from_dict({"kind": trial.optimizer}).build(model, products=dtype),
        Constant(),
        until=Steps(10**9),
        accumulate=trial.accumulate,
        dtype=dtype,
    )
    times = [next(run).seconds for _ in range(WARM + trial.steps)]
    peak = measure.peak_bytes(device)
    written = writing(model, trial) if trial.tokens else None
    return {"peak_bytes": peak, "step_seconds": statistics.median(times[WARM:] or times), "token_seconds": written}


def batch(trial: Trial, spec: Model, number: int) -> Batch:
    """Returns random tokens of the shape of the model's usual objective; where rows are packed, of two documents."""
    import torch

    from groundup.context import NOT_COUNTED, Batch
    from groundup.objectives.usual import usual

    shape, generator = usual(spec).shape(spec, trial.context), torch.Generator().manual_seed(number)

    def ids(count: int) -> torch.Tensor:
        return torch.randint(0, spec.predictor.vocab, (trial.rows, count), generator=generator)

    read = ids(shape.ids + 1)
    inputs, targets = read[:, :-1], read[:, 1:].clone()
    hidden = shape.ids - shape.predicted
    for row in targets if hidden > 0 else ():
        row[torch.randperm(shape.ids, generator=generator)[:hidden]] = NOT_COUNTED
    if shape.source:
        return Batch(ids=inputs, targets=targets, source=ids(shape.source))
    places, half = torch.arange(shape.ids).expand(trial.rows, -1), shape.ids // 2
    return Batch(ids=inputs, targets=targets, segments=(places >= half).long(), positions=places % half)


def writing(model: Any, trial: Trial) -> float:
    """Returns the median seconds of a token that all rows write after a prompt."""
    import torch

    from groundup.infer.generate import steps
    from groundup.infer.generation import Generation

    ids = torch.randint(0, model.spec.predictor.vocab, (trial.rows, PROMPT)).tolist()
    rows, times, began = [Generation(prompt_ids=row) for row in ids], [], time.perf_counter()
    for _ in steps(model, rows, max_new_tokens=WARM + trial.tokens):
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
    return statistics.median(times[WARM:])


@contextmanager
def new_cache() -> Iterator[None]:
    """Lets plans be those of a fresh installation, which no run of this machine has corrected."""
    with tempfile.TemporaryDirectory(prefix="groundup-bench-") as folder:
        os.environ["GROUNDUP_CACHE"] = folder
        yield


def with_limit(trial: Trial, limit_bytes: int) -> Trial:
    """Returns a trial that is held to a limit and takes few steps."""
    return replace(trial, limit_bytes=limit_bytes, steps=2, tokens=0)


if __name__ == "__main__":
    import groundup.families  # noqa: F401 - so that all kinds of specs are known
    from groundup.model.model import Model

    print(json.dumps(take(Trial(**json.loads(sys.argv[1])), Model.from_dict(json.loads(sys.argv[2])))))
