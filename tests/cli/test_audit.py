"""`list --contract` and `verify --audit`, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys

from rnnbench.api.audit import Audited
from rnnbench.contract import Contract
from rnnbench.correctness.timing_audit import Finding
from rnnbench.model import DType, Pass
from tests.calling import called


def test_a_contract_tells_each_pass_and_all_that_stands_behind_a_number():
    done = called("list", "--contract", "-b", "numpy", "-w", "parity", "--dtype", "float64", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["problem"]["workload"] == "parity"
    told = found["backends"]["numpy"]
    assert set(told["contract"]) == set(Contract.__dataclass_fields__)
    assert set(told["contract"]["timed"]) == {str(p) for p in Pass}
    assert told["dtype"] == "float64"
    assert told["libraries"]["numpy"]


def test_faulty_backends_say_why_they_have_no_contract():
    command = [sys.executable, "-m", "tests.driver", "list", "--contract", "-b", "numpy,absent,bad-import,no-device"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["backends"]
    assert told["numpy"]["contract"]
    assert "not installed" in told["absent"]["missing"]
    assert "libfast.so.3" in told["bad-import"]["missing"]
    assert "no driver" in told["no-device"]["missing"]


def test_options_that_would_do_nothing_are_refused():
    done = called("list", "-w", "parity")
    assert done.exit_code == 2
    assert "--workload belongs to --contract; give that too" in done.stderr
    done = called("verify", "--audit", "-w", "parity")
    assert done.exit_code == 2
    assert "leave out: --workload" in done.stderr


def test_an_audit_has_a_line_for_each_check():
    done = called("verify", "--audit", "-b", "numpy", "--pass", "forward", "--threads", "1")
    assert done.exit_code == 0, done.output
    for check in ("answers anew", "no memory", "nothing outstanding", "threads", "subnormals"):
        assert check in done.stdout
    assert "8 of 8 findings are within their limits." in done.stdout


def test_an_audit_that_found_something_ends_with_1():
    good, bad = (Finding("no memory", Pass.FORWARD, value, 0.5, "saved") for value in (0.1, 0.9))
    assert Audited({("numpy", DType.FLOAT32): [good]}, {"jax": "not installed"}, {}).code == 0
    assert Audited({("numpy", DType.FLOAT32): [good, bad]}, {}, {}).code == 1
    assert Audited({("numpy", DType.FLOAT32): [good]}, {}, {"jax": "crashed"}).code == 1
    assert Audited({}, {"jax": "not installed"}, {}).code == 3
