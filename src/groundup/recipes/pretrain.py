"""A pretraining run from text to score: tokenizer, corpus, plan, training, evaluation, ledger.

Every stage leaves its product complete or absent, so a run that was stopped at any moment goes on where it was: what
is there is taken, the rest is made.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch

from groundup import devices
from groundup.data.corpus import Corpus
from groundup.errors import CheckpointError, ConfigError, TrainingError
from groundup.evals.perplexity import Score
from groundup.files import atomic_write
from groundup.model.model import ModelModule
from groundup.model.promises import broken
from groundup.planner import measure, units
from groundup.planner.audit import read_plan
from groundup.planner.energy import metered, source_of
from groundup.planner.plan import Plan, Ways, plan
from groundup.recipes.corpora import check_source, corpus_of
from groundup.recipes.learner import Learner
from groundup.recipes.metrics import entry_of, metrics, tensorboard_writer
from groundup.recipes.place import Place
from groundup.recipes.report import write_report
from groundup.recipes.samples import samples
from groundup.recipes.scores import final_score, quick_score
from groundup.recipes.settings import Run, read_run, write_spec
from groundup.recipes.settle import settle
from groundup.recipes.watch import Watch
from groundup.training import checkpoint
from groundup.training.allocator import keep_freed_memory
from groundup.training.budget import Tally
from groundup.training.checkpoint import Checkpoint

SHORT_SECONDS = 0.03  # a step, of which much is overhead
WAYS = 3  # out of what does not fit that are told
BUSY = 2.0  # times the planned time of a step, from which on something else must hold the machine up


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to.

    Attributes:
        place: the run on disk.
        run: its settings, resolved.
        model: the trained model, in evaluation mode.
        corpus: what it read.
        score: how well it predicts the validation text.
        tally: what it spent.
        samples: the run's prompts, each with what the model made of it.
    """

    place: Place
    run: Run
    model: ModelModule
    corpus: Corpus
    score: Score
    tally: Tally
    samples: list[str]

    def to_dict(self) -> dict[str, object]:
        """Returns the outcome as plain data, units in the names."""
        return {
            "run": str(self.place.folder),
            "steps": self.tally.steps,
            "tokens": self.tally.tokens,
            "train_seconds": self.tally.seconds,
            "validation": self.score.to_dict(),
            "samples": self.samples,
        }


def pretrain(
    run: Run,
    folder: Path,
    *,
    watch: Watch = Watch(),  # noqa: B008 - it has no state
    tensorboard: bool = False,
    force: bool = False,
) -> Outcome:
    """Trains a model in a new folder.

    Args:
        run: what and how.
        folder: where the run will lie.
        watch: who hears how it goes.
        tensorboard: whether events for TensorBoard are written beside the metrics.
        force: whether a run that does not fit in the memory, by its plan, is tried anyway.

    Raises:
        ConfigError: the run does not fit in the memory.
        MissingExtra: tensorboard is asked for and not installed.
        StorageError: the folder is not empty or cannot be written.
        DataError: the source cannot be read or has too little text.
        SpecError: a part of the user's own shows a token what comes after it.
        TrainingError: loss or gradients are not finite.
    """
    check(run, folder, tensorboard=tensorboard)
    _check_fit(run, watch, force=force)
    for fault in broken(run.model):
        watch.say(fault)
    with Place.new(folder) as place:
        atomic_write(place.config, write_spec(run))
        return _finish(run, place, watch, saved=None, tensorboard=tensorboard)


def check(run: Run, folder: Path, *, tensorboard: bool = False) -> None:
    """Refuses, before anything is told or made, what a mistyped command would get wrong.

    Raises:
        MissingExtra: tensorboard is asked for and not installed.
        StorageError: the folder holds something already.
        DataError: the source cannot be read, or is a corpus that holds no text out.
    """
    Place(folder).check_empty()
    check_source(run)
    if tensorboard:
        tensorboard_writer()


def resume(
    folder: Path,
    *,
    watch: Watch = Watch(),  # noqa: B008 - it has no state
    tensorboard: bool = False,
) -> Outcome:
    """Goes on with a run where it was stopped, at whichever stage; the arguments are those of `pretrain`.

    Raises:
        MissingExtra: tensorboard is asked for and not installed.
        ModelError: there is no run in the folder.
        CheckpointError: its newest checkpoint is damaged, or it is finished and has none left.
        StorageError: another process works on it.
    """
    if tensorboard:
        tensorboard_writer()  # before any work is done: it may not be installed
    with Place.open(folder) as place:
        run, saved = read_run(place.config), checkpoint.load_latest(place.checkpoints)
        if place.result.is_file():
            if saved is None:
                raise CheckpointError(
                    f"{folder} is finished and its checkpoints were removed, so there is nothing to go on from; train "
                    f"one like it with: groundup train {place.config} --out FOLDER"
                )
            if run.budget.spent(Tally.from_dict(saved.loop()["tally"])) >= 1:
                watch.say(f"{folder} is finished; nothing is left to train.")
                return _finished(run, place, corpus_of(run, place, watch), saved)
        elif saved is None:
            watch.say(f"{folder} was stopped before anything was saved, so it starts anew.")
        return _finish(run, place, watch, saved=saved, tensorboard=tensorboard)


def _finish(run: Run, place: Place, watch: Watch, *, saved: Checkpoint | None, tensorboard: bool) -> Outcome:
    corpus = corpus_of(run, place, watch)
    run = _fitted(run, corpus, place)
    learner = _train(run, place, corpus, watch, saved=saved, tensorboard=tensorboard)
    model, tally = learner.model, learner.tally
    watch.stage("Evaluating on the text that was held out")
    score = final_score(run, place, model, corpus, watch=watch)
    if not math.isfinite(score.loss):
        raise TrainingError(
            f"the loss on the text that was held out is {score.loss} after step {tally.steps}: the last updates were "
            "too large; lower optimizer.lr and train anew"
        )
    watch.stage("Letting it write, and writing the report")
    written = samples(run, model, corpus)
    write_report(run, place, tally=tally, score=score, samples=written)
    told = {"tally": tally.to_dict(), "validation": score.to_dict(), "samples": written}
    place.write_json(place.result, told)
    return Outcome(place=place, run=run, model=model, corpus=corpus, score=score, tally=tally, samples=written)


def _finished(run: Run, place: Place, corpus: Corpus, saved: Checkpoint) -> Outcome:
    """What a finished run came to, as it was written down."""
    learner = Learner(run, corpus)
    learner.restore(saved)
    told = json.loads(place.result.read_text(encoding="utf-8"))
    return Outcome(
        place=place,
        run=run,
        model=learner.model.eval(),
        corpus=corpus,
        score=Score.from_dict(told["validation"]),
        tally=learner.tally,
        samples=told.get("samples", []),  # of no run that was finished before they were kept
    )


def _fitted(run: Run, corpus: Corpus, place: Place) -> Run:
    """The run with its model's vocabulary fitted to the tokenizer's, written down."""
    vocab = run.model.predictor.vocab
    if run.data.tokenizer is not None and vocab < corpus.vocab:
        raise ConfigError(
            f"the tokenizer has {corpus.vocab} tokens and the model {vocab}; "
            f"set vocab={corpus.vocab}, or choose another tokenizer"
        )
    if run.data.tokenizer is None:
        vocab = corpus.vocab
    run = run.replace(model=run.model.with_words(vocab, end=corpus.manifest["end"]))
    atomic_write(place.config, write_spec(run))
    place.write_json(place.spec, run.model.to_dict())
    return run


def _plan(run: Run, place: Place, watch: Watch) -> Plan:
    """What the run will take, written down and told."""
    watch.stage("The plan")
    batch = run.step_tokens
    make = partial(_planned, run)
    made = make(tokens=run.budget.expected_tokens(batch, step_seconds=make(tokens=batch).step_seconds))
    if not read_plan(place.plan):  # a run that goes on is held to what was predicted at its beginning
        place.write_json(place.plan, made.to_dict())
    watch.plan(made)
    return made


def _planned(run: Run, *, tokens: int, ways: Ways = "none") -> Plan:
    return plan(
        run.model,
        tokens=tokens,
        rows=run.rows,
        batch_tokens=run.step_tokens,
        context=run.length,
        objective=run.objective,
        precision=run.precision,
        optimizer=run.optimizer,
        process_bytes=measure.process_bytes(),
        ways=ways,
    )


def _check_fit(run: Run, watch: Watch, *, force: bool) -> None:
    """Refuses a run that this machine's memory cannot hold, with the cheapest ways out, before anything large is made.

    Raises:
        ConfigError: it does not fit, and is not to be tried anyway.
    """
    made = _planned(run, tokens=1, ways="none" if force else "here")
    if made.fits:
        return
    need, there = units.bytes_(made.peak_bytes), units.bytes_(made.memory_bytes)
    short = f"this run needs {need} at {run.rows} rows of {run.length} tokens, and here are {there}"
    if force:
        watch.say(f"{short[0].upper()}{short[1:]}; it is tried anyway.")
        return
    ways = [str(way) for way in made.ways_out if way.trainable][:WAYS]
    mend = f"choose {'; or '.join(ways)}" if ways else "choose a smaller model"
    raise ConfigError(f"{short}; {mend}; or try anyway with --force")


def _train(
    run: Run, place: Place, corpus: Corpus, watch: Watch, *, saved: Checkpoint | None, tensorboard: bool
) -> Learner:
    keep_freed_memory()
    made = _plan(run, place, watch)
    learner = Learner(run, corpus)
    if saved is not None:
        learner.restore(saved)
        watch.say(f"Resumed at step {learner.tally.steps} from {saved.path}.")
    watch.stage("Training")
    train = corpus.split("train")
    bits = train.tokens / train.text_bytes / math.log(2)
    last_save = time.monotonic()
    times: list[float] = []
    peak, others = measure.peak_from_here(learner.device), measure.others_from_here()
    whole = not learner.tally.steps  # an earlier process took energy that nobody here knows of
    if run.compile:
        _compile(learner, watch)
    before = learner.tally
    logged = metrics(place, after=learner.tally.steps, tensorboard=tensorboard)
    with logged as log, metered(source_of(learner.device)) as meter, _interrupt_asked(watch) as asked:
        for step in learner.steps():
            times.append(step.seconds)
            watch.step(
                step,
                bits_per_byte=step.loss * bits if run.objective.whole else None,
                utilisation=made.utilisation * made.step_seconds / step.seconds,  # both are of the same operations
                peak_bytes=measure.peak_bytes(learner.device),
            )
            if step.last:
                watch.stage("Saving")
            evaluate = not step.last and _passes(run, before, step.tally)
            before = step.tally
            if step.last or evaluate or asked.is_set() or time.monotonic() - last_save > run.save_seconds:
                learner.save(place.checkpoints)
                last_save = time.monotonic()
            quick = None
            if evaluate and not asked.is_set():
                quick = quick_score(run, learner.model, corpus, watch=watch)
            if step.tally.steps < 10 or step.every(10) or quick:
                log(entry_of(step, quick))
            if asked.is_set():
                raise KeyboardInterrupt
        joules = meter.read() if whole else None
    if run.compile:
        vars(learner.model).pop("hidden", None)  # texts of every length are read from here on
    if times and median(times) > BUSY * made.step_seconds:
        took = f"A step took {median(times) / made.step_seconds:.1f} times as long as planned."
        if median(times) < SHORT_SECONDS:
            watch.say(f"{took} One this short is mostly what Python does around the operations, which no plan counts.")
        else:
            watch.say(
                f"{took} If other work ran beside it, OMP_WAIT_POLICY=PASSIVE in the environment helps "
                "(docs/training.md)."
            )
    if times or not place.ledger.exists():
        watch.stage("Counting the operations of a step")
        settle(learner, place, made, times=times, peak_bytes=peak(), joules=joules, others=others())
    learner.model.eval()
    return learner


def _passes(run: Run, before: Tally, after: Tally) -> bool:
    """Whether one of the run's evaluations falls between two tallies."""
    done, now = (math.floor(run.budget.spent(tally) * run.evaluations) for tally in (before, after))
    return done < now


@contextmanager
def _interrupt_asked(watch: Watch) -> Iterator[threading.Event]:
    """Lets the step under way finish at Ctrl-C or `kill`; a second one stops at once.

    Only here is `kill` held back: a process that is deep in a tokenizer, say, would not hear of it before the end.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A handler that was set outside Python could not be put back.
    before = {number: handler for number, handler in handlers.items() if handler is not None}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: object) -> None:
        asked.set()
        restore()
        watch.say("Finishing this step and saving; once more stops at once.")

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()


def _compile(learner: Learner, watch: Watch) -> None:
    """Compiles the model where something can compile it; elsewhere, the watcher hears that nothing can."""
    if learner.device.type == "cpu" and devices.compiler() is None:
        watch.say("compile=true needs a C++ compiler, and there is none (apt install g++); training goes on without.")
    else:
        learner.model.hidden = torch.compile(learner.model.hidden)
