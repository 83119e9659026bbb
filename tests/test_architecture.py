"""The direction of imports, and what the documents promise."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "rnnbench"
FRAMEWORKS = (
    "torch", "tensorflow", "keras", "jax", "optax", "numba", "llvmlite", "openvino", "onnxruntime", "onnx",
)  # fmt: skip

# room -> the rooms that it may not import
CLOSED = {
    "kernels": "backends workloads records analysis machine correctness harness report api cluster cli",
    "backends": "workloads records analysis machine correctness harness report api cluster cli",
    "workloads": "kernels records analysis machine correctness harness report api cluster cli",
    "records": "kernels workloads analysis machine correctness harness report api cluster cli",
    "analysis": "kernels workloads machine correctness harness report api cluster cli",
    "machine": "kernels report api cluster cli",
    "correctness": "kernels report api cluster cli",
    "harness": "kernels report api cluster cli",
    "report": "kernels workloads machine correctness harness api cluster cli",
    "cluster": "kernels cli",
    "api": "kernels cli",
    "cli": "kernels",
}
LIBRARIES = {  # what a room may not import besides; else FRAMEWORKS
    "kernels": ("torch", "tensorflow", "keras", "jax"), "backends": (), "api": (*FRAMEWORKS, "click", "rich"),
}  # fmt: skip


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", CLOSED)
def test_imports_go_one_way(room):
    files = list((PACKAGE / room).rglob("*.py"))
    assert files
    closed = (*(f"rnnbench.{other}" for other in CLOSED[room].split()), *LIBRARIES.get(room, FRAMEWORKS))
    for path in files:
        bad = [
            name
            for name in imports(path)
            for forbidden in closed
            if name == forbidden or name.startswith(forbidden + ".")
        ]
        assert not bad, f"{path.name} imports {bad}"


@pytest.mark.parametrize("folder", ["benchmarks", "validation", "tests"])
def test_benchmarks_validation_and_tests_do_not_import_from_one_another(folder):
    """But for the tests of the two others, in folders of their names."""
    root = PACKAGE.parent
    modules = {other: {path.stem for path in (root / other).glob("*.py")} for other in ("benchmarks", "validation")}
    files = list((root / folder).rglob("*.py"))
    assert files
    for path in files:
        tested = path.relative_to(root).parts[1]
        closed = set() if folder == "tests" else {"tests"}
        closed |= {name for other, names in modules.items() if other not in (folder, tested) for name in names}
        bad = {name.partition(".")[0] for name in imports(path)} & closed
        assert not bad, f"{path.relative_to(root)} imports {bad}"


def test_only_the_room_of_clusters_imports_dask():
    files = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "cluster"]
    for path in files:
        assert not {name.partition(".")[0] for name in imports(path)} & {"dask", "distributed"}, path


def test_only_its_own_backend_imports_a_framework():
    for path in (PACKAGE / "backends").glob("*.py"):
        names = {name.partition(".")[0] for name in imports(path)} & set(FRAMEWORKS)
        of = path.stem.partition("_")[0]  # torch_parts belongs to torch
        allowed = {
            "torch": {"torch"}, "jax": {"jax", "optax"}, "numba": {"numba", "llvmlite"}, "cuda": {"numba"},
            "tensorflow": {"tensorflow", "keras"}, "keras": {"tensorflow", "keras", "jax", "torch"},
            "onnx": {"onnx"}, "onnxruntime": {"onnxruntime"}, "openvino": {"openvino"},
        }.get(of, set())  # fmt: skip
        assert names <= allowed, f"{path.name} imports {names}"


def test_the_readme_names_every_command_backend_and_workload():
    from rnnbench import backends, workloads
    from rnnbench.cli import main

    text = (PACKAGE.parent / "README.md").read_text()
    for name in (*main.commands, *backends.REGISTRY, *workloads.REGISTRY):
        assert f"| `{name}` |" in text, name


def test_the_readme_gives_the_sizes_of_every_workload():
    from rnnbench import workloads

    text = (PACKAGE.parent / "README.md").read_text()
    for name in workloads.REGISTRY:
        w = workloads.get(name)
        V = "dense" if w.model.V is None else w.model.V
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.endswith(f"| {w.B}, {w.T}, {V}, {w.model.E}, {w.model.H} |"), name


# Concrete classes that do inherit from a concrete class of ours, each with the reason.
INHERITS = {
    "backends": "a variant of a library's backend is that backend, with one thing changed",
    "model.py:Case": "a case is a problem with a pass: the same fields, flat in keys and files",
    "kernels/cuda/graph.py:Recorder": "records the launches that it is called for, in place of making them",
    "cli": "click's types, which are made to be inherited from",
}


def test_no_concrete_class_inherits_from_a_concrete_class():
    bases = {}  # of concrete classes, exceptions apart; `click.Command`, with its library before it, is none of ours
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                written = " ".join(map(ast.unparse, node.bases))
                exempt = any(word in written for word in ("ABC", "Protocol", "Error", "Exception"))
                if not exempt and "abstractmethod" not in ast.unparse(node):
                    names = {base.id for base in node.bases if isinstance(base, ast.Name)}
                    bases[str(path.relative_to(PACKAGE)), node.name] = names
    concrete = {name for _, name in bases}
    bad = {f"{file}:{name}" for (file, name), names in bases.items() if names & concrete}
    assert {where for where in bad if where not in INHERITS and where.partition("/")[0] not in INHERITS} == set()


# Public functions that may share a name: those of one protocol, and a command and what Python calls it.
PROTOCOLS = {
    ("pages", "panel"): "a figure: its pages and one panel",
    ("add_parts", "clip_scale", "loss_and_gradient", "project_inputs", "spare_row", "state_row", "step_row"):
        "one kernel on a CPU and on a GPU",
    ("check", "compare", "load", "run", "sweep", "train", "verify"): "a command, and the same from Python; "
    "`backends.load` is what older commits are compared by",
}  # fmt: skip


def defined(kind: type) -> dict[str, list[str]]:
    """Name -> the modules of the package that define it at their top."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, kind):
                found.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    return found


def test_a_class_has_a_name_of_its_own():
    assert {name: where for name, where in defined(ast.ClassDef).items() if len(where) > 1} == {}


def test_a_public_function_has_a_name_of_its_own_outside_of_protocols():
    allowed = {name for names in PROTOCOLS for name in names}
    twice = {n: where for n, where in defined(ast.FunctionDef).items() if len(where) > 1 and not n.startswith("_")}
    assert {name: where for name, where in twice.items() if name not in allowed} == {}
    assert allowed <= set(defined(ast.FunctionDef)), "a protocol that is no more"
