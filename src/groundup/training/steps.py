"""The training loop, as a generator: the caller's own ``for`` is the place to log, save and evaluate.

    for step in steps(model, loader.batch, next_token, optimizer, schedule, until=tokens(10e9)):
        if step.every(50):
            log(step)

A step adds up the losses of its micro-batches, each divided by the tokens that count in all of them, so that
accumulating gradients over many small batches equals one large batch. Batches are a function of their number, so a
run that is resumed at a step sees what it would have seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from groundup.context import Batch
from groundup.devices import autocast
from groundup.errors import DataError, TrainingError
from groundup.model.model import ModelModule
from groundup.objectives.loss import LossFunction
from groundup.objectives.objective import Batches
from groundup.optim.joint import JointOptimizer
from groundup.optim.schedules import Schedule
from groundup.training.budget import Budget, Tally


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one update of the weights was.

    Attributes:
        tally: what the run has spent, this step included.
        progress: the share of the budget that is spent, this step included.
        loss: the mean loss per token that counts, in nats, before the update.
        gradient_norm: of all gradients together, before clipping.
        rate: the share of the peak learning rate that was used.
        tokens: of text that this step read.
        seconds: what the step took.
        last: whether the budget is spent.
    """

    tally: Tally
    progress: float
    loss: float
    gradient_norm: float
    rate: float
    tokens: int
    seconds: float
    last: bool

    def every(self, count: int) -> bool:
        """Returns whether this step's number is a multiple of ``count``, or the last."""
        return self.last or self.tally.steps % count == 0


def steps(
    model: ModelModule,
    batches: Batches,
    objective: LossFunction,
    optimizer: JointOptimizer,
    schedule: Schedule,
    *,
    until: Budget,
    start: Tally = Tally(),  # noqa: B008 - a spec is a value
    accumulate: int = 1,
    clip: float = 1.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Iterator[Step]:
    """Trains the model in place and yields after every update.

    Args:
        model: what is trained; it is put into training mode at every step.
        batches: the micro-batch of a number; step i uses those from ``i * accumulate`` on.
        objective: the loss of a batch, such as `next_token` or the ``loss`` of an objective.
        optimizer: what updates the weights.
        schedule: the learning rate over the run.
        until: how long the run lasts.
        start: what an earlier part of the run has spent.
        accumulate: micro-batches in a step.
        clip: the largest norm of the gradient; larger ones are scaled down to it (Pascanu et al. 2013,
            arXiv:1211.5063).
        dtype: of the matrix products; weights stay as they are.
        seed: of dropout; every step draws from a generator of its own, so that a resumed run draws the same.

    Raises:
        TrainingError: a loss or a gradient is not finite; the weights are those before the step.
        DataError: the text has token ids that the model does not have (on a GPU, the driver fails instead).
    """
    device = next(model.parameters()).device
    tally = start
    while until.spent(tally) < 1:
        began = time.perf_counter()
        model.train()
        first = tally.steps * accumulate
        micro = [batches(first + i).to(device) for i in range(accumulate)]
        counted = sum(batch.counted_tokens for batch in micro)
        read = sum(batch.read_tokens for batch in micro)
        rate = schedule.factor(_middle(until, tally, read))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed * 1_000_003 + tally.steps)
            try:
                loss = _gradients(model, micro, objective, counted=counted, dtype=dtype)
            except IndexError as fault:
                found = _why_not_found(model, micro)
                if found is None:
                    raise
                raise found from fault
        norm = _clip(model, clip)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise TrainingError(
                _why_not_finite(model, loss, step=tally.steps, first=first, last=first + accumulate - 1)
            )
        optimizer.scale_lr(rate)
        optimizer.step()
        optimizer.zero_grad()
        took = time.perf_counter() - began
        tally = Tally(steps=tally.steps + 1, tokens=tally.tokens + read, seconds=tally.seconds + took)
        progress = until.spent(tally)
        yield Step(
            tally=tally,
            progress=min(progress, 1.0),
            loss=loss.item(),
            gradient_norm=norm.item(),
            rate=rate,
            tokens=read,
            seconds=took,
            last=progress >= 1,
        )


def _middle(until: Budget, tally: Tally, read: int) -> float:
    """The progress in the middle of the next step, if it spends what those before it did on average.

    Nobody knows the time of a run's very first step, so by the clock its progress, and with it its rate, is zero.
    """
    if not tally.steps:
        return until.spent(Tally(steps=1, tokens=read)) / 2
    return until.spent(tally) * (1 + 0.5 / tally.steps)


def _gradients(
    model: ModelModule, micro: list[Batch], objective: LossFunction, *, counted: int, dtype: torch.dtype
) -> torch.Tensor:
    """Adds the gradients of the mean loss over all micro-batches to the weights; returns that loss."""
    total = torch.zeros((), device=micro[0].ids.device)
    for batch in micro:
        with autocast(batch.ids.device, dtype):
            loss = objective(model, batch).total / max(counted, 1)
        loss.backward()
        total += loss.detach()
        del loss  # and with it autograd's nodes, which else lie between the tensors of the next micro-batch
    return total


def _clip(model: nn.Module, largest: float) -> torch.Tensor:
    """Scales the gradients down to the largest norm if theirs is larger; returns what it was."""
    parameters = list(model.parameters())
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)
    if norm > largest:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm, foreach=True)
    return norm


def _why_not_found(model: ModelModule, micro: list[Batch]) -> DataError | None:
    """What is said of token ids that the model does not have; None where it has all of them."""
    words = model.spec.predictor.vocab
    largest = max(int(ids.max()) for batch in micro for ids in (batch.ids, batch.targets))
    if largest < words:
        return None
    return DataError(
        f"the text has token id {largest}, and the model has {words}, from 0 to {words - 1}; "
        "build it with the vocab of the text's tokenizer"
    )


def _why_not_finite(model: nn.Module, loss: torch.Tensor, *, step: int, first: int, last: int) -> str:
    where = f"step {step + 1} (micro-batch {first}{f' to {last}' if last > first else ''})"
    if not torch.isfinite(loss):
        # Before the first update no rate has changed anything.
        cause = "lower the learning rate, or look at the batch" if step else "look at the model's parts and the batch"
        return f"the loss of {where} is {loss.item()}; {cause}"
    grads = ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    bad = next((name for name, grad in grads if not torch.isfinite(grad).all()), "all parameters together")
    return f"the gradient of {bad} is not finite at {where}; lower the learning rate, or look at the batch"
