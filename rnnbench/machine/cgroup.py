"""The control groups of this process: where their files are, and how long they held it back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")


def text_in(path: Path) -> str | None:
    """The text of a small file of the system, or None where it is missing, empty or may not be read."""
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def group_folders(controller: str, root: Path = ROOT) -> tuple[int, list[Path]]:
    """The version of the interface (2, else 1), and the folders of a process's group and of those above it.

    A container may see none but the mount itself.
    """
    groups, mount = _groups(root / "proc/self/cgroup"), root / "sys/fs/cgroup"
    if "" in groups and os.path.exists(mount / "cgroup.controllers"):
        return 2, _upwards(mount, groups[""])
    return 1, _upwards(mount / controller, groups.get(controller, "/"))


def _groups(path: Path) -> dict[str, str]:
    """Controller -> path of this process's group; "" for version 2."""
    found: dict[str, str] = {}
    for line in (text_in(path) or "").splitlines():
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if group:
            found |= dict.fromkeys(controllers.split(","), group)
    return found


def _upwards(mount: Path, group: str) -> list[Path]:
    folder = mount / group.lstrip("/")
    return [path for path in (folder, *folder.parents) if path.is_relative_to(mount) and os.path.isdir(path)]


class Throttled(NamedTuple):
    """What quotas of processor time have cost so far: in how many periods, and nanoseconds of all cores together."""

    periods: int
    ns: int


def throttling_files(root: Path = ROOT) -> list[Path]:
    """The `cpu.stat` of each group that counts how long its quota held it back."""
    return [file for folder in group_folders("cpu", root)[1] if _throttled_in(file := folder / "cpu.stat") is not None]


def throttled(files: Sequence[Path]) -> Throttled | None:
    """Of this process's group and those above it, each by its own quota; None where nothing is counted."""
    found = [counted for file in files if (counted := _throttled_in(file)) is not None]
    return Throttled(sum(f.periods for f in found), sum(f.ns for f in found)) if found else None


def _throttled_in(file: Path) -> Throttled | None:
    with suppress(ValueError, KeyError):
        said = dict(line.split(" ", 1) for line in (text_in(file) or "").splitlines())
        ns = int(said["throttled_usec"]) * 1000 if "throttled_usec" in said else int(said["throttled_time"])
        return Throttled(int(said["nr_throttled"]), ns)
    return None
