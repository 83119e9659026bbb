"""What a release rests on: one version, a tag that is it, a workflow without tokens, a container without rights."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import rnnbench
from tests.calling import called

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / ".ci" / "package.py"
yaml = pytest.importorskip("yaml")


def workflow(name: str) -> dict[Any, Any]:
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())


def test_the_version_stands_once_and_is_told():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "rnnbench.__version__"}
    assert called("--version", code=0).output == f"rnnbench, version {rnnbench.__version__}\n"


def test_the_citation_is_of_this_project():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # what its format asks for
    assert str(cited["version"]) == rnnbench.__version__
    assert (cited["title"], cited["license"], cited["abstract"]) == (
        project["name"], project["license"], project["description"],
    )  # fmt: skip
    assert cited["authors"] == project["authors"]


@pytest.mark.parametrize(("tag", "code"), [(f"v{rnnbench.__version__}", 0), (rnnbench.__version__, 1), ("v9.9.9", 1)])
def test_a_tag_must_be_the_version(tag, code):
    done = subprocess.run([sys.executable, PACKAGE, "--tag", tag], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert (f"the version {rnnbench.__version__}; tag v{rnnbench.__version__}" in done.stderr) == bool(code)


def test_only_the_last_job_may_publish_and_all_come_before_it():
    release = workflow("release.yml")
    jobs = release["jobs"]
    assert release[True] == {"push": {"tags": ["v*"]}}  # `on`, which YAML reads as a truth
    assert release["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs.items() if job.get("permissions", {}).get("id-token")] == ["publish"]
    assert set(jobs["publish"]["needs"]) == jobs.keys() - {"publish"}
    assert jobs["publish"]["environment"]["name"] == "pypi"
    assert jobs["tests"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in workflow("ci.yml")[True]
    steps = [step.get("run", "") for step in jobs["build"]["steps"]]
    assert any("package.py --tag" in step for step in steps)
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text()


def test_the_container_has_what_the_build_needs_and_no_rights():
    lines = (ROOT / "Containerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["rnnbench"]
    assert not any(line.startswith("RUN") for line in lines[lines.index("USER rnnbench") :])
    copied = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml", "rnnbench"} <= copied
    (extra,) = re.findall(r'"/src\[(\w+)\]"', "\n".join(lines))
    assert extra in project["optional-dependencies"]
