"""What a run took, measured at its end, beside what was planned."""

from __future__ import annotations

from statistics import median

from groundup import devices
from groundup.optim.joint import state_tensors
from groundup.planner import measure
from groundup.planner.audit import Entry, entries, number, read_plan, record
from groundup.planner.history import remember
from groundup.planner.machine import calibrate
from groundup.planner.plan import Plan
from groundup.recipes.learner import Learner
from groundup.recipes.place import Place


def settle(
    learner: Learner,
    place: Place,
    made: Plan,
    *,
    times: list[float],
    peak_bytes: int | None,
    joules: float | None,
    others: float | None,
) -> None:
    """Writes what was measured beside what was planned, into the run's ledger and the history of this machine.

    Args:
        learner: what learnt.
        place: the run.
        made: its plan, where the run has none written down.
        times: of the steps that this process made, in seconds.
        peak_bytes: the most memory they held; None where nobody knows.
        joules: what they took; None where nobody knows.
        others: the share of the processor that other processes took meanwhile; None where nobody knows.

    Raises:
        StorageError: the ledger cannot be written.
    """
    run, model, tally = learner.run, learner.model, learner.tally
    batch = learner.batches(0).to(learner.device)
    if run.objective.whole:
        batch = batch.first_rows(1)  # as every other
    flops = gradients = 0
    for row in batch.by_row():  # one by one, for counting holds more than a step
        with devices.autocast(learner.device, learner.dtype):
            flops += measure.count_flops(lambda row=row: run.objective.loss(model, row).total.backward())
        gradients = sum(w.grad.nbytes for w in model.parameters() if w.grad is not None)
        model.zero_grad(set_to_none=True)
    measured = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "step_flops": flops * run.rows // len(batch.ids) * run.accumulate,
        "steps": tally.steps,
        "train_seconds": tally.seconds,
        "weights_bytes": sum(weight.nbytes for weight in model.parameters()),
        "gradients_bytes": gradients,
        "optimizer_bytes": sum(tensor.nbytes for tensor in state_tensors(learner.optimizer).values()),
    }
    measured |= {} if joules is None else {"energy_kwh": joules / 3.6e6}
    if times:  # none where an earlier process made the last step
        if peak_bytes is not None:
            tensors = measured["weights_bytes"] + measured["optimizer_bytes"]
            measured |= {"peak_bytes": peak_bytes, "other_bytes": peak_bytes - tensors}
        measured |= {
            "step_seconds": median(times),
            "tokens_per_second": made.batch_tokens / median(times),
        }
    planned = read_plan(place.plan) or made.to_dict()
    found = entries(planned, measured)
    record(place.ledger, found)
    ordered = sorted(times)
    remember(
        place.folder,
        [
            *found,
            Entry(quantity="slack_bytes", unit="bytes", predicted=number(planned.get("slack_bytes")), measured=None),
        ],
        machine=calibrate(device=learner.device),
        params=measured["parameters"],
        correction=planned.get("correction", {}),
        spread=median(ordered) / ordered[len(ordered) // 10] if ordered else None,
        others=others,
    )
