"""What a folder says of the ids where texts begin and end is kept, and ends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import groundup as gu
from groundup.hub.folder import write_hf
from groundup.hub.frame import Frame, read_frame
from unit.planner_stand_in import LLAMA

SPEC = LLAMA.replace(head=gu.Untied())


def says(folder: Path, **files: dict[str, Any]) -> Path:
    for name, data in files.items():
        (folder / f"{name}.json").write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize(
    ("files", "frame"),
    [
        ({}, Frame()),
        ({"config": {"eos_token_id": 2}}, Frame(ends=(2,))),
        (
            {"config": {"bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": 0}},
            Frame(begin=1, ends=(2, 5), pad=0),
        ),
        ({"config": {"eos_token_id": 2}, "generation_config": {"eos_token_id": [2, 7]}}, Frame(ends=(2, 7))),
        ({"config": {"eos_token_id": 2}, "generation_config": {"eos_token_id": None}}, Frame(ends=(2,))),
        ({"config": {"eos_token_id": -1, "bos_token_id": "1", "pad_token_id": True}}, Frame()),
        ({"config": {"eos_token_id": [50256, 3], "bos_token_id": 8}}, Frame(ends=(3,))),
        ({"generation_config": {"eos_token_id": 2}}, Frame(ends=(2,))),
    ],
)
def test_a_frame_is_what_the_files_say(files: dict[str, Any], frame: Frame, tmp_path: Path):
    assert read_frame(says(tmp_path, **files), vocab=8) == frame


def likes(token: int, folder: Path, **tokens: Any) -> Path:
    """Writes a model that answers everything with one token."""
    module = SPEC.build(seed=0)
    with torch.no_grad():
        states = module.hidden(torch.tensor([[7, 8, 9]]))[0, -1]
        module.head.weight[:] = -states
        module.head.weight[token] = states
    write_hf(module.state_dict(), spec=SPEC, folder=folder, tokens=tokens)
    return folder


@pytest.mark.parametrize("ends", [5, [2, 5]])
def test_each_end_that_the_folder_names_ends_a_text_and_is_written_again(ends: Any, tmp_path: Path):
    folder = likes(5, tmp_path / "theirs", eos_token_id=ends, bos_token_id=1, pad_token_id=0)
    model = gu.load(folder)
    (made,) = model.generations([[7, 8, 9]], max_new_tokens=6, temperature=0.0)
    assert (made.ids, made.finish) == ([5], "end")
    model.save(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (again["bos_token_id"], again["eos_token_id"], again["pad_token_id"]) == (1, ends, 0)
    assert gu.load(tmp_path / "again").frame == model.frame


def test_a_frame_is_kept_by_a_folder_that_no_architecture_of_transformers_describes(tmp_path: Path):
    spec = LLAMA.replace(layers=(LLAMA.layers[0].replace(mix=gu.Residual(gu.GRU())),))
    made = gu.LanguageModel(spec.build().eval(), frame=Frame(ends=(2, 5), begin=1))
    for number in range(2):
        made.save(tmp_path / "own", force=bool(number))
        assert gu.load(tmp_path / "own").frame == made.frame
