"""A side of a comparison that measures nothing: `python fake_side.py NAME TREE` does what TREE/plan.json says.

case -> {"ns": its time, "noise": relative deviation, "answer": {}, "raises": a message, "dies_at": "prepare" or "turn"}
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
from pathlib import Path

plan = json.loads((Path(sys.argv[2]) / "plan.json").read_text())
with (Path(sys.argv[2]) / "starts").open("a+") as starts:  # each launch has a chance of its own
    rng = random.Random(f"{sys.argv[1]} {starts.write('x') and starts.tell()}")
channel = socket.socket(fileno=int(os.environ["RNNBENCH_CHANNEL"]))


def answer(reply):
    channel.sendall(json.dumps(reply).encode() + b"\n")


for line in channel.makefile("rb"):
    request = json.loads(line)
    case = plan[request["case"]]
    if case.get("dies_at") == request["op"]:
        os._exit(7)
    if message := case.get("raises"):
        answer({"ok": False, "kind": "error", "reason": message})
    elif request["op"] == "prepare":
        answer({"ok": True, "answer": case.get("answer", {"loss": 0.5})})
    else:
        samples = [int(case["ns"] * rng.lognormvariate(0, case.get("noise", 0.05))) for _ in range(8)]
        answer({"ok": True, "samples_ns": samples})
