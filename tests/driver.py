"""`python -m tests.driver ARGS`: the command line with the faulty backends in its registry.

What takes seconds and concerns no fault is left out: figures and the peak of the machine.
"""

from __future__ import annotations

import os
import resource

from rnnbench import backends
from rnnbench.api.run_session import RunSession
from rnnbench.report import page
from tests.faulty import register

os.environ["PYTHONPATH"] = register(backends.REGISTRY)

RunSession.look_for_peak = lambda self: None
page._figures = lambda *_: {}

if limit := os.environ.get("TEST_FILE_SIZE_LIMIT"):  # a full disk, as far as this process can see
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))

if __name__ == "__main__":
    from rnnbench.cli import main

    main()
