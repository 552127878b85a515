"""A score is told only of the text and the tokens that the run was made with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.data.shards import build
from groundup.errors import DataError
from groundup.families.llama import llama
from groundup.recipes.evaluate import evaluate
from groundup.recipes.pretrain import pretrain
from groundup.recipes.settings import Data, Run
from groundup.text.train import train
from groundup.training.budget import Steps

TINY = llama(width=16, layers=1, heads=2, hidden=24, vocab=280, context=24, tied=True)
TEXT = "".join(f"line {i} of {i * i} and {i * i % 23}\n" for i in range(400))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that reads a corpus beside it."""
    (tmp_path / "text.txt").write_text(TEXT)
    build(tmp_path / "text.txt", tmp_path / "corpus", tokenizer=train([TEXT], vocab=280))
    read = Data(source=str(tmp_path / "corpus"))
    pretrain(Run(model=TINY, data=read, budget=Steps(1), rows=1, evaluations=1), tmp_path / "run")
    return tmp_path / "run"


def with_another_tokenizer(corpus: Path) -> None:
    shutil.rmtree(corpus)
    build(corpus.parent / "text.txt", corpus, tokenizer=train([TEXT], vocab=300))


def with_a_flipped_bit(corpus: Path) -> None:
    path = corpus / "valid" / "tokens-00000.bin"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "told"), [(with_another_tokenizer, "made with another tokenizer"), (with_a_flipped_bit, "was changed")]
)
def test_a_corpus_that_changed_is_refused(run: Path, change: Callable[[Path], None], told: str) -> None:
    assert evaluate(str(run))["documents"] == 1
    change(run.parent / "corpus")
    with pytest.raises(DataError, match=told):
        evaluate(str(run))
