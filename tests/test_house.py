"""The house: which room may import which, and how large anything may become."""

import ast
import re
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "era_support_packages"
NAME = PACKAGE.name
# from the bottom to the top; a file imports from its own floor's room and from floors below
FLOORS = "system, datasets, bootstrap, models, evaluation, gradcam, classifier, training, trust, runs, plots, "
FLOORS += "notebook, commands, __main__ utils resnet custom_resnet"
FLOOR = {room: number for number, rooms in enumerate(FLOORS.split(", ")) for room in rooms.split()}


def imports_at_run_time(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports but those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from imports_at_run_time(node)


def imported_modules(source: str, package: Path) -> set[str]:
    """The modules of the package that a source imports, without the package's name: "training.config".

    What the package's own face hands on stays as it is, "Run", and a relative import has its dots: no floor is so low.
    """
    found = set()
    for node in imports_at_run_time(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.add("." * node.level + (node.module or ""))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == NAME:
            module = node.module.removeprefix(NAME).lstrip(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".lstrip(".")
                path = package / inner.replace(".", "/")
                found.add(inner if path.with_suffix(".py").is_file() or path.is_dir() or not module else module)
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix(NAME + ".") for alias in node.names if alias.name.split(".")[0] == NAME}
    return found - {"__version__"}


def arrows(package: Path) -> dict[str, set[str]]:
    """What each module of the package imports."""
    sources = {file: file.read_text(encoding="utf-8") for file in package.rglob("*.py") if file != package / "__init__.py"}
    names = {file: ".".join(file.relative_to(package).with_suffix("").parts).removesuffix(".__init__") for file in sources}
    return {names[file]: imported_modules(source, package) for file, source in sources.items()}


def upward(graph: dict[str, set[str]]) -> list[str]:
    """The arrows that lead to a higher floor, or to another room of the same."""
    pairs = [(module, target) for module, targets in graph.items() for target in targets]
    rooms = {name: name.split(".")[0] for pair in pairs for name in pair}
    return sorted(
        f"{module} imports {target}"
        for module, target in pairs
        if rooms[module] != rooms[target] and FLOOR.get(rooms[target], len(FLOOR)) >= FLOOR[rooms[module]]
    )


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules along one circle of imports, empty where there is none."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph.get(module, ())):
            if found := walk(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := walk(module, []))), [])


def test_every_import_points_down_and_none_goes_in_a_circle():
    assert upward(arrows(PACKAGE)) == []
    assert circle(arrows(PACKAGE)) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


@pytest.mark.parametrize(
    ("module", "line", "problem"),
    [
        ("gradcam.maps", "from era_support_packages.runs.folder import Run", "gradcam.maps imports runs.folder"),
        ("system.naming", "def f():\n    import era_support_packages.plots.style", "system.naming imports plots.style"),
        ("classifier", "from era_support_packages import training", "classifier imports training"),
        ("gradcam.maps", "from era_support_packages import Run", "gradcam.maps imports Run"),
        ("gradcam.maps", "from ..runs import folder", "gradcam.maps imports ..runs"),
        ("gradcam.maps", "import era_support_packages", "gradcam.maps imports era_support_packages"),
    ],
)
def test_an_import_that_points_up_is_named_but_for_those_of_type_checkers(module, line, problem):
    graph = arrows(PACKAGE)
    graph[module] |= imported_modules(line, PACKAGE)
    assert upward(graph) == [problem]
    assert imported_modules("if TYPE_CHECKING:\n" + textwrap.indent(line, "    "), PACKAGE) == set()


def test_the_package_shows_few_rooms_and_files():
    rooms = [path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    files = [path.name for path in PACKAGE.iterdir() if path.suffix == ".py"]
    assert len(rooms) <= 11
    assert len(files) <= 9
    assert {*rooms, *(Path(file).stem for file in files)} - {"__init__"} <= FLOOR.keys()


def test_no_file_is_long():
    lengths = {str(file): len(file.read_text(encoding="utf-8").splitlines()) for file in PACKAGE.rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > 300} == {}


def test_no_function_is_called_like_a_module_beside_it():
    """Else the room's face could hand on only one of the two."""
    clashes = [
        f"{file.relative_to(PACKAGE)}: {node.name}"
        for file in PACKAGE.rglob("*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and ((file.parent / f"{node.name}.py").is_file() or (file.parent / node.name).is_dir())
    ]
    assert clashes == []


def test_names_are_spelled_as_in_pytorch_and_numpy():
    """US spelling, in the tests and benchmarks too; prose is free."""
    british = re.compile(
        r"colour|centre|centred|grey|behaviour|neighbour|labelled|catalogue|learnt|analys(e|ing)|(normal|random|optim|initial|summar|serial)is",
        re.IGNORECASE,
    )
    found = set()
    for file in (file for folder in (PACKAGE, ROOT / "tests", ROOT / "benchmarks") for file in folder.rglob("*.py")):
        with file.open("rb") as source:
            names = {token.string for token in tokenize.tokenize(source.readline) if token.type == tokenize.NAME}
        found |= {f"{file.relative_to(ROOT)}: {name}" for name in {*names, file.stem} if british.search(name)}
    assert sorted(found) == []
