"""The arrow between the rooms of the package, read from its imports."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sdn_ray"
COMMANDS = frozenset(
    (
        "train",
        "tune",
        "generate",
        "evaluate",
        "figures",
        "study",
        "serve",
        "train_text",
        "convert_text",
        "benchmark",
    )
)
# From the top down: a room imports from rooms of lower rows alone.
ROWS = (
    COMMANDS,
    {"search", "judging", "serving"},
    {"training", "scoring"},
    {"preparation"},
    {"runs"},
    {"cluster", "web"},
    {"methods"},
    {"distillation", "metrics"},
    {"models"},
    {"text", "data"},
    {"config", "pictures"},
    {"files"},
    {"errors"},
)
LOWER_HALF = frozenset().union(*ROWS[6:])
ABOVE = ("ray", "mlflow", "optuna")  # what the lower half knows nothing of
LONGEST = 400  # lines of a file


def modules():
    """Every module by its dotted name beneath the package, and its syntax tree."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts)] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree):
    """The absolute names that a module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which room they reach"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(tree, known):
    """The modules of the package that a module imports, by dotted name beneath it."""
    for name in imports(tree):
        if name.split(".")[0] == "sdn_ray":
            inner = name.removeprefix("sdn_ray.")
            yield inner if inner in known else inner.rpartition(".")[0]


MODULES = modules()


def test_every_module_is_in_a_room():
    rooms = {name.split(".")[0] for name in MODULES} - {"__init__", "__main__"}
    assert rooms == frozenset().union(*ROWS)
    top = [name for name in MODULES if "." not in name]
    assert set(top) == COMMANDS | {"pictures", "files", "errors", "__init__", "__main__"}


def test_imports_go_down():
    row = {room: number for number, rooms in enumerate(ROWS) for room in rooms}
    wrong = []
    for name, tree in MODULES.items():
        room = name.split(".")[0]
        for target in own_imports(tree, MODULES):
            other = target.split(".")[0]
            if target and other != room and row[other] <= row[room]:
                wrong.append(f"{name} -> {target}")
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: set(own_imports(tree, MODULES)) - {""} for name, tree in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_lower_half_knows_neither_ray_nor_mlflow(name):
    if name.split(".")[0] in LOWER_HALF:
        libraries = {found.split(".")[0] for found in imports(MODULES[name])}
        assert libraries.isdisjoint(ABOVE)


def test_every_file_can_be_read_in_one_sitting():
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}
