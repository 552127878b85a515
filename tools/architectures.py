"""Writes docs/architectures.md from the families and mixers themselves, or checks that it is what they say.

    python tools/architectures.py            checks; exits with 1 where the page is out of date
    python tools/architectures.py --write    writes it

Of each family: the sentence, the equations and the papers of its module, its presets, and the mixers that they use.
Of each mixer: the sentence, the equation and the papers of its module.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import groundup.families
from groundup.families.family import Family
from groundup.mixers.base import MixerSpec
from groundup.model.model import Model
from groundup.planner import books, units
from groundup.specs import walk

PAGE = Path(__file__).resolve().parent.parent / "docs" / "architectures.md"
HEAD = """\
# Architectures

<!-- written by tools/architectures.py; change the docstrings that it reads instead -->

Every family is one file in `src/groundup/families/`: presets, the configuration both ways where transformers has the
class, and weight rules. What is new mathematics is a mixer, one file in `src/groundup/mixers/`; all tests of laws run
over each. `groundup show PRESET` prints the tree, `groundup plan PRESET` what training it takes.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the page")
    wanted = page()
    if parser.parse_args().write:
        PAGE.write_text(wanted, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != wanted:
        sys.exit(f"{PAGE.name} is not what the code says; run python tools/architectures.py --write")


def page() -> str:
    """Returns the whole page."""
    files = [module for module in _modules(groundup.families) if hasattr(module, "FAMILY")]
    made = {module: {name: make() for name, make in module.FAMILY.presets.items()} for module in files}
    mixers = {type(node) for presets in made.values() for spec in presets.values() for node in _mixers(spec)}
    return "\n".join(
        [HEAD + "## Families", "", *_table(made), "", *_families(made), "## Mixers", "", *_by_file(mixers)]
    )


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in iter_modules(package.__path__):
        yield import_module(f"{package.__name__}.{found.name}")


def _mixers(spec: Model) -> Iterator[MixerSpec]:
    distinct = spec.with_distinct_layers()
    yield from (node for _, node in walk(distinct) if isinstance(node, MixerSpec))


def _table(made: dict[ModuleType, dict[str, Model]]) -> Iterator[str]:
    yield "| family | presets | parameters | held to transformers' |"
    yield "|---|---|---|---|"
    for module, presets in made.items():
        family: Family = module.FAMILY
        sizes = sorted(books.params(spec) for spec in presets.values())
        span = " to ".join(dict.fromkeys(units.count(size) for size in (sizes[0], sizes[-1])))
        types = ", ".join(f"`{name}`" for name in family.model_types) or "no class; laws and published counts"
        name = _name(module)
        yield f"| [{name}](#{name}) | {len(presets)} | {span} | {types} |"


def _families(made: dict[ModuleType, dict[str, Model]]) -> Iterator[str]:
    for module, presets in made.items():
        yield from (f"### {_name(module)}", "", _text(module), "")
        yield from (", ".join(f"`{name}`" for name in presets) + ".", "")
        kinds = dict.fromkeys(type(node) for spec in presets.values() for node in _mixers(spec))
        yield "Mixers: " + ", ".join(f"[`{kind.__name__}`](#{_anchor(kind, made)})" for kind in kinds) + "."
        yield ""


def _anchor(kind: type[MixerSpec], families: Iterable[ModuleType]) -> str:
    """The link to a mixer: a heading that came before, that of a family, has its name already."""
    name = _name(kind.__module__)
    return f"{name}-1" if name in map(_name, families) else name


def _by_file(mixers: Iterable[type[MixerSpec]]) -> Iterator[str]:
    for name in sorted({kind.__module__ for kind in mixers}):
        kinds = sorted(kind.__name__ for kind in mixers if kind.__module__ == name)
        yield from (f"### {_name(name)}", "", _text(import_module(name)), "")
        yield from ("Specs: " + ", ".join(f"`{kind}`" for kind in kinds) + ".", "")


def _name(module: ModuleType | str) -> str:
    return (module if isinstance(module, str) else module.__name__).rpartition(".")[2]


def _text(module: ModuleType) -> str:
    """The docstring of a module as Markdown: indented lines are equations."""
    lines, equation = [], False
    for line in (inspect.getdoc(module) or "").replace("``", "`").splitlines():
        inside = line.startswith("    ") or (equation and not line.strip())
        if inside and not equation and line.strip():
            lines.append("```text")
        if equation and not inside:
            lines.insert(len(lines) - (not lines[-1]), "```")
        equation = inside and bool(equation or line.strip())
        lines.append(line[4:] if equation else line)
    return "\n".join([*lines, "```"] if equation else lines)


if __name__ == "__main__":
    main()
