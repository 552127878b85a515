"""An architecture in a user's own file: ``./mine.py:spec`` is a MODEL like any other.

The file is imported once, under its own name, so that the specs that it defines are known from then on. It may import
what lies beside it, as a file that Python runs may.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from groundup.errors import ModelError, in_words, nearest
from groundup.model.model import Model

OWN = re.compile(r"(?P<file>.+\.py)(?::(?P<name>\w+))?")
NAME = "spec"  # of the model, where none is given
FILES: set[Path] = set()  # those that were imported


def read_own(path: Path, name: str | None) -> Model:
    """Returns the model that a Python file holds under a name: a spec, or a function that makes one.

    Raises:
        ModelError: there is no such file, importing it fails, or the name is no model.
    """
    module = import_file(path)
    given: Any = vars(module).get(name or NAME)
    if given is None:
        models = [key for key, value in vars(module).items() if isinstance(value, Model)]
        hint = nearest(name or NAME, models) or f"its models: {', '.join(models) or 'none'}"
        raise ModelError(f"{path} defines no {name or NAME!r}; {hint}, which FILE.py:NAME takes")
    made = _told(path, given) if callable(given) else given
    if not isinstance(made, Model):
        raise ModelError(f"{path}:{name or NAME} is {type(made).__name__}; expected a model such as groundup.Decoder")
    return made


def import_file(path: Path) -> ModuleType:
    """Returns a Python file as a module, imported now unless it was before.

    Raises:
        ModelError: there is no such file, a module of its name is there already, or importing it fails.
    """
    known = sys.modules.get(path.stem)
    if known is not None:
        if getattr(known, "__file__", None) and Path(str(known.__file__)).resolve() == path.resolve():
            return known
        raise ModelError(f"{path} has the name of the module {path.stem}; rename the file")
    found = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or found is None or found.loader is None:
        raise ModelError(f"{path} is not there; give the path of a Python file that defines a model")
    module = importlib.util.module_from_spec(found)
    FILES.add(path.absolute())
    sys.path.append(str(path.absolute().parent))
    sys.modules[path.stem] = module  # where the annotations of its specs are looked up
    try:
        _told(path, lambda: found.loader.exec_module(module))
    except ModelError:
        del sys.modules[path.stem]
        raise
    return module


def _told(path: Path, run: Any) -> Any:
    """Runs what the user wrote; what fails there is told with its line."""
    try:
        return run()
    except Exception as fault:
        raise ModelError(blame(fault) or f"{path}: {in_words(fault)}") from fault


def blame(fault: BaseException) -> str | None:
    """Returns where in a file of the user's something failed, and how; None where it passed through none."""
    frames = [frame for frame in traceback.extract_tb(fault.__traceback__) if Path(frame.filename) in FILES]
    return f"{frames[-1].filename}, line {frames[-1].lineno}: {in_words(fault)}" if frames else None
