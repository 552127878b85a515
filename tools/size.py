"""Shows how large and how tangled the code is, with the difference to the last commit. It enforces nothing.

    python tools/size.py

Read it before a commit and ask whether the code got better. What the last part lists are places that the design
would rather not have (docs/architecture.md); some of them have a good reason, which stands in a comment there.
"""

from __future__ import annotations

import ast
import importlib
import io
import pkgutil
import subprocess
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from groundup.families import PRESETS
from groundup.specs import Spec, walk

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "tools", "bench")
PACKAGE = "src/groundup"
WINDOW = 6  # lines that have to be the same in two places to count as repeated
SHOWN = 10  # of each list

Sources = Mapping[str, str]  # path from the root to the text of the file


def sources_now() -> Sources:
    files = (file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py")))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def sources_before() -> Sources:
    """The same files in the last commit; none where there is no commit yet."""
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True)
    if packed.returncode:
        return {}
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        members = [m for m in archive if m.name.endswith(".py") and m.name.split("/")[0] in FOLDERS]
        return {m.name: file.read().decode() for m in members if (file := archive.extractfile(m))}


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function or method, and the number of paths that its branches open."""

    place: str  # its file and its name
    lines: int
    paths: int


_BRANCHES = (ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case)


def functions(sources: Sources) -> Iterator[Function]:
    for path, text in sources.items():
        for name, node in _definitions(ast.parse(text), prefix=""):
            inside = list(ast.walk(node))
            paths = 1 + sum(isinstance(n, _BRANCHES) for n in inside)
            paths += sum(len(n.values) - 1 for n in inside if isinstance(n, ast.BoolOp))
            last = node.end_lineno or node.lineno
            yield Function(place=f"{path} {name}", lines=last - node.lineno + 1, paths=paths)


def _definitions(node: ast.AST, *, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _definitions(child, prefix=f"{prefix}{child.name}.")


def repeated(sources: Sources) -> list[list[str]]:
    """Returns the places of each run of lines, at least a window long, that stands more than once."""
    windows: dict[str, list[tuple[str, int]]] = defaultdict(list)  # text to places: path and number among its lines
    numbers: dict[tuple[str, int], int] = {}  # the line of the file where the window at a place begins
    for path, text in sources.items():
        lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
        lines = [(n, line) for n, line in lines if len(line) > 1 and not line.startswith(("#", "import ", "from "))]
        for start in range(len(lines) - WINDOW + 1):
            windows["\n".join(line for _, line in lines[start : start + WINDOW])].append((path, start))
            numbers[path, start] = lines[start][0]
    groups = [places for places in windows.values() if len(places) > 1]
    known = {place for places in groups for place in places}
    begins = [places for places in groups if not all((path, start - 1) in known for path, start in places)]
    return [[f"{path}:{numbers[path, start]}" for path, start in places] for places in begins]


def unwanted(sources: Sources) -> dict[str, list[str]]:
    """Returns the places that the design would rather not have, by what is wrong with them."""
    modules = {path[len(PACKAGE) + 1 :]: ast.parse(text) for path, text in sources.items() if path.startswith(PACKAGE)}
    families = {PurePosixPath(path).stem for path in modules if path.startswith("families/")} - {"__init__"}
    parts = _subclasses(modules.values(), of={"Spec", "Mixer"})
    checks: dict[str, Callable[[str, ast.AST], object]] = {
        "family names compared outside families/": lambda path, node: (
            not path.startswith("families/") and _compares_text(node, starting_with=families)
        ),
        "isinstance on a Spec or Mixer outside specs.py and planner/": lambda path, node: (
            not path.startswith(("specs.py", "planner/")) and _call_names(node, "isinstance") & parts
        ),
        "getattr or hasattr in model/, mixers/ or parts/": lambda path, node: (
            path.startswith(("model/", "mixers/", "parts/")) and _call_names(node, "getattr", "hasattr")
        ),
        "**kwargs in a forward": lambda path, node: (
            isinstance(node, ast.FunctionDef) and node.name == "forward" and node.args.kwarg
        ),
    }
    nodes = [(path, node) for path, module in modules.items() for node in ast.walk(module)]
    return {
        title: [f"{PACKAGE}/{path}:{getattr(node, 'lineno', 0)}" for path, node in nodes if check(path, node)]
        for title, check in checks.items()
    }


def _subclasses(modules: Iterable[ast.Module], *, of: set[str]) -> set[str]:
    """Returns the names of the classes that derive from the given ones, themselves included."""
    bases = {
        node.name: {ast.unparse(base).split("[")[0] for base in node.bases}
        for module in modules
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef)
    }
    known: set[str] = set()
    while known != of:
        known, of = of, of | {name for name, above in bases.items() if above & of}
    return known


def _compares_text(node: ast.AST, *, starting_with: set[str]) -> bool:
    tests = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
    tests += [node.value] if isinstance(node, ast.MatchValue) else []
    tests += node.args if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".startswith") else []
    texts = [n.value for test in tests for n in ast.walk(test) if isinstance(n, ast.Constant)]
    return any(isinstance(text, str) and text.lower().startswith(tuple(starting_with)) for text in texts)


def _call_names(node: ast.AST, *functions: str) -> set[str]:
    """Returns the names in a call of one of the functions; none where the node is no such call."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions):
        return set()
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def unreached() -> list[str]:
    """Returns the specs of models that no preset uses; they ought to leave the library."""
    homes = ("groundup.parts", "groundup.mixers", "groundup.model")
    for home in homes:
        package = importlib.import_module(home)
        for module in pkgutil.walk_packages(package.__path__, f"{home}."):
            importlib.import_module(module.name)
    reached = {type(node) for preset in PRESETS.values() for _, node in walk(preset())}
    return sorted(
        f"{cls.__module__}.{cls.__name__}"
        for cls in Spec.kinds.values()
        if cls.__module__.startswith(homes) and cls not in reached
    )


def show(title: str, now: Mapping[str, int], before: Mapping[str, int]) -> None:
    print(f"\n{title}")
    for name, size in sorted(now.items(), key=lambda item: -item[1])[:SHOWN]:
        print(f"{size:7,}{_change(size, before.get(name, 0)):>9}  {name}")


def _change(now: int, before: int) -> str:
    return f"({now - before:+,})" if now != before else ""


def lines(sources: Sources) -> Counter[str]:
    return Counter({path: text.count("\n") for path, text in sources.items()})


def folders(sources: Sources) -> Counter[str]:
    """Lines by folder: the packages of groundup one by one, its single modules together."""
    depth = len(PurePosixPath(PACKAGE).parts) + 1
    sizes: Counter[str] = Counter()
    for path, count in lines(sources).items():
        sizes["/".join(PurePosixPath(path).parent.parts[:depth])] += count
    return sizes


def main() -> None:
    now, before = sources_now(), sources_before()
    every, old = list(functions(now)), list(functions(before))

    print("Lines by folder")
    sizes, old_sizes = folders(now), folders(before)
    for name in sorted(sizes | old_sizes):
        print(f"{sizes[name]:7,}{_change(sizes[name], old_sizes[name]):>9}  {name}")
    print(f"{sizes.total():7,}{_change(sizes.total(), old_sizes.total()):>9}  in all")

    show("Longest files", lines(now), lines(before))
    show("Longest functions", {f.place: f.lines for f in every}, {f.place: f.lines for f in old})
    show("Most branches in a function", {f.place: f.paths for f in every}, {f.place: f.paths for f in old})

    runs, old_runs = repeated(now), repeated(before)
    print(f"\nLines that stand more than once, {WINDOW} and more in a row")
    print(f"{len(runs):7,}{_change(len(runs), len(old_runs)):>9}  runs")
    for places in runs[:SHOWN]:
        print(f"{'':18}{', '.join(places)}")

    print("\nWhat the design would rather not have")
    found, old_found = unwanted(now), unwanted(before)
    for title, places in found.items():
        print(f"{len(places):7,}{_change(len(places), len(old_found[title])):>9}  {title}")
        for place in places:
            print(f"{'':18}{place}")
    specs = unreached()
    print(f"{len(specs):7,}{'':9}  specs that no preset reaches")
    for name in specs:
        print(f"{'':18}{name}")


if __name__ == "__main__":
    main()
