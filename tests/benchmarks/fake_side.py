"""A side of a comparison that measures nothing: `python fake_side.py NAME TREE` does what TREE/plan.json says.

case -> {"ns": its time, "noise": relative deviation, "answer": {}, "raises": a message, "dies_at": "prepare" or "turn"}
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

plan = json.loads((Path(sys.argv[2]) / "plan.json").read_text())
rng = random.Random(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    case = plan[request["case"]]
    if case.get("dies_at") == request["op"]:
        os._exit(7)
    if message := case.get("raises"):
        print(json.dumps({"ok": False, "kind": "error", "reason": message}), flush=True)
    elif request["op"] == "prepare":
        print(json.dumps({"ok": True, "answer": case.get("answer", {"loss": 0.5})}), flush=True)
    else:
        samples = [int(case["ns"] * rng.lognormvariate(0, case.get("noise", 0.05))) for _ in range(8)]
        print(json.dumps({"ok": True, "samples_ns": samples}), flush=True)
