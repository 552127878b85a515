from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from groundup import cli
from groundup.cli.draw import Drawing
from groundup.families.llama import llama
from groundup.families.t5 import t5
from groundup.infer.language_model import LanguageModel
from groundup.infer.text_to_text import TextToText
from groundup.text.train import train

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

TEXT = "the cat sat on the mat and the dog sat on the log. " * 40


@dataclass
class Answer:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Runs the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["groundup", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "model"
    spec = llama(width=16, layers=1, heads=2, hidden=24, vocab=270, context=32, tied=True)
    LanguageModel(spec.build(), tokenizer=train([TEXT], vocab=270)).save(folder)
    return folder


def refused(answer: Answer, *parts: str) -> None:
    """Checks that a mistake is told in one sentence on standard error, and nothing on standard output."""
    assert answer.code == 2, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    last = answer.err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    for part in parts:
        assert part in last


def test_help_and_the_verbs_help_answer_without_torch() -> None:
    for verb in ("", *cli.VERBS):
        code = (
            "import sys; sys.argv = ['groundup', *sys.argv[1:], '--help']\n"
            "from groundup.cli import main\n"
            "try: main()\n"
            "finally: assert 'torch' not in sys.modules, 'torch was imported'"
        )
        done = subprocess.run([sys.executable, "-c", code, *([verb] if verb else [])], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Usage: groundup" in done.stdout
        assert not verb or "Example:" in done.stdout


def test_plan_prints_json_with_units_in_the_names(call: Call) -> None:
    answer = call("plan", "gpt2", "--tokens", "2B", "--context", "256", "--rows", "2", "--json")
    assert answer.code == 0
    figures = json.loads(answer.out)
    assert figures["params"] == 124_439_808
    assert figures["tokens"] >= 2_000_000_000
    assert figures["peak_bytes"] > figures["weights_bytes"] == 4 * 124_439_808


def test_show_prints_the_tree(call: Call) -> None:
    answer = call("show", "llama-3-8b")
    assert answer.code == 0
    assert "8,030,261,248" in answer.out


def test_settings_change_the_model_that_is_shown_and_planned(call: Call) -> None:
    changes = ["layers=3", "vocab=1000", "layers.*.ffn.mixer.hidden=64"]
    tree = json.loads(call("show", "gpt2", *changes, "--json").out)
    assert [item["repeat"] for item in tree["spec"]["layers"]] == [3]
    # Tables of tokens and places; of each layer its norms, four maps with biases, and two of the smaller network.
    assert tree["params"] == 2024 * 768 + 3 * (4 * 768 + 4 * 769 * 768 + 64 * 769 + 768 * 65) + 2 * 768
    made = json.loads(call("plan", "gpt2", *changes, "--tokens", "1M", "--json").out)
    assert made["params"] == tree["params"]


def test_list_prints_every_preset(call: Call) -> None:
    names = {row["model"] for row in json.loads(call("list", "models", "--json").out)}
    assert {"gpt2", "gpt3-175b", "llama-3.1-405b", "smollm2-135m"} <= names


def test_list_prints_what_can_be_trained_and_on_what(call: Call) -> None:
    assert {"quickstart", "MODEL"} <= {row["recipe"] for row in json.loads(call("list", "recipes", "--json").out)}
    sources = {row["source"] for row in json.loads(call("list", "corpora", "--json").out)}
    assert {"python", "FILE or FOLDER", "CORPUS", "ORGANISATION/NAME"} == sources
    assert "5.87M parameters" in call("list", "recipes").out


def test_what_show_prints_as_json_is_a_model(call: Call, tmp_path: Path) -> None:
    shown = call("show", "gpt2", "--json").out
    assert json.loads(shown)["params"] == 124_439_808
    for name in ("m.json", "m.yaml"):
        (tmp_path / name).write_text(shown)
        assert call("show", name, "--json").out == shown


def test_figures_of_models_and_machines_are_plain_numbers(call: Call) -> None:
    models = json.loads(call("list", "models", "--json").out)
    assert {row["model"]: row["parameters"] for row in models}["gpt2"] == 124_439_808
    machine, *others = json.loads(call("list", "hardware", "--json").out)
    assert {device["name"]: device["memory_bytes"] for device in others}["H100-SXM"] == 80 * 2**30
    found = json.loads(call("doctor", "--json").out)
    for name in ("memory_bytes", "float32_flops_per_second", "bandwidth_bytes_per_second"):
        assert found[name] == machine[name] > 0


def test_a_budget_says_how_long_to_train(call: Call) -> None:
    made = json.loads(call("plan", "gpt2", "--max-usd", "500", "--on", "8xH100", "--json").out)
    assert 475 < made["cost_usd"] <= 500 and made["layout"]["dp"] * made["layout"]["tp"] <= 8
    best = json.loads(call("plan", "--flops", "1e20", "--on", "8xH100", "--json").out)
    assert 0.95e20 < best["train_flops"] <= 1e20
    for wrong, says in (
        (["plan"], "Missing argument 'MODEL'; or give a budget"),
        (["plan", "gpt2", "--flops", "1e20", "--tokens", "2B"], "--flops and --tokens each say how long to train"),
        (["plan", "gpt2", "--max-usd", "5"], "give --usd-per-hour"),
    ):
        answer = call(*wrong)
        assert answer.code == 2 and says in answer.err


def test_tables_of_models_and_machines_have_peoples_units(call: Call) -> None:
    assert "124.4M" in call("list", "models").out
    for verb in (["list", "hardware"], ["doctor"]):
        said = call(*verb).out
        assert "FLOP/s" in said and "iB/s" in said


def test_every_verb_knows_what_an_imported_file_defines(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_verb.py").write_text(
        "import groundup as gu\n\nclass OwnAct(gu.MLP): pass\n\n"
        "spec = gu.spec('gpt2').replace(layers=(gu.Layer(ffn=gu.Residual(OwnAct(hidden=8))),))"
    )
    shown = call("show", "./own_verb.py:spec", "--json").out
    (tmp_path / "m.json").write_text(shown)
    monkeypatch.setenv("GROUNDUP_IMPORT", "own_verb.py")
    assert call("show", "m.json", "--json").out == shown
    monkeypatch.setenv("GROUNDUP_IMPORT", "gone.py")
    refused(call("show", "gpt2"), "gone.py is not there")


def test_generate_writes_the_answer_alone_on_standard_output(call: Call, model: Path) -> None:
    one = call("generate", str(model), "the cat", "--max-new-tokens", "5", "--temperature", "0")
    assert one.code == 0 and one.err == ""
    assert one.out == call("generate", str(model), "the cat", "--max-new-tokens", "5", "--temperature", "0").out


def test_generate_prints_json_with_the_reason_of_its_end(call: Call, model: Path) -> None:
    asked = ["generate", str(model), "the cat", "--max-new-tokens", "5", "--temperature", "0"]
    told = json.loads(call(*asked, "--json").out)
    assert told["text"] == call(*asked).out.removesuffix("\n")
    assert (told["prompt"], told["finish"], len(told["ids"])) == ("the cat", "length", 5)


def test_generate_searches_with_beams_and_answers_with_an_encoder_decoder(call: Call, tmp_path: Path) -> None:
    words = train([TEXT], vocab=270)
    spec = t5(width=16, layers=1, heads=2, hidden=24, head_width=8, vocab=270, context=32, end=words.end)
    TextToText(spec.build(), tokenizer=words).save(tmp_path / "t5")
    asked = ["generate", "t5", "the cat", "--max-new-tokens", "5", "--beams", "3", "--length-penalty", "2"]
    told = json.loads(call(*asked, "--json").out)
    assert call(*asked).out == told["text"] + "\n"
    refused(call(*asked, "--temperature", "1"), "beams=3 looks for the likeliest text and temperature=1.0 draws one")


def test_training_and_resuming_print_one_object_as_json(call: Call, model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT * 3)
    trained = call("train", str(model), "--steps", "2", "--data", "text.txt", "--out", "run", "rows=1", "--json")
    told = json.loads(trained.out)
    assert (told["run"], told["steps"]) == ("run", 2)
    (last,) = (line for line in trained.err.splitlines() if line.startswith("  100%  step 2 "))
    assert all(f"  {name} " in last for name in ("loss", "peak")) and last.count("% utilised") == 1
    assert told["validation"]["bits_per_byte"] > 0
    assert json.loads(call("resume", "run", "--json").out)["steps"] == 2
    proven = call("resume", "run", "--prove", "--json")
    assert (proven.code, json.loads(proven.out)["proven"]) == (0, True)


def test_evaluate_reports_bits_per_byte_beside_compressors(call: Call, model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    figures = json.loads(call("evaluate", str(model), "--data", "text.txt", "--json").out)
    assert figures["text_bytes"] == len(TEXT)
    assert figures["bits_per_byte"] > figures["compressors"]["xz -9, one stream"]


def test_tokenizer_and_data_verbs_work_together(call: Call, tmp_path: Path) -> None:
    for name in "abcdefgh":
        (tmp_path / f"{name}.txt").write_text(name + TEXT)
    made = call("tokenizer", "train", ".", "--vocab", "270", "--out", "tok", "--json")
    assert json.loads(made.out) == {"tokenizer": "tok", "kind": "bpe", "vocab": 270}
    assert json.loads(call("tokenizer", "encode", "tok", "the cat", "--json").out)["tokens"]
    assert call("data", "build", "a.txt", "--tokenizer", "tok", "--out", "corpus").code == 0
    assert "the cat" in call("data", "preview", "a.txt").out
    (first,) = json.loads(call("data", "preview", ".", "--count", "1", "--characters", "3", "--json").out)
    assert first == {"name": "a.txt", "text": "ath"}
    assert "270" in call("tokenizer", "compare", "a.txt", "tok").out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["plan", "gtp2"], ["'gtp2' is no preset", "'gpt2'"]),
        (["pln", "gpt2"], ["no verb 'pln'", "'plan'"]),
        (["plan", "gpt2", "--tokens", "many"], ["'many' is not a number"]),
        (["plan", "gpt2", "--context", "5000"], ["5000", "1024"]),
        (["train", "gpt2"], ["needs a budget"]),
        (["train", "gtp2"], ["'gtp2' is no preset", "'gpt2'"]),
        (["plan", "gpt2", "widht=3"], ["Decoder has no setting 'widht'", "'width'"]),
        (["show", "gpt2", "layers=0"], ["layers is 0", "from 1 to"]),
        (["show", "missing.json"], ["missing.json is not there"]),
        (["train", "gpt2", "--steps", "3", "optimizer.rate=1"], ["has no setting 'rate'"]),
        (["train", "gpt2", "--steps", "3", "optmizer.lr=1"], ["did you mean 'optimizer'"]),
        (["resume", "nowhere"], ["nowhere is not a run"]),
        (["audit", "nowhere"], ["nowhere"]),
        (["generate", "gpt2", "hello"], ["gpt2", "no weights"]),
        (["data", "preview", "missing.txt"], ["missing.txt"]),
        (["tokenizer", "encode", "missing", "x"], ["missing"]),
        (["data", "preview", "python", "--count", "-1"], ["--count", "x>=1"]),
        (["show", "gpt2", "--context", "-5"], ["--context", "x>=1"]),
        (["plan", "gpt2", "--rows", "0"], ["--rows", "x>=1"]),
        (["generate", "gpt2", "hello", "--max-new-tokens", "0"], ["--max-new-tokens", "x>=1"]),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(call: Call, arguments: list[str], parts: list[str]) -> None:
    refused(call(*arguments), *parts)


def test_a_folder_at_home_is_where_the_user_says(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "a.txt").write_text(TEXT)
    assert call("tokenizer", "train", "~/a.txt", "--vocab", "270", "--out=~/tok").code == 0
    assert call("data", "build", "~/a.txt", "--tokenizer", "~/tok", "--out=~/corpus").code == 0
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"a.txt", "tok", "corpus"}
    assert not (tmp_path / "~").exists()
    assert "home/run has neither" in call("audit", "~/run").err


def test_texts_that_cannot_be_trained_on_are_named(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "latin.txt").write_bytes("caf\xe9 ".encode("latin-1") * 100)
    for name in ("empty", "binary", "latin"):
        refused(call("train", "gpt2", "--steps", "2", "--data", f"{name}.txt", "--out", f"runs/{name}"), f"{name}.txt")


def test_a_prompt_longer_than_the_context_is_refused(call: Call, model: Path) -> None:
    refused(call("generate", str(model), TEXT), "context", "32")


def test_a_pickle_posing_as_weights_is_refused(call: Call, model: Path, tmp_path: Path) -> None:
    import shutil

    import torch

    shutil.copytree(model, tmp_path / "posing")
    (tmp_path / "posing" / "MANIFEST.sha256").unlink()
    torch.save({"a": torch.zeros(3)}, tmp_path / "posing" / "model.safetensors")
    refused(call("generate", "posing", "the cat"), "pickle")


def test_one_flipped_byte_of_the_weights_is_noticed(call: Call, model: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(model, tmp_path / "flipped")
    path = tmp_path / "flipped" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    refused(call("generate", "flipped", "the cat"), "model.safetensors")


WITHOUT_NETWORK = """
import sys
def refuse(event, arguments):
    assert event not in ("socket.getaddrinfo", "socket.connect"), "the network was asked"
sys.addaudithook(refuse)
from groundup.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb", [["show", "no/model"], ["train", "gpt2", "--steps", "1", "--data", "no/data"]], ids=["model", "data set"]
)
def test_offline_keeps_models_and_data_sets_of_the_hub_from_the_network(verb: list[str], tmp_path: Path) -> None:
    online = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", WITHOUT_NETWORK, *verb, "--offline"]
    done = subprocess.run(command, capture_output=True, text=True, env=online, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Error: " in done.stderr and "network was asked" not in done.stderr


def test_debug_shows_the_traceback(call: Call) -> None:
    answer = call("plan", "gtp2", "--debug")
    assert answer.code == 2
    assert "Traceback" in answer.err


def test_standard_input_that_is_not_utf8_is_refused(call: Call, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["generate", str(model)], ["tokenizer", "encode", str(model)]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9")))
        refused(call(*arguments), "standard input is not text in UTF-8")


def test_a_name_in_brackets_is_told_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    drawing = Drawing()
    drawing.stage("runs/[/old] :cat:")
    drawing.say("runs/[b]new[/b]")
    assert capsys.readouterr().err.split() == ["runs/[/old]", ":cat:", "runs/[b]new[/b]"]


@pytest.mark.parametrize("arguments", [["--help"], ["list", "--help"]])
def test_a_reader_that_leaves_ends_the_command_quietly(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "groundup", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (cli.EXIT_PIPE, "")


def test_an_interruption_of_a_verb_without_a_run_says_that_nothing_is_lost(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(click.Command, "invoke", lambda *_: signal.raise_signal(signal.SIGINT))
    answer = call("list")
    assert (answer.code, answer.err.strip()) == (130, "Interrupted. Calling it again is safe.")


def test_a_mistake_in_a_file_of_the_users_own_is_told_with_its_line(call: Call, tmp_path: Path) -> None:
    (tmp_path / "own_typo.py").write_text(
        "import groundup as gu\n\n\n"
        "class OwnTypo(gu.MixerSpec):\n"
        "    def build(self, width):\n"
        "        return gu.Linear(widht, width)\n\n\n"
        "layer = gu.Layer(mix=gu.Residual(OwnTypo()))\n"
        "spec = gu.Decoder(width=8, vocab=16, context=8, layers=(layer,))\n"
    )
    answer = call("plan", "./own_typo.py")
    assert answer.code == 2
    assert "own_typo.py, line 6: NameError: name 'widht' is not defined" in answer.err


@pytest.mark.parametrize("pressed", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN])  # ignored in a script's background
def test_a_run_that_is_stopped_says_how_to_go_on(
    call: Call, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pressed: signal.Signals, ctrl_c: Any
) -> None:
    (tmp_path / "text.txt").write_text(TEXT * 3)
    ordinary = signal.signal(signal.SIGINT, ctrl_c), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Drawing, "step", lambda *_, **__: signal.raise_signal(pressed))
    try:
        answer = call("train", str(model), "--steps", "9", "--data", "text.txt", "data.held_out=0.5", "rows=1")
    finally:
        after = signal.signal(signal.SIGINT, ordinary[0]), signal.getsignal(signal.SIGTERM)
    assert after == (ctrl_c, ordinary[1])
    assert answer.code == 130
    assert answer.err.endswith("Interrupted. Go on with: groundup resume runs/model\n")
    assert (tmp_path / "runs" / "model" / "checkpoints" / "step-000001").is_dir()
