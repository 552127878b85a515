from __future__ import annotations

from pathlib import Path

import pytest
import torch

from groundup.context import Batch
from groundup.data.loader import Loader
from groundup.errors import CheckpointError, StorageError
from groundup.families.llama import llama
from groundup.files import alone
from groundup.optim.optimizers import Muon
from groundup.recipes.pretrain import pretrain, resume
from groundup.recipes.prove import Proof, prove
from groundup.recipes.settings import Data, Run
from groundup.training.budget import Budget, Seconds, Steps

TINY = llama(width=16, layers=1, heads=2, hidden=24, vocab=270, context=16, tied=True)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"{number} " + "the cat sat on the mat and the dog on the log. " * 9)
    return folder


def run_of(texts: Path, budget: Budget) -> Run:
    data = Data(source=str(texts), held_out=0.2)
    return Run(model=TINY, data=data, optimizer=Muon(), budget=budget, rows=2, evaluations=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("budget", [Steps(4), Seconds(0.05)])
def test_resuming_is_proven_to_lose_nothing_and_the_run_stays_as_it_is(
    texts: Path, tmp_path: Path, budget: Budget
) -> None:
    steps = pretrain(run_of(texts, budget), tmp_path / "run").tally.steps
    before = contents(tmp_path / "run")
    proof = prove(tmp_path / "run")
    assert proof.holds and (proof.start, proof.steps) == (steps, 3)
    assert proof.tensors > 2 * len(list(TINY.build().parameters()))  # the optimizer's state too
    assert contents(tmp_path / "run") == before


def test_what_a_killed_proof_leaves_goes_when_the_run_is_opened(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(run_of(texts, Steps(2)), tmp_path / "run")
    plain, seen = Loader.batch, set[str]()

    def batch(loader: Loader, number: int) -> Batch:
        seen.update(path.name for path in (tmp_path / "run").glob(".*"))
        return plain(loader, number)

    monkeypatch.setattr(Loader, "batch", batch)
    prove(tmp_path / "run")
    for name in seen:
        (tmp_path / "run" / name).mkdir()
    assert seen
    resume(tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))


def test_a_run_is_not_proven_while_another_process_works_on_it(texts: Path, tmp_path: Path) -> None:
    pretrain(run_of(texts, Steps(1)), tmp_path / "run")
    with alone(tmp_path / "run"), pytest.raises(StorageError, match="another process works on"):
        prove(tmp_path / "run")


def test_a_run_that_is_not_a_function_of_its_checkpoint_is_told(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that depend on how many were read before, which no checkpoint knows, must not pass."""
    pretrain(run_of(texts, Steps(4)), tmp_path / "run")
    plain = Loader.batch
    monkeypatch.setattr(Loader, "batch", lambda loader, number: plain(loader, _read(loader)))
    proof = prove(tmp_path / "run")
    assert not proof.holds and proof.repeatable
    assert "layers.0.mix.mixer.q.weight" in proof.different
    assert str(proof).startswith("refuted: 3 steps from step 4")


def _read(loader: Loader) -> int:
    count = vars(loader).get("count", 0)
    vars(loader)["count"] = count + 1
    return count


def test_a_machine_that_does_not_repeat_itself_proves_nothing(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(run_of(texts, Steps(4)), tmp_path / "run")
    plain, chance = Loader.batch, torch.Generator().manual_seed(0)
    monkeypatch.setattr(Loader, "batch", lambda loader, _: plain(loader, int(torch.randint(99, (), generator=chance))))
    proof = prove(tmp_path / "run")
    assert not proof.holds and not proof.repeatable
    assert "does not repeat itself" in str(proof)


def test_a_run_without_a_checkpoint_cannot_be_proven_yet(texts: Path, tmp_path: Path) -> None:
    pretrain(run_of(texts, Steps(1)), tmp_path / "run")
    for path in sorted((tmp_path / "run" / "checkpoints").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match="groundup resume"):
        prove(tmp_path / "run")


def test_a_proof_is_told_in_a_sentence_and_as_data() -> None:
    proof = Proof(start=7, steps=3, tensors=12, different=(), repeatable=True)
    assert str(proof).startswith("proven: 3 steps from step 7")
    assert proof.to_dict()["proven"] is True
