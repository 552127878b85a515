"""Checkpoints under kill -9, Ctrl-C, full disks and places that cannot be written: nothing that was saved is lost."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from groundup.errors import StorageError
from groundup.files import atomic_write
from groundup.optim.optimizers import AdamW
from groundup.training import checkpoint
from groundup.training.checkpoint import load_latest

SPEC = AdamW(lr=0.5)


def model_of(step, width=64):
    model: nn.Linear = nn.Linear(width, width)
    for parameter in model.parameters():
        nn.init.constant_(parameter, step)
    return model


def save(folder, step, *, width=64, spec=SPEC):
    model = model_of(step, width)
    return checkpoint.save(folder, step, model=model, spec=spec, optimizer=AdamW().build(model), loop={"step": step})


def assert_intact(folder, steps, width=64):
    """Asserts that the checkpoint to go on from is whole and of one of these steps; returns its step."""
    found, model = load_latest(folder), model_of(-1, width)
    assert found is not None and found.step in steps
    assert found.restore(model) == {"step": found.step}
    assert torch.equal(model.weight, torch.full_like(model.weight, float(found.step)))
    return found.step


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


# A parent that has torch in memory forks a saver, kills it at a random moment, and looks at what it left.
KILLER = """
    import os, pathlib, random, signal, sys, time
    import torch
    torch.set_num_threads(1)
    from faults.test_checkpoint_faults import assert_intact, hidden, save

    folder, chance = pathlib.Path(sys.argv[1]), random.Random(0)
    save(folder, 1)
    begun, last, interrupted = 1, 1, 0
    for _ in range(int(sys.argv[2])):
        read, write = os.pipe()
        saver = os.fork()
        if saver == 0:
            for step in range(last + 1, last + 10_000):
                os.write(write, step.to_bytes(4, "big"))
                save(folder, step)
        os.close(write)
        begun = int.from_bytes(os.read(read, 4), "big")
        time.sleep(chance.random() * 0.03)
        os.kill(saver, signal.SIGKILL)
        os.waitpid(saver, 0)
        while piece := os.read(read, 4):
            begun = int.from_bytes(piece, "big")
        os.close(read)
        interrupted += bool(hidden(folder))
        # The pointer may still name the checkpoint before the one whose saving was cut off, never an older one.
        last = assert_intact(folder, {begun - 1, begun})
    save(folder, last + 1)
    assert assert_intact(folder, {last + 1}) and not hidden(folder), hidden(folder)
    print(interrupted)
"""


def script(text, *arguments, prefix=()):
    """Runs a program that can import these tests; returns what it printed."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_killed_at_any_moment_a_run_goes_on_from_one_of_its_last_two_checkpoints(tmp_path):
    interrupted = int(script(KILLER, tmp_path, 40))
    assert interrupted > 3  # else the kills missed the saves


class Pressed(AdamW, abstract=True):
    """A spec that presses Ctrl-C while it is being saved, after the weights were written."""

    presses: int = 1

    def to_dict(self, *, whole=False):
        for _ in range(self.presses):
            signal.raise_signal(signal.SIGINT)
        return SPEC.to_dict()


def test_ctrl_c_during_a_save_waits_until_the_checkpoint_is_complete(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2, spec=Pressed())
    assert assert_intact(tmp_path, {2})
    assert not hidden(tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_gives_the_save_up_and_leaves_the_one_before(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2, spec=Pressed(presses=2))
    assert assert_intact(tmp_path, {1})
    assert not hidden(tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_save_in_another_thread_leaves_signals_alone(tmp_path):
    thread = threading.Thread(target=save, args=(tmp_path, 1))
    thread.start()
    thread.join()
    assert assert_intact(tmp_path, {1})


@contextmanager
def small_files(limit):
    """Lets this process write no file larger than ``limit`` bytes: what a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_weights_that_find_no_room_are_one_sentence_and_leave_the_checkpoints_before(tmp_path):
    save(tmp_path, 1)
    with (
        pytest.raises(StorageError, match=r"cannot write .*model\.safetensors: a file of it is too large") as caught,
        small_files(4096),
    ):
        save(tmp_path, 2)
    assert "\n" not in str(caught.value)
    assert assert_intact(tmp_path, {1})
    assert not hidden(tmp_path)


# Leaves ever more room for a checkpoint of 660 KB, until it fits: the disk is full at every place of a save in turn.
FULL_DISK = """
    import pathlib, shutil, sys
    from faults.test_checkpoint_faults import assert_intact, hidden, save
    from groundup.errors import StorageError

    folder = pathlib.Path(sys.argv[1])
    filler, refused = folder.parent / "filler", 0
    save(folder, 1, width=400)
    for left in [0, 300_000, *range(630_000, 730_000, 4096)]:
        filler.write_bytes(b"")
        filler.write_bytes(bytes(shutil.disk_usage(folder).free - left))
        try:
            save(folder, 2, width=400)
            break
        except StorageError as error:
            refused += 1
            assert str(error).startswith(f"cannot write {folder}") and "\\n" not in str(error), error
            assert not hidden(folder)
            assert assert_intact(folder, {1}, width=400)
    assert assert_intact(folder, {2}, width=400)
    print(refused)
"""

READ_ONLY = """
    import pathlib, subprocess, sys
    from faults.test_checkpoint_faults import assert_intact, save
    from groundup.errors import StorageError
    from groundup.files import atomic_write

    folder = pathlib.Path(sys.argv[1])
    save(folder, 1)
    subprocess.run(["mount", "-o", "remount,ro", folder.parent], check=True)
    for write in (lambda: save(folder, 2), lambda: atomic_write(folder / "plan.json", "{}")):
        try:
            write()
        except StorageError as error:
            assert "read-only file system; mend that, or choose another place" in str(error), error
        else:
            raise AssertionError("written to a read-only file system")
    print(assert_intact(folder, {1}))
"""

# A process in a mount namespace of its own may mount a small file system, as root or as root of its own users.
NAMESPACE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
MOUNT = ["sh", "-c", 'mount -t tmpfs -o size=2m none "$0" && exec "$@"']


def _can_mount():
    try:
        return subprocess.run([*NAMESPACE, *MOUNT, "/mnt", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_mount = pytest.mark.skipif(not _can_mount(), reason="this system lets no process mount a small file system")


@pytest.mark.slow
@needs_mount
def test_a_full_disk_is_one_sentence_and_leaves_the_checkpoints_before(tmp_path):
    assert int(script(FULL_DISK, tmp_path / "checkpoints", prefix=[*NAMESPACE, *MOUNT, str(tmp_path)])) > 3


@pytest.mark.slow
@needs_mount
def test_a_read_only_folder_is_one_sentence(tmp_path):
    assert script(READ_ONLY, tmp_path / "checkpoints", prefix=[*NAMESPACE, *MOUNT, str(tmp_path)]) == "1"


def test_a_file_in_the_place_of_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(StorageError, match="a part of its path is a file, not a folder; mend that"):
        save(tmp_path / "runs/checkpoints", 1)
    assert (tmp_path / "runs").read_text() == "mine"


def test_what_dead_processes_left_is_removed_and_what_live_ones_write_is_not(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid in (dead.pid, os.getppid()):
        (tmp_path / f".step-000007.tmp-{pid}/state").mkdir(parents=True)
    save(tmp_path, 8)
    assert hidden(tmp_path) == [f".step-000007.tmp-{os.getppid()}"]


def test_a_checkpoint_whose_replacement_was_cut_off_comes_back(tmp_path):
    path = save(tmp_path, 1)
    path.rename(tmp_path / ".step-000001.replaced")
    assert assert_intact(tmp_path, {1})
    assert not hidden(tmp_path)


def test_a_checkpoint_whose_replacement_stands_goes(tmp_path):
    save(tmp_path, 1).rename(tmp_path / ".step-000001.replaced")
    (tmp_path / ".step-000001.replaced/spec.json").write_text("old")
    kept = save(tmp_path / "elsewhere", 1)
    kept.rename(tmp_path / "step-000001")
    assert assert_intact(tmp_path, {1})
    assert not hidden(tmp_path)


def test_atomic_write_replaces_a_file_or_leaves_it(tmp_path):
    path = tmp_path / "plan.json"
    atomic_write(path, "längst")
    assert path.read_bytes() == "längst".encode()
    atomic_write(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    with pytest.raises(StorageError, match="a file of it is too large"), small_files(10):
        atomic_write(path, "x" * 11)
    assert path.read_bytes() == b"\x00\xff"
    assert not hidden(tmp_path)
