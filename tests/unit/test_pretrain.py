from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from groundup.data.shards import build
from groundup.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    GroundupError,
    MissingExtra,
    ModelError,
    SpecError,
    StorageError,
    TrainingError,
)
from groundup.families.llama import llama
from groundup.files import alone, json_lines
from groundup.infer.load import load
from groundup.model.decoder import Decoder, DecoderModel
from groundup.optim.optimizers import AdamW, Muon
from groundup.planner import measure
from groundup.recipes.audit import audit
from groundup.recipes.evaluate import evaluate
from groundup.recipes.place import Place
from groundup.recipes.pretrain import pretrain, resume
from groundup.recipes.quickstart import check_same, comparison, design
from groundup.recipes.settings import Data, Run, read_run, with_overrides, write_spec
from groundup.recipes.train import resolve_run, run_folder
from groundup.recipes.watch import Watch
from groundup.text.train import train
from groundup.training.budget import Seconds, Steps
from groundup.training.steps import Step

TINY = llama(width=16, layers=2, heads=2, hidden=24, vocab=280, context=24, tied=True)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(40):
        words = " ".join(f"word{(number * 7 + i * i) % 23} and number {i}" for i in range(30))
        (folder / f"{number}.txt").write_text(f"Document {number}.\n{words}\n")
    return folder


def settings(texts: Path, **changes: object) -> Run:
    plain = Run(model=TINY, data=Data(source=str(texts), held_out=0.2), optimizer=Muon(), budget=Steps(6), rows=2)
    return plain.replace(evaluations=2, **changes)


class Stop(Watch):
    """Presses Ctrl-C in a step, as a user would."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.losses: dict[int, float] = {}

    def step(self, step: Step, **_figures: float | None) -> None:
        import signal

        self.losses[step.tally.steps] = step.loss
        if step.tally.steps == self.at:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def finished(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    pretrain(settings(texts), folder)
    return folder


def test_a_run_leaves_all_that_it_promises(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "config.yaml",
        "spec.json",
        "plan.json",
        "ledger.jsonl",
        "metrics.jsonl",
        "tokenizer",
        "checkpoints",
    }
    assert (finished / "checkpoints" / "latest").read_text().strip() == "step-000006"
    assert read_run(finished / "config.yaml").budget == Steps(6)
    steps = [entry["step"] for entry in json_lines(Place(finished).metrics)]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert ["validation" in entry for entry in json_lines(Place(finished).metrics)][2]


def test_the_score_of_a_run_is_that_of_its_documents(finished: Path) -> None:
    every = json_lines(Place(finished).documents)
    whole = json.loads(Place(finished).result.read_text())["validation"]
    assert len(every) == whole["documents"] and {"document", "text_bytes"} <= set(every[0])
    assert sum(entry["tokens"] for entry in every) == whole["tokens"]
    nats = sum(entry["loss"] * entry["tokens"] for entry in every)
    assert nats / whole["tokens"] == pytest.approx(whole["loss"])


def test_the_ledger_holds_the_plan_beside_what_was_measured(finished: Path) -> None:
    found = {entry.quantity: entry for entry in audit(finished).entries}
    assert found["parameters"].error == 0
    assert found["step_flops"].error == pytest.approx(0, abs=0.01)
    assert all(found[name].measured for name in ("step_seconds", "tokens_per_second"))
    assert found["peak_bytes"].measured or not measure.reset_peak()  # some systems do not forget a peak


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(texts: Path, tmp_path: Path) -> None:
    whole = Stop(at=-1)
    one = pretrain(settings(texts), tmp_path / "whole", watch=whole)
    first, second = Stop(at=2), Stop(at=-1)
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings(texts), tmp_path / "stopped", watch=first)
    other = resume(tmp_path / "stopped", watch=second)
    assert first.losses | second.losses == whole.losses
    assert set(first.losses) == {1, 2}
    assert other.score == one.score
    weights = [path.read_bytes() for path in sorted(tmp_path.glob("*/checkpoints/step-000006/model.safetensors"))]
    assert weights[0] == weights[1]
    assert [entry["step"] for entry in json_lines(other.place.metrics)] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_is_loaded_evaluated_and_continued(finished: Path) -> None:
    model = load(finished)
    assert isinstance(model.generate("Document", max_new_tokens=5), str)
    figures = evaluate(str(finished))
    told = json.loads(Place(finished).result.read_text())["validation"]["bits_per_byte"]
    assert figures["bits_per_byte"] == pytest.approx(told, rel=0.02)
    assert figures["compressors"]["xz -9, one stream"] > 0
    assert resume(finished).tally.steps == 6


def test_a_folder_that_holds_something_is_left_alone(finished: Path, texts: Path) -> None:
    before = sorted(finished.rglob("*"))
    with pytest.raises(StorageError, match="is there already"):
        pretrain(settings(texts), finished)
    assert sorted(finished.rglob("*")) == before
    with pytest.raises(ModelError, match="is not a run"):
        resume(finished.parent)


def test_a_run_is_written_and_read_back(texts: Path, tmp_path: Path) -> None:
    run = settings(texts, budget=Seconds(1.5))
    (tmp_path / "config.yaml").write_text(write_spec(run))
    assert read_run(tmp_path / "config.yaml") == run
    assert resolve_run(str(tmp_path / "config.yaml"), steps=3).budget == Steps(3)


def test_settings_of_the_command_line_reach_every_part(texts: Path) -> None:
    run = with_overrides(
        settings(texts), ["optimizer.lr=3e-4", "layers.*.mix.mixer.position.theta=1e6", "rows=8", "model.vocab=512"]
    )
    assert isinstance(run.optimizer, Muon)
    assert run.optimizer.lr == 3e-4
    assert (run.rows, run.model.vocab) == (8, 512)
    assert "theta=1000000.0" in repr(run.model)
    assert with_overrides(run, ["optimizer=adamw"]).optimizer == AdamW()


def test_settings_have_to_fit_together_and_not_one_by_one(texts: Path) -> None:
    heads, kv_heads = (f"layers.*.mix.mixer.{name}=5" for name in ("heads", "kv_heads"))
    assert "heads=5, kv_heads=5" in repr(with_overrides(settings(texts), [heads, kv_heads]).model)
    with pytest.raises(SpecError, match="heads=5 is not a multiple of kv_heads="):
        with_overrides(settings(texts), [heads])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimiser.lr=1", "did you mean 'optimizer'"),
        ("optimizer.rate=1", "Muon has no setting 'rate'"),
        ("rows=many", "rows is 'many'; expected a whole number"),
        ("rows", "write it as name=value"),
        ("rows=0", "has rows=0; expected a whole number from 1"),
        ("clip=-1", "has clip=-1.0; expected a finite number above 0"),
        ("save_seconds=0", "has save_seconds=0.0; expected a finite number above 0"),
        ("precision=fp16", "precision='fp16' does not exist; choose from auto, bf16, fp32"),
        ("context=-5", "has context=-5; expected a whole number from 1"),
        ("data.held_out=0", "data.held_out=0.0 must be above 0 and below 1"),
        ("data.vocab=0", "has vocab=0; expected a whole number from 1"),
        ("data.tokens=letters", "choose from bpe, char, word"),
        ("context=99", "longer than the model's context of 24"),
        ("layers.9.mix.scale=2", "choose * or a number from 0 to 1"),
        ("layers.*.mix.mixer.kv_heads=3", "heads=2 is not a multiple of kv_heads=3; choose kv_heads from 1, 2"),
    ],
)
def test_settings_that_do_not_exist_or_fit_are_refused(texts: Path, setting: str, message: str) -> None:
    with pytest.raises(GroundupError) as caught:
        with_overrides(settings(texts), [setting])
    assert message in str(caught.value)


@pytest.mark.parametrize("tokens", ["bpe", "char", "word"])
def test_every_setting_is_read_back_as_it_was_written(texts: Path, tmp_path: Path, tokens: str) -> None:
    run = settings(texts, data=Data(source=str(texts), tokens=tokens, field="body"), prompts=("a", "b"))
    (tmp_path / "config.yaml").write_text(write_spec(run))
    assert read_run(tmp_path / "config.yaml") == run


def test_a_source_that_is_not_there_leaves_no_run_behind(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        pretrain(settings(texts, data=Data(source=str(tmp_path / "nowhere"))), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # a plan of many tokens has many slices of logits, whose signatures are checked here
def test_a_run_that_no_memory_holds_is_refused_with_one_that_fits(texts: Path, tmp_path: Path) -> None:
    wide = llama(width=2**12, layers=1, heads=1, hidden=64, vocab=280, context=2048)
    vast = llama(width=2**17, hidden=2**19, layers=16, heads=1024, vocab=280, context=8)
    with pytest.raises(ConfigError, match=r"needs .* at 8192 rows .* choose rows=\d+ accumulate=\d+: .*--force"):
        pretrain(settings(texts, model=wide, rows=2**13), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"than any device holds at once; choose rows up to 8,192, and more"):
        pretrain(settings(texts, model=wide, rows=2**31 - 1), tmp_path / "run")
    with pytest.raises(ConfigError, match="choose a smaller model"):
        pretrain(settings(texts, model=vast), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_corpus_is_trained_on_as_it_is(finished: Path, tmp_path: Path) -> None:
    run = settings(finished / "corpus")
    done = pretrain(run, tmp_path / "run")
    assert done.corpus.folder == finished / "corpus"
    assert not (tmp_path / "run" / "corpus").exists()
    assert done.score == pretrain(run, tmp_path / "again").score
    assert evaluate(str(tmp_path / "run"))["bits_per_byte"] == pytest.approx(done.score.bits_per_byte, rel=0.02)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("llama-3.2-1b", "llama-3.2-1b"),
        ("org/name-1.7B", "name-1.7B"),
        ("runs/first/config.yaml", "first"),
        ("specs/narrow.json", "narrow"),
        (TINY, "model"),
    ],
)
def test_runs_are_named_after_their_model(model: str | Decoder, name: str) -> None:
    assert run_folder(model) == Path("runs") / name


def test_a_quickstart_goes_on_with_what_it_was_begun_with(finished: Path, texts: Path) -> None:
    check_same(finished)
    check_same(finished, source=str(texts))
    with pytest.raises(ConfigError, match="leave --data out, or give --new"):
        check_same(finished, source="python")
    with pytest.raises(ConfigError, match="leave --time out, or give --new"):
        check_same(finished, seconds=5.0)


def test_a_quickstart_puts_the_model_among_the_compressors(finished: Path) -> None:
    header, *rows = comparison(resume(finished))
    assert header == ("", "bits/byte")
    assert {"this model", "xz -9, one stream"} < {name for name, _ in rows}
    assert rows == sorted(rows, key=lambda row: float(row[1]))


def test_the_page_of_a_run_has_its_curves_its_audit_and_what_it_writes(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert page.count("<svg") == 2
    assert page.count("<circle") == 2  # the evaluation along the way, and the last
    for text in ("step flops", "Document", "bits per byte", "kind: Muon"):
        assert text in page
    assert "<script" not in page


def test_a_resumed_run_is_held_to_its_first_plan(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings(texts), tmp_path, watch=Stop(at=2))
    first = json.loads((tmp_path / "plan.json").read_text()) | {"peak_bytes": 12345}
    (tmp_path / "plan.json").write_text(json.dumps(first))
    resume(tmp_path)
    found = {entry.quantity: entry.predicted for entry in audit(tmp_path).entries}
    assert found["peak_bytes"] == 12345


def test_a_vocabulary_larger_than_the_text_allows_is_refused(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(GroundupError, match="largest possible is"):
        pretrain(settings(texts, data=Data(source=str(texts), vocab=50_000)), tmp_path / "run")


def test_a_tokenizer_larger_than_the_model_is_refused(finished: Path, texts: Path, tmp_path: Path) -> None:
    small = settings(texts, model=TINY.replace(vocab=64), data=Data(source=str(texts), tokenizer=str(finished)))
    with pytest.raises(ConfigError, match="set vocab=280"):
        pretrain(small.replace(data=small.data.replace(tokenizer=str(finished / "tokenizer"))), tmp_path / "run")


def test_the_field_that_holds_the_text_is_the_runs_choice(texts: Path, tmp_path: Path) -> None:
    rows = [{"text": "no", "body": path.read_text()} for path in sorted(texts.iterdir())]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Data(source=str(tmp_path / "rows.jsonl"), field="body", held_out=0.2)
    made = pretrain(settings(texts, data=data, budget=Steps(1)), tmp_path / "run")
    assert made.corpus.split("train").text_bytes > 10_000


def test_a_run_needs_one_budget() -> None:
    with pytest.raises(ConfigError, match="needs a budget"):
        resolve_run("gpt2")
    with pytest.raises(ConfigError, match="one budget"):
        resolve_run("gpt2", steps=3, time=5.0)


def test_tensorboard_is_told_what_the_metrics_hold_also_over_a_stop(texts: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(KeyboardInterrupt):
        pretrain(settings(texts), tmp_path, watch=Stop(at=4), tensorboard=True)
    resume(tmp_path, tensorboard=True)
    told = EventAccumulator(str(tmp_path)).Reload()
    logged = json_lines(Place(tmp_path).metrics)
    assert [event.step for event in told.Scalars("loss")] == [entry["step"] for entry in logged] == [1, 2, 3, 4, 5, 6]
    assert told.Scalars("loss")[-1].value == pytest.approx(logged[-1]["loss"])
    assert told.Scalars("validation/loss")[0].value == pytest.approx(logged[2]["validation"]["loss"])


def test_tensorboard_that_is_not_installed_is_told_before_any_work(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(MissingExtra, match=r"pip install 'groundup\[tensorboard\]'"):
        pretrain(settings(texts), tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_a_recipe_is_a_run_that_needs_no_more_than_its_name() -> None:
    assert resolve_run("quickstart") == design()
    changed = resolve_run("quickstart", source="books", steps=3, settings=["rows=4"])
    assert (changed.data.source, changed.budget, changed.rows) == ("books", Steps(3), 4)


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(finished: Path) -> None:
    file = str(finished / "config.yaml")
    environment = "rows=3 optimizer.lr=0.5 budget.count=7 'prompts=[\"a b\"]'"
    run = resolve_run(file, environment=environment)
    assert isinstance(run.optimizer, Muon)
    assert (run.rows, run.optimizer.lr, run.budget, run.prompts) == (3, 0.5, Steps(7), ("a b",))
    run = resolve_run(file, environment=environment, settings=["rows=5"], steps=8)
    assert (run.rows, run.budget) == (5, Steps(8))


@pytest.mark.parametrize(
    ("environment", "message"), [("rwos=3", "GROUNDUP_SET: .*'rows'"), ("rows='3", "GROUNDUP_SET=.* is not quoted")]
)
def test_a_mistake_in_the_environment_is_told_as_on_the_command_line(environment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_run("gpt2", steps=1, environment=environment)


def test_the_config_on_disk_is_plain_yaml(finished: Path) -> None:
    data = yaml.safe_load((finished / "config.yaml").read_text())
    assert data["model"]["layers"][0]["repeat"] == 2
    assert (data["optimizer"]["kind"], data["optimizer"]["momentum"]) == ("Muon", 0.95)  # defaults too


def test_a_refused_run_leaves_its_folder_free(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(GroundupError, match="largest possible is"):
        pretrain(settings(texts, data=Data(source=str(texts), vocab=50_000)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_changed_corpus_is_not_trained_on(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings(texts), tmp_path, watch=Stop(at=2))
    shard = next((tmp_path / "corpus" / "train").glob("tokens-*.bin"))
    shard.write_bytes(b"\xff\xff" + shard.read_bytes()[2:])
    with pytest.raises(DataError, match="was changed since the corpus was built"):
        resume(tmp_path)


def test_a_corpus_without_held_out_text_is_refused_before_the_run(texts: Path, tmp_path: Path) -> None:
    words = train([path.read_text() for path in texts.iterdir()], vocab=280)
    build(texts, tmp_path / "corpus", tokenizer=words, held_out=0.0)
    with pytest.raises(DataError, match="holds no text out"):
        pretrain(settings(tmp_path / "corpus"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_resumed_while_another_process_works_on_it(finished: Path) -> None:
    with alone(finished), pytest.raises(StorageError, match="another process"):
        resume(finished)


def test_a_finished_run_without_its_checkpoints_is_not_trained_again(texts: Path, tmp_path: Path) -> None:
    place = pretrain(settings(texts, budget=Steps(1)), tmp_path / "run").place
    shutil.rmtree(place.checkpoints)
    before = place.result.read_bytes(), place.metrics.read_bytes()
    with pytest.raises(CheckpointError, match="is finished and its checkpoints were removed"):
        resume(place.folder)
    assert (place.result.read_bytes(), place.metrics.read_bytes()) == before
    assert not place.checkpoints.exists()


def test_resuming_a_finished_run_tells_what_it_came_to_and_writes_nothing(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    outcome = resume(finished)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
    told = json.loads(outcome.place.result.read_text())
    assert outcome.score.to_dict() == pytest.approx(told["validation"])
    assert outcome.samples == told["samples"] != []
    assert outcome.to_dict()["steps"] == 6


def test_a_finished_run_whose_budget_is_raised_goes_on(texts: Path, tmp_path: Path) -> None:
    place = pretrain(settings(texts, budget=Steps(2)), tmp_path / "run").place
    place.config.write_text(write_spec(read_run(place.config).replace(budget=Steps(3))))
    assert resume(place.folder).tally.steps == 3


class Heard(Watch):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_run_of_which_nothing_was_saved_says_that_it_starts_anew(texts: Path, tmp_path: Path) -> None:
    place = pretrain(settings(texts, budget=Steps(1)), tmp_path / "run").place
    shutil.rmtree(place.checkpoints)
    place.result.unlink()
    heard = Heard()
    assert resume(place.folder, watch=heard).tally.steps == 1
    assert any("was stopped before anything was saved, so it starts anew" in text for text in heard.said)


def test_a_corpus_in_the_home_folder_is_found(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = train([path.read_text() for path in texts.iterdir()], vocab=280)
    build(texts, tmp_path / "corpus", tokenizer=words, held_out=0.2)
    monkeypatch.setenv("HOME", str(tmp_path))
    outcome = pretrain(settings(Path("~/corpus")), tmp_path / "run")
    assert outcome.corpus.folder == tmp_path / "corpus"


def test_scores_along_the_way_read_no_more_at_once_than_training_does(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    hidden = DecoderModel.hidden

    def counted(model: DecoderModel, ids: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        read.append(ids.numel())
        return hidden(model, ids, *given, **named)

    monkeypatch.setattr(DecoderModel, "hidden", counted)
    run = settings(texts)
    pretrain(run, tmp_path / "run")
    assert max(read) == run.rows * run.length


class Said(Watch):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, text: str) -> None:
        self.sentences.append(text)


def test_settings_that_a_corpus_makes_idle_and_rough_scores_are_told(texts: Path, tmp_path: Path) -> None:
    said = Said()
    (tmp_path / "few").mkdir()
    for number in range(8):
        words = " ".join(f"{number}{i % 97}" for i in range(40_000 if number == 3 else 20))
        (tmp_path / "few" / f"{number}.txt").write_text(words)
    few = Data(source=str(tmp_path / "few"), held_out=0.5)
    pretrain(settings(texts, data=few), tmp_path / "run", watch=said)
    assert any(re.match(r"Only [\d,]+ bytes are held out, 0\.\d% of the text", text) for text in said.sentences)
    corpus = Data(source=str(tmp_path / "run" / "corpus"), vocab=2000)
    pretrain(settings(texts, data=corpus), tmp_path / "again", watch=said)
    assert any(re.match(r"The corpus brings .* so data.vocab=2000 is not used", text) for text in said.sentences)


def test_a_run_whose_last_updates_were_too_large_says_so(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss on the text that was held out is .* lower optimizer\.lr"):
        pretrain(settings(texts, optimizer=AdamW(lr=1e38), budget=Steps(1)), tmp_path / "run")
