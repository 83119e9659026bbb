"""Runs a module of the package that this file lies in: `python -P launcher.py MODULE ARGUMENTS`.

A process started by `-m` takes the current folder for the first place to import from, and an installed rnnbench may
hide behind another on the path. Here the package is loaded from its folder, which is not put on the path: what lies
beside it hides nothing either. The file is run before the package can be imported, so it imports none of it.
"""

from __future__ import annotations

import os
import runpy
import sys
from importlib.util import module_from_spec, spec_from_file_location


def load_package() -> None:
    """Make `import rnnbench` find this one, in place of any that a hook of the interpreter has imported already."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for name in [name for name in sys.modules if name.partition(".")[0] == "rnnbench"]:
        del sys.modules[name]
    spec = spec_from_file_location("rnnbench", os.path.join(home, "__init__.py"), submodule_search_locations=[home])
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules["rnnbench"] = module_from_spec(spec)
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load_package()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
