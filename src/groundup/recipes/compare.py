"""The shoot-out: which architecture is best on this text, at this budget, and how sure that is.

    comparisons/NAME/comparison.yaml     what is compared, and how: the sizes that the planner found, the steps
    comparisons/NAME/corpus, tokenizer   what all of them read
    comparisons/NAME/ENTRANT/rate-2.json            how well a short run with twice the rate did
    comparisons/NAME/ENTRANT/seed-0/...             a run as `groundup train` makes it
    comparisons/NAME/ENTRANT/generating.json, memory.json
    comparisons/NAME/comparison.json, index.html    what came of it

Every architecture is brought to the same size by the planner, reads the same batches, and has its own learning rate,
found by short runs: from the optimizer's own it is doubled or halved as long as that helps. (Short runs like higher
rates than long ones, all of them alike.) What is there is taken, the rest is made, so a comparison that was stopped
goes on, and another architecture can be added to one that is finished.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from groundup.context import Batch
from groundup.data.corpus import Corpus
from groundup.devices import autocast_dtype, pick_device
from groundup.errors import ConfigError, ModelError, TrainingError, writing
from groundup.families import FAMILIES, PRESETS
from groundup.files import alone, atomic_write, remove, remove_abandoned
from groundup.hub.resolve import spec as resolve
from groundup.infer.load import load
from groundup.model.decoder import Decoder, DecoderModel
from groundup.model.model import Model
from groundup.model.promises import broken
from groundup.optim.optimizers import AdamW, Muon
from groundup.optim.schedules import WSD
from groundup.planner import books, measure, units
from groundup.planner.machine import calibrate
from groundup.planner.plan import plan
from groundup.planner.sizing import fitted, lengthened
from groundup.recipes.comparison import FARTHEST, Comparison, Entrant, figure
from groundup.recipes.corpora import check_source, corpus_of
from groundup.recipes.findings import write_findings
from groundup.recipes.learner import Learner
from groundup.recipes.place import Place
from groundup.recipes.pretrain import pretrain, resume
from groundup.recipes.scores import quick_score
from groundup.recipes.settings import Data, Run, read_spec, with_overrides, write_spec
from groundup.recipes.watch import StepsOnly, Watch
from groundup.specs import diff
from groundup.training.budget import Steps
from groundup.training.steps import steps

SEARCH_SHARE = 0.2  # of a run, that each rate of the search takes
SEARCHED = 4  # rates, as a rule
TOKENS_PER_PARAM = 1.0  # of the first architecture; short runs are best with few
UTILISATION = 0.3  # of the matrix rate, before anything is measured
OVERHEAD = 0.25  # of the budget: evaluation, figures of generating and of memory
FEWEST_STEPS = 40
TIMED_STEPS = 3
WRITTEN_TOKENS = 64  # by which the time of generating is taken
LENGTHS = (1, 4, 16)  # times the context, at which memory is told


def compare(
    models: Sequence[str | Path | Model],
    *,
    folder: Path,
    match: str = "flops",
    budget: float = 1800.0,
    seeds: int = 3,
    source: str = "python",
    settings: Iterable[str] = (),
    watch: Watch = Watch(),  # noqa: B008 - it has no state
) -> dict[str, Any]:
    """Returns what a comparison came to; see `groundup.recipes.findings`.

    Args:
        models: any MODEL, or the beginning of a preset's name; its size does not matter.
        folder: where it lies; one that is there goes on.
        match: what is the same for all: ``flops``, ``params``, ``memory`` or ``time``.
        budget: seconds for all of it, about.
        seeds: runs of each architecture.
        source: what they read.
        settings: overrides of the runs' settings, such as ``context=512``.
        watch: who hears how it goes.

    Raises:
        ConfigError: the budget is too small, there is nothing to compare, the objective does not score whole documents,
            or the folder holds another comparison.
        ModelError: one of the models is no language model.
        SpecError: a part of the user's own shows a token what comes after it.
        DataError: the source cannot be read, or has too little text.
        TrainingError: an architecture trains at none of the rates that are tried.
        StorageError: the folder cannot be written, or another process works in it.
    """
    designs = named(models)
    for fault in [fault for design in designs.values() for fault in broken(design)]:
        watch.say(fault)
    run = _run_of(next(iter(designs.values())), source, settings)
    asked = {"match": match, "budget": budget, "seeds": seeds}
    with _alone(folder):
        comparison = _comparison(folder, designs, run, asked, watch)
        corpus = corpus_of(comparison.run, Place(folder), watch)
        comparison = _entered(comparison, designs, corpus, folder, watch)
        for entrant in comparison.entrants:
            _run(comparison, entrant, folder, corpus, watch)
        return write_findings(comparison, folder)


def named(models: Sequence[str | Path | Model]) -> dict[str, Decoder]:
    """Returns the designs to compare by their names in the comparison.

    Raises:
        ConfigError: there are fewer than two, or two of the same name.
        ModelError: one is no language model.
    """
    designs: dict[str, Decoder] = {}
    for model in models:
        given = f"model-{len(designs)}" if isinstance(model, Model) else str(model)
        name = re.sub(r"[^\w.-]+", "-", given).strip(".-")
        if name in designs:
            raise ConfigError(f"{model} is there twice; give each architecture once")
        designs[name] = _design(model)
    if len(designs) < 2:
        raise ConfigError("a comparison needs two architectures at least, such as: groundup compare gpt2 mamba")
    return designs


def _design(model: str | Path | Model) -> Decoder:
    families = {family.name: next(iter(family.presets)) for family in FAMILIES}
    begun = next((name for name in PRESETS if name.startswith(f"{model}-")), None)
    short = families.get(str(model), begun) if str(model) not in PRESETS and not Path(str(model)).exists() else None
    spec = resolve(short or model)
    if not isinstance(spec, Decoder):
        raise ModelError(f"{model} does not read from left to right, as all that are compared have to; leave it out")
    return spec


def _run_of(model: Decoder, source: str, settings: Iterable[str]) -> Run:
    run = with_overrides(_usual(model, source), settings)
    if not run.objective.whole:
        raise ConfigError(
            f"objective={type(run.objective).__name__} does not score whole documents, by which architectures are "
            "compared; leave it out"
        )
    return run


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out of the folder of a comparison, which goes again if nothing comes to lie in it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        remove_abandoned(folder, names=_file(folder).name)
        try:
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()


def _comparison(
    folder: Path, designs: Mapping[str, Decoder], run: Run, asked: dict[str, Any], watch: Watch
) -> Comparison:
    """The comparison in a folder, or a new one."""
    path = _file(folder)
    if path.exists():
        there = read_spec(path, Comparison)
        wanted = there.replace(**asked, run=run.replace(model=there.run.model))
        other = [f"{name}={was} and not {now}" for name, (was, now) in diff(there, wanted).items()]
        if not other:
            return there
        if there.entrants:
            raise ConfigError(f"{folder} holds a comparison with {', '.join(other[:3])}; give another --out")
        _clear(folder)  # nothing was sized yet: it was refused, and is asked for in another way now
    if any(folder.iterdir()):
        raise ConfigError(f"{folder} is there already and holds no comparison; give another --out")
    check_source(run)
    watch.stage("Sizing")
    seconds = asked["budget"] * (1 - OVERHEAD) / len(designs) / (asked["seeds"] + SEARCHED * SEARCH_SHARE)
    model = _affordable(next(iter(designs.values())), run, seconds)
    made = Comparison(**asked, run=run.replace(model=model), target=figure(asked["match"], run, model))
    _write(made, folder)
    return made


def _clear(folder: Path) -> None:
    """Removes what a comparison without architectures has made."""
    place = Place(folder)
    _file(folder).unlink()
    for made in (place.corpus, place.tokenizer):
        remove(made)


def _file(folder: Path) -> Path:
    return folder / "comparison.yaml"


def _write(comparison: Comparison, folder: Path) -> None:
    atomic_write(_file(folder), write_spec(comparison))


def _usual(model: Decoder, source: str) -> Run:
    """The settings of every run where nobody says otherwise."""
    context = min(256, model.context)
    return Run(
        model=model.replace(vocab=4096),
        data=Data(source=source, vocab=None if Corpus.is_there(source) else 4096, held_out=0.1),
        optimizer=Muon(lr=0.02, adamw=AdamW(lr=3e-3, decay=0.0)),
        schedule=WSD(warmup=0.02, decay=0.4),
        budget=Steps(1),
        rows=16,
        context=context,
        evaluations=1,
    )


def _affordable(model: Decoder, run: Run, seconds: float) -> Decoder:
    """The design at the size at which a run with `TOKENS_PER_PARAM` takes this time here, as far as rates tell."""
    dtype = str(autocast_dtype(run.precision, pick_device())).removeprefix("torch.")
    rate = UTILISATION * calibrate().matrix_rate(dtype)

    def time_of(spec: Decoder) -> float:
        flops = books.train_flops_per_token(spec, context=run.length)
        return TOKENS_PER_PARAM * books.params(spec) * flops / rate

    return fitted(
        model, target=seconds, measure=time_of, vocab=run.data.vocab or model.vocab, context=run.length, tolerance=0.2
    )


def _entered(
    comparison: Comparison, designs: Mapping[str, Decoder], corpus: Corpus, folder: Path, watch: Watch
) -> Comparison:
    """The comparison with all the architectures sized and timed, written down."""
    there = {entrant.name: entrant for entrant in comparison.entrants}
    fresh = {name: design for name, design in designs.items() if name not in there}
    if not fresh:
        return comparison
    run = comparison.run
    tolerance = 0.05 if comparison.match in ("flops", "time") else 0.02  # of these, the steps do the rest
    size = partial(
        fitted,
        target=comparison.target,
        measure=partial(figure, comparison.match, run),
        context=run.length,
        tolerance=tolerance,
    )
    watch.stage(f"Sizing {len(fresh)} architectures, and timing a few steps of each")
    timed: dict[str, tuple[Decoder, float]] = {}
    for done, (name, design) in enumerate(fresh.items(), 1):
        try:
            model = size(design, vocab=corpus.vocab)
        except ConfigError as fault:
            raise ConfigError(f"{name}: {fault}") from fault
        timed[name] = model, _step_seconds(run.replace(model=model), corpus)
        watch.progress(done, len(fresh))
    if comparison.work is None:
        runs = comparison.seeds + SEARCHED * SEARCH_SHARE
        seconds = sum(seconds / comparison.cost(model, seconds) for model, seconds in timed.values())  # a unit of work
        comparison = comparison.replace(work=comparison.budget * (1 - OVERHEAD) / runs / seconds)
    for name, (model, seconds) in timed.items():
        exact = (comparison.work or 0.0) / comparison.cost(model, seconds)
        steps = round(exact)
        if steps < FEWEST_STEPS:
            minutes = math.ceil(comparison.budget * FEWEST_STEPS / exact / 60)
            raise ConfigError(
                f"{name} would make {steps} steps in its share of {units.duration(comparison.budget)}; give a --budget "
                f"of {minutes}m or fewer architectures, or lower --set rows={run.rows}"
            )
        there[name] = Entrant(name=name, model=model, steps=steps, step_seconds=seconds)
    comparison = comparison.replace(entrants=tuple(there.values()))
    _write(comparison, folder)
    return comparison


def _step_seconds(run: Run, corpus: Corpus) -> float:
    learner = Learner(run.replace(budget=Steps(TIMED_STEPS)), corpus)
    return median([step.seconds for step in learner.steps()][1:])


def _run(comparison: Comparison, entrant: Entrant, folder: Path, corpus: Corpus, watch: Watch) -> None:
    """Does what is left to do for one architecture."""
    place = folder / entrant.name
    place.mkdir(exist_ok=True)
    while not _trained(comparison, entrant, place, corpus, watch):
        pass
    _figures_of_use(comparison, entrant, place)


def _trained(comparison: Comparison, entrant: Entrant, place: Path, corpus: Corpus, watch: Watch) -> bool:
    """Trains with every seed at the best of the rates; False, and that rate counts no more, where one run diverges."""
    factor = _best_factor(comparison, entrant, place, corpus, watch)
    for seed in range(comparison.seeds):
        run = comparison.run_of(entrant, seed=seed, factor=factor)
        run = run.replace(data=run.data.replace(source=str(corpus.folder), tokenizer=None, vocab=None))
        at = Place(place / f"seed-{seed}")
        try:
            if not at.result.is_file():
                watch.stage(f"{entrant.name}, seed {seed + 1} of {comparison.seeds}")
                if at.config.is_file():
                    resume(at.folder, watch=StepsOnly(watch))
                else:
                    pretrain(run, at.folder, watch=StepsOnly(watch))
        except TrainingError as fault:
            watch.say(f"{fault}; so {factor:g} times the rates is left out, and all seeds begin anew.")
            for run_folder in place.glob("seed-*"):
                remove(run_folder)
            tried = json.loads(_rate_file(place, factor).read_text(encoding="utf-8"))
            atomic_write(_rate_file(place, factor), json.dumps(tried | {"loss": None}) + "\n")
            return False
        if seed and at.checkpoints.exists():  # one copy of the weights is kept
            remove(at.checkpoints)
    return True


def _rate_file(place: Path, factor: float) -> Path:
    return place / f"rate-{factor:g}.json"


def _best_factor(comparison: Comparison, entrant: Entrant, place: Path, corpus: Corpus, watch: Watch) -> float:
    """The factor of the rates that does best in a short run, doubled or halved as long as that helps."""

    def loss(factor: float) -> float:
        path = _rate_file(place, factor)
        if not path.exists():
            atomic_write(path, json.dumps(_tried(comparison, entrant, factor, corpus, watch)) + "\n")
        told = json.loads(path.read_text(encoding="utf-8"))["loss"]
        return math.inf if told is None else told

    times = 2.0 if loss(2.0) < loss(1.0) else 0.5
    best = max(1.0, times)
    while 1 / FARTHEST < best < FARTHEST and (loss(best) == math.inf or loss(best * times) < loss(best)):
        best *= times
    if loss(best) == math.inf:
        raise TrainingError(
            f"{entrant.name} does not train at any of the rates from {best:g} to 2 times the optimizer's; "
            "lower them, as with --set optimizer.lr=1e-4, and give another --out"
        )
    return best


def _tried(comparison: Comparison, entrant: Entrant, factor: float, corpus: Corpus, watch: Watch) -> dict[str, Any]:
    """How well a short run does; its loss is None where it does not stay finite."""
    watch.stage(f"{entrant.name}, {SEARCH_SHARE:.0%} of a run at {factor:g} times the rates")
    run = comparison.run_of(entrant, seed=0, factor=factor, share=SEARCH_SHARE)
    learner = Learner(run, corpus)
    loss: float | None = None
    try:
        for step in learner.steps():
            watch.progress(step.progress, 1.0)
        scored = quick_score(run, learner.model, corpus, watch=watch).loss
        loss = scored if math.isfinite(scored) else None
    except TrainingError as fault:
        watch.say(f"{fault}; so this rate is left out.")
    return {"factor": factor, "loss": loss, "steps": learner.tally.steps}


def _figures_of_use(comparison: Comparison, entrant: Entrant, place: Path) -> None:
    """Measures what it takes to use an architecture: time to generate, memory by the length of the text."""
    if not (place / "generating.json").exists():
        rate = _writing_rate(load(place / "seed-0").module, comparison.run.length)
        atomic_write(place / "generating.json", json.dumps({"tokens_per_second": rate}) + "\n")
    if not (place / "memory.json").exists():
        told = [_memory(entrant.model, comparison.run, comparison.run.length * times) for times in LENGTHS]
        atomic_write(place / "memory.json", json.dumps(told) + "\n")


@torch.no_grad()
def _writing_rate(model: DecoderModel, context: int) -> float:
    """Tokens a second of one row, a token at a time; the median of three times."""
    count, times = min(WRITTEN_TOKENS, context - 1), []
    device = next(model.parameters()).device
    for _ in range(4):  # the first warms up
        state, ids = model.new_state(1, context), torch.zeros(1, 1, dtype=torch.int64, device=device)
        began = time.perf_counter()
        for _ in range(count):
            ids = model(ids, state)[:, -1:].argmax(-1)
        ids.item()  # which an accelerator has only when it has done all that was asked of it
        times.append((time.perf_counter() - began) / count)
    return 1 / median(times[1:])


def _memory(model: Decoder, run: Run, context: int) -> dict[str, float | None]:
    """What one row of a length takes above the program: a step of training, the state of generating."""
    longer, device = lengthened(model, context), pick_device()
    before, peak = measure.held_bytes(device), measure.peak_from_here(device)
    built = longer.build().to(device)
    ids = torch.zeros(1, context, dtype=torch.int64)
    dtype = autocast_dtype(run.precision, device)
    learning = steps(
        built,
        lambda _: Batch(ids=ids, targets=ids),
        run.objective.loss,
        run.optimizer.build(built, products=dtype),
        run.schedule,
        until=Steps(1),
        dtype=dtype,
    )
    next(learning)
    held = peak()
    planned = plan(longer, tokens=1, rows=1, context=context, precision=run.precision, optimizer=run.optimizer)
    return {
        "context": context,
        "planned_training_bytes": planned.peak_bytes - planned.process_bytes,
        "measured_training_bytes": None if held is None else held - before,
        "planned_state_bytes": books.state_bytes(longer, rows=1, max_len=context, dtype=torch.float32),
        "measured_state_bytes": sum(s.nbytes for layer in built.new_state(1, context).layers for s in layer.values()),
    }
