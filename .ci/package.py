#!/usr/bin/env python3
"""Builds sdist and wheel, looks inside, installs the wheel where no repository is near, and runs it there.

    python .ci/package.py                 into an environment that finds the other packages in this one's
    python .ci/package.py --fresh         into one that gets them from the package index
    python .ci/package.py --tag v0.1.0    is the tag the version? Nothing is built

The wheel is built from the sdist, as pip does where there is no wheel. Needs git and the package `build`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
ALSO_IN_SDIST = {"pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "CHANGELOG.md", "CITATION.cff"}
MADE = ("PKG-INFO", "setup.cfg", "rnnbench.egg-info/")  # by the build


def version() -> str:
    """The version, where it stands: `rnnbench.__version__`. CITATION.cff must say the same."""
    found = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "rnnbench/__init__.py").read_text(), re.MULTILINE)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert found, "rnnbench/__init__.py has no line __version__"
    assert cited, "CITATION.cff has no line version"
    assert cited[1] == found[1], f"CITATION.cff is of version {cited[1]}, rnnbench of {found[1]}; they must be equal"
    return found[1]


def built(folder: Path) -> tuple[Path, Path]:
    """The sdist and the wheel."""
    call(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def look_inside(sdist: Path, wheel: Path, number: str) -> None:
    """Each file of the package that git knows is in both, and nothing else but what is named here."""
    package = set(call("git", "-C", ROOT, "ls-files", "rnnbench").split())
    assert len(package) > 200, f"git knows {len(package)} files of the package; this needs a checkout"
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if ".dist-info/" not in name}
        metadata = file.read(f"rnnbench-{number}.dist-info/METADATA").decode()
    same("the wheel", inside, package)
    assert f"\nVersion: {number}\n" in metadata
    with tarfile.open(sdist) as file:
        names = [PurePosixPath(member.name) for member in file if member.isfile()]
    inside = {str(name.relative_to(f"rnnbench-{number}")) for name in names}
    same("the sdist", {name for name in inside if not name.startswith(MADE)}, package | ALSO_IN_SDIST)


def same(what: str, inside: set[str], wanted: set[str]) -> None:
    """Both sets are equal."""
    lacking, more = sorted(wanted - inside), sorted(inside - wanted)
    assert not lacking, f"{what} lacks {', '.join(lacking)}; see package-data in pyproject.toml, and MANIFEST.in"
    assert not more, f"{what} has {', '.join(more)} too, which git does not know or MANIFEST.in leaves out"


def installed(wheel: Path, home: Path, *, fresh: bool) -> Path:
    """The programs of a new environment with the wheel."""
    call(sys.executable, "-m", "venv", *([] if fresh else ["--without-pip"]), home)
    programs = home / "bin"
    if fresh:
        call(programs / "python", "-I", "-m", "pip", "install", "--quiet", wheel)  # -I: nothing of PYTHONPATH counts
    else:
        (site,) = home.glob("lib/python*/site-packages")
        ours = [path for path in sys.path if path.endswith("site-packages")]
        (site / "packages.pth").write_text("".join(f"{path}\n" for path in ours))  # whose own .pth files are not read
        call(sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet", "--no-deps",
             "--no-index", wheel)  # fmt: skip
    return programs


def use(programs: Path, empty: Path, number: str) -> None:
    """What a user does first, in an empty folder and with a home of its own."""
    env = {"PATH": f"{programs}:{os.defpath}", "HOME": str(empty), "MPLCONFIGDIR": str(empty / "mpl")}

    def run(*arguments: object) -> str:
        return call(*arguments, cwd=empty, env=env)

    where = run("python", "-c", "import rnnbench; print(rnnbench.__version__, rnnbench.__file__)").split()
    assert where[0] == number, f"version {where[0]} is installed, {number} was built"
    assert Path(where[1]).is_relative_to(programs.parent), f"what is imported is {where[1]}, not what was installed"
    assert run("rnnbench", "--version") == f"rnnbench, version {number}\n"
    assert "imdb-synthetic-50" in run("rnnbench", "list")
    assert "kernels ready" in run("rnnbench", "warm")
    run("rnnbench", "run", "--quick", "-w", "parity", "-b", "numpy,numba", "-o", "run")
    for name in ("report.md", "report.html", "figures/time.png", "tables/times.csv", "records.jsonl"):
        assert (empty / "run" / name).stat().st_size > 1000, f"{name} is empty"
    assert f'"rnnbench": "{number}"' in (empty / "run" / "machine.json").read_text()


def call(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What a command prints; where it fails, that is shown and all ends."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}\nended with {done.returncode}")
    return done.stdout


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", action="store_true", help="install what the wheel needs as well")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="put sdist and wheel there")
    parser.add_argument("--no-run", action="store_true", help="build and look inside only")
    parser.add_argument("--tag", help="only compare a tag with the version")
    asked = parser.parse_args()
    number = version()
    if asked.tag is not None:
        sys.exit(None if asked.tag == f"v{number}" else f"the tag is {asked.tag}, the version {number}; tag v{number}")
    with tempfile.TemporaryDirectory(prefix="rnnbench-package-") as scratch:
        folder = Path(scratch)
        sdist, wheel = built(folder / "dist")
        look_inside(sdist, wheel, number)
        if not asked.no_run:
            (folder / "empty").mkdir()
            use(installed(wheel, folder / "venv", fresh=asked.fresh), folder / "empty", number)
        if asked.keep is not None:
            asked.keep.mkdir(parents=True, exist_ok=True)
            for path in (sdist, wheel):
                shutil.copy(path, asked.keep)
    print(
        f"rnnbench {number}: sdist and wheel are whole{'' if asked.no_run else ', and work where they are installed'}"
    )


if __name__ == "__main__":
    main()
