import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from groundup.errors import CheckpointError
from groundup.optim.joint import state_tensors
from groundup.optim.optimizers import AdamW, Muon
from groundup.training import checkpoint
from groundup.training.checkpoint import Checkpoint, load_latest
from unit.test_optim_optimizers import Tiny, trained

# Any spec can be saved beside a model; this one is at hand.
SPEC = Muon(lr=0.05)


def save(folder, step, model, optimizer, keep=2):
    return checkpoint.save(
        folder, step, model=model, spec=SPEC, optimizer=optimizer, loop={"seen": step / 3}, keep=keep
    )


def latest(folder):
    found = load_latest(folder)
    assert found is not None
    return found


@pytest.fixture
def run(tmp_path):
    """A folder with the checkpoints of steps 1 and 2, and the model and optimizer as of step 2."""
    model = Tiny()
    optimizer = AdamW().build(model)
    for step in (1, 2):
        trained(model, optimizer, 1)
        save(tmp_path, step, model, optimizer)
    return tmp_path, model, optimizer


@pytest.mark.parametrize("spec", [AdamW(), Muon()], ids=["AdamW", "Muon"])
def test_a_resumed_run_is_bitwise_the_one_that_went_on(spec, tmp_path):
    model = Tiny()
    optimizer = spec.build(model)
    trained(model, optimizer, 3)
    save(tmp_path, 3, model, optimizer)
    other = Tiny()
    resumed = spec.build(other)
    assert latest(tmp_path).restore(other, resumed) == {"seen": 1.0}
    assert trained(model, optimizer, 3) == trained(other, resumed, 3)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


RESUMED = """
    import pathlib, sys
    import torch
    from groundup.optim.optimizers import AdamW, Muon, Optimizer
    from groundup.training import checkpoint
    from groundup.training.checkpoint import load_latest
    from unit.test_optim_optimizers import Tiny, trained

    torch.set_num_threads(int(sys.argv[2]))  # sums are split by threads, so their number belongs to the bits
    torch.use_deterministic_algorithms(True)
    folder = pathlib.Path(sys.argv[1])
    for name in ("AdamW", "Muon"):
        model = Tiny()
        optimizer = Optimizer.from_dict({"kind": name}).build(model)
        load_latest(folder / name).restore(model, optimizer)
        trained(model, optimizer, 3)
        checkpoint.save(folder / name, 6, model=model, spec=AdamW(), optimizer=optimizer, loop={})
"""


@pytest.mark.slow
def test_a_run_resumed_by_a_new_process_is_bitwise_the_one_that_went_on(tmp_path):
    runs = {}
    for spec in (AdamW(), Muon()):
        model = Tiny()
        optimizer = spec.build(model)
        trained(model, optimizer, 3)
        name = type(spec).__name__
        checkpoint.save(tmp_path / name, 3, model=model, spec=spec, optimizer=optimizer, loop={})
        trained(model, optimizer, 3)
        runs[name] = model, optimizer
    command = [sys.executable, "-c", textwrap.dedent(RESUMED), str(tmp_path), str(torch.get_num_threads())]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}, check=True)
    for name, (model, optimizer) in runs.items():
        path = tmp_path / name / "step-000006"
        for file, expected in (
            ("model.safetensors", dict(model.named_parameters())),
            ("state/optimizer.safetensors", state_tensors(optimizer)),
        ):
            found = load_file(path / file)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_latest_checkpoint_is_found_with_its_spec_and_its_loop(run):
    folder, model, _ = run
    found = latest(folder)
    assert (found.path, found.step, found.spec) == (folder / "step-000002", 2, SPEC)
    other = Tiny()
    assert found.restore(other) == {"seen": 2 / 3}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_the_folder_is_laid_out_as_promised(run):
    folder, _, _ = run
    assert (folder / "latest").read_text() == "step-000002\n"
    files = {path.relative_to(folder / "step-000002").as_posix() for path in (folder / "step-000002").rglob("*.*")}
    expected = {"model.safetensors", "spec.json", "MANIFEST.sha256", "state/loop.json", "state/optimizer.safetensors"}
    assert files == expected
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "step-000001", "step-000002"]
    assert json.loads((folder / "step-000002/spec.json").read_text()) == SPEC.to_dict()


def test_the_manifest_has_the_lines_that_sha256sum_reads(run):
    folder = run[0] / "step-000002"
    lines = [line for line in (folder / "MANIFEST.sha256").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 4
    for line in lines:
        digest, name = line.split("  ")
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_there_is_no_checkpoint_before_the_first(tmp_path):
    assert load_latest(tmp_path) is None
    assert load_latest(tmp_path / "nowhere") is None


def test_only_the_last_ones_are_kept(run):
    folder, model, optimizer = run
    save(folder, 3, model, optimizer, keep=2)
    assert sorted(path.name for path in folder.glob("*step*")) == ["step-000002", "step-000003"]
    save(folder, 4, model, optimizer, keep=0)
    assert sorted(path.name for path in folder.glob("*step*")) == ["step-000004"]


def test_the_checkpoint_just_saved_stays_beside_those_of_a_longer_run(run):
    folder, model, optimizer = run
    save(folder, 1, model, optimizer, keep=1)
    assert latest(folder).step == 1


def test_a_checkpoint_of_the_same_step_is_replaced(run):
    folder, model, optimizer = run
    trained(model, optimizer, 1)
    save(folder, 2, model, optimizer)
    other = Tiny()
    latest(folder).restore(other)
    assert torch.equal(model.up.weight, other.up.weight)


def test_the_newest_checkpoint_serves_when_the_pointer_is_lost_or_points_to_nothing(run):
    folder, _, _ = run
    (folder / "latest").unlink()
    assert latest(folder).step == 2
    (folder / "latest").write_bytes(b"step-000009\xff")
    assert latest(folder).step == 2


def test_tied_weights_are_saved_once_and_tied_again(tmp_path):
    model = Tiny()
    model.head.weight = model.embed.weight
    path = save(tmp_path, 1, model, AdamW().build(model))
    assert "head.weight" not in load_file(path / "model.safetensors")
    other = Tiny()
    other.head.weight = other.embed.weight
    latest(tmp_path).restore(other)
    assert torch.equal(other.head.weight, model.embed.weight)


def test_buffers_and_transposed_weights_come_back(tmp_path):
    model, other = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    model(torch.randn(5, 4))
    model.weight = nn.Parameter(torch.randn(3, 4).T)
    other.weight = nn.Parameter(torch.zeros(4, 3))
    save(tmp_path, 1, model, AdamW().build(model))
    latest(tmp_path).restore(other)
    assert other.state_dict()["num_batches_tracked"].item() == 1
    assert torch.equal(other.weight, model.weight)


def test_a_model_of_other_names_shapes_or_dtypes_is_refused_by_name(run):
    found = latest(run[0])
    other = Tiny()
    other.extra = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"only the model has extra\.bias"):
        found.restore(other)
    other = Tiny()
    del other.norm
    with pytest.raises(CheckpointError, match=r"only the checkpoint has norm\.bias"):
        found.restore(other)
    other = Tiny()
    other.up = nn.Linear(8, 25)
    with pytest.raises(
        CheckpointError, match=r"up\.weight is \(24, 8\) of float32 there and \(25, 8\) of float32 here"
    ):
        found.restore(other)
    with pytest.raises(CheckpointError, match=r"of bfloat16 here"):
        found.restore(Tiny().bfloat16())


def test_another_optimizer_is_refused_and_the_model_stays_as_it_was(run):
    other = Tiny()
    before = other.up.weight.detach().clone()
    with pytest.raises(CheckpointError, match="resume with the optimizer that wrote it"):
        latest(run[0]).restore(other, Muon().build(other))
    assert torch.equal(other.up.weight, before)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pickled(path):
    torch.save({"weight": torch.zeros(2)}, path)


def pickled_the_old_way(path):
    torch.save({"weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)


def foreign(path):
    path.with_name("foreign.bin").write_bytes(b"x")


DAMAGE = [
    (flip, "model.safetensors", r"model\.safetensors has changed since it was written"),
    (flip, "state/optimizer.safetensors", r"optimizer\.safetensors has changed since it was written"),
    (flip, "state/loop.json", r"loop\.json has changed since it was written"),
    (halve, "model.safetensors", r"model\.safetensors has [\d,]+ bytes where [\d,]+ were written"),
    (halve, "MANIFEST.sha256", r"MANIFEST\.sha256 has changed"),
    (lambda path: path.write_bytes(b""), "MANIFEST.sha256", r"MANIFEST\.sha256 has changed"),
    (lambda path: path.unlink(), "MANIFEST.sha256", r"step-000002 has no MANIFEST\.sha256"),
    (lambda path: path.unlink(), "spec.json", r"spec\.json is missing"),
    (foreign, "spec.json", r"foreign\.bin is not in the checkpoint's MANIFEST"),
    (pickled, "model.safetensors", r"model\.safetensors is a pickle; groundup never reads pickles"),
    (pickled_the_old_way, "model.safetensors", r"model\.safetensors is a pickle; groundup never reads pickles"),
]


@pytest.mark.parametrize(("damage", "name", "message"), DAMAGE)
def test_damage_is_named_with_the_checkpoint_that_is_still_intact(damage, name, message, run):
    folder, _, _ = run
    damage(folder / "step-000002" / name)
    with pytest.raises(CheckpointError, match=message) as caught:
        latest(folder)
    assert str(caught.value).endswith("step-000001 is intact: remove step-000002 to go on from it")
    assert "\n" not in str(caught.value)
    assert Checkpoint.open(folder / "step-000001").step == 1


def test_no_flipped_bit_of_the_manifest_goes_unnoticed(run):
    path = run[0] / "step-000002/MANIFEST.sha256"
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(CheckpointError):
            Checkpoint.open(path.parent)


def test_with_every_checkpoint_damaged_the_message_says_so(run):
    for path in run[0].glob("step-*/model.safetensors"):
        halve(path)
    with pytest.raises(CheckpointError, match="no other checkpoint beside it is intact"):
        latest(run[0])


def test_a_path_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*step-000007"):
        Checkpoint.open(tmp_path / "step-000007")
