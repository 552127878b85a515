from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest

from groundup import errors
from groundup.errors import GroundupError, MissingExtra, SpecError, StorageError, nearest, writing

EVERY_ERROR = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, GroundupError)]


def one(error: type[GroundupError]) -> GroundupError:
    """Returns an error of the class with a message, made the way its callers make it."""
    if issubclass(error, MissingExtra):
        return error("zstandard", purpose="reading .zst files", extra="zstd")
    return error("heads=12 is not a multiple of kv_heads=5")


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_error_is_told_in_its_own_words(error):
    assert str(one(error)) in (
        "heads=12 is not a multiple of kv_heads=5",
        "reading .zst files needs the package zstandard: pip install 'groundup[zstd]'",
    )


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_error_comes_back_whole_from_another_process(error):
    again = pickle.loads(pickle.dumps(one(error)))
    assert (type(again), str(again)) == (error, str(one(error)))


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_every_error_is_drawn_in_the_tree(error):
    assert f" {error.__name__} " in errors.__doc__.replace("\n", " ")


def test_errors_are_caught_as_python_users_expect():
    assert issubclass(SpecError, ValueError)
    assert issubclass(StorageError, OSError)
    assert issubclass(MissingExtra, ImportError)


def test_nearest_names_are_told_best_first():
    assert nearest("lama-7b", ["gpt2", "llama-7b", "llama-13b"]) == "did you mean 'llama-7b' or 'llama-13b'?"


def test_nearest_name_is_found_in_any_case():
    assert nearest("GPT2_XL", ["gpt2", "gpt2-xl", "llama-7b"]) == "did you mean 'gpt2-xl' or 'gpt2'?"
    assert nearest("rope", ["RoPE", "NoPosition"]) == "did you mean 'RoPE'?"


def test_nothing_is_said_when_no_name_is_near():
    assert nearest("zebra", ["gpt2", "llama-7b"]) == ""
    assert nearest("zebra", []) == ""


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "it is on a read-only file system"),
        (errno.EACCES, "it may not be written by this user"),
        (errno.EPERM, "it may not be written by this user"),
        (errno.EEXIST, "a file stands in the way"),
        (errno.EFBIG, "a file of it is too large for this system"),
        (errno.EIO, "its device reports a failure"),
    ],
)
def test_refused_write_is_told_in_one_sentence(number, reason):
    with pytest.raises(StorageError) as caught, writing(Path("runs/a")):
        raise OSError(number, "what the system says", "runs/a/model.safetensors")
    assert str(caught.value) == f"cannot write runs/a: {reason}; mend that, or choose another place"
    assert isinstance(caught.value.__cause__, OSError)


def test_folder_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of its path is a file, not a folder"), writing(tmp_path / "file"):
        (tmp_path / "file" / "folder").mkdir()


def test_folder_that_is_gone_cannot_be_written_to(tmp_path):
    with pytest.raises(StorageError, match="its folder was removed"), writing(tmp_path / "gone" / "file"):
        (tmp_path / "gone" / "file").write_text("")


def test_folder_in_the_place_of_a_file_cannot_be_written(tmp_path):
    with pytest.raises(StorageError, match="a folder stands in its place"), writing(tmp_path):
        tmp_path.write_text("")


def test_other_faults_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        (tmp_path / "missing").read_text()
    with pytest.raises(ZeroDivisionError), writing(tmp_path):
        _ = 1 / 0


def test_inner_place_is_the_one_that_is_named(tmp_path):
    with pytest.raises(StorageError, match="cannot write inner"), writing(Path("outer")), writing(Path("inner")):
        raise OSError(errno.ENOSPC, "full")
