"""Backends that fail in one way each, for the tests of the checks and of the harness. They compute with NumPy."""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from rnnbench import backends
from rnnbench.backends.base import Outputs, Session
from rnnbench.backends.numpy import NumpyBackend, NumpySession, Stepper
from rnnbench.model import Truncation


def made_of(session: type[NumpySession]) -> type[NumpyBackend]:
    class Faulty(NumpyBackend):
        def _prepare(self, problem, params, data) -> Session:
            return session(problem, params, data)

    return Faulty


class ScaledGradient(NumpySession):
    def _gradient(self, batch, state):
        grads = super()._gradient(batch, state)
        for g in grads.values():
            g *= 1.001
        return grads


class SwappedWeights(NumpySession):
    def reset(self):
        super().reset()
        self.params["W_hh"] = self.params["W_hh"].T.copy()


class MissingBias(NumpySession):
    def reset(self):
        super().reset()
        self.params["b_y"] = self.params["b_y"] * 0 + 0.01


class TruncationOffByOne(NumpySession):
    def __init__(self, problem, params, data):
        cut = problem.truncation or Truncation(problem.T, problem.T)
        super().__init__(
            replace(problem, truncation=Truncation(cut.window - 1, min(cut.stride, cut.window - 1))), params, data
        )


class NoUpdate(NumpySession):
    """Trains on a gradient that it forgets to clip."""

    def _train_step(self, batch, state):
        grads = self._gradient(batch, state)
        self.stepper.update(self.params, grads)
        self.outputs = replace(self.outputs, grads={}, params=self.params)


class ForgetsMoments(NumpySession):
    """Each step is Adam's first."""

    def _train_step(self, batch, state):
        super()._train_step(batch, state)
        self.stepper = Stepper(self.problem.train, self.params)


class SwappedBetas(NumpySession):
    """Adam with one beta in the place of the other; its first step is the same."""

    def reset(self):
        super().reset()
        train = self.problem.train
        self.stepper = Stepper(replace(train, beta_1=train.beta_2, beta_2=train.beta_1), self.params)


class SameBatch(NumpySession):
    """Trains on its first batch for ever."""

    def select(self, batch):
        super().select(0)


class DropsShortBatch(NumpySession):
    """An epoch ends with its last whole batch."""

    def _train_epoch(self, order):
        super()._train_epoch(order[: max(1, len(order) // self.problem.B) * self.problem.B])


class StaleAnswer(NumpySession):
    """Gives the answer to the batch before."""

    def fetch(self) -> Outputs:
        outputs = super().fetch()
        return replace(outputs, loss=getattr(self, "last", 0.7))

    def forward(self):
        self.last = self.outputs.loss or 0.7
        super().forward()


class KilledInTurn(NumpySession):
    """Dies by SIGKILL in the fourth gradient."""

    calls = 0

    def gradient(self):
        super().gradient()
        KilledInTurn.calls += 1
        if KilledInTurn.calls == 4:
            os.kill(os.getpid(), signal.SIGKILL)


class EndedByNamelessSignal(NumpySession):
    """Dies by signal 35, one of those for real time, in the fourth gradient."""

    calls = 0

    def gradient(self):
        super().gradient()
        EndedByNamelessSignal.calls += 1
        if EndedByNamelessSignal.calls == 4:
            os.kill(os.getpid(), 35)


class HangsInTurn(NumpySession):
    calls = 0

    def gradient(self):
        super().gradient()
        HangsInTurn.calls += 1
        if HangsInTurn.calls == 4:
            time.sleep(1000)


class RaisesInGradient(NumpySession):
    def gradient(self):
        raise RuntimeError("the kernel has no such step")


class RunsOutOfMemory(NumpySession):
    def gradient(self):
        raise MemoryError("cannot allocate 64 GiB")


class Compiles(NumpySession):
    """Takes RNNBENCH_TEST_COMPILES seconds longer for the first gradient of a process."""

    compiled = False

    def _gradient(self, batch, state):
        if not Compiles.compiled:
            time.sleep(float(os.environ["RNNBENCH_TEST_COMPILES"]))
            Compiles.compiled = True
        return super()._gradient(batch, state)


class CompilesEarly(NumpySession):
    """Takes RNNBENCH_TEST_COMPILES seconds longer to prepare."""

    def __init__(self, problem, params, data):
        time.sleep(float(os.environ["RNNBENCH_TEST_COMPILES"]))
        super().__init__(problem, params, data)


class Slow(NumpySession):
    def forward(self):
        time.sleep(0.02)
        super().forward()


class Busy(NumpySession):
    """Loops for RNNBENCH_TEST_BUSY times the length of each forward after it."""

    def forward(self):
        start = time.perf_counter()
        super().forward()
        now = time.perf_counter()
        end = now + float(os.environ["RNNBENCH_TEST_BUSY"]) * (now - start)
        while time.perf_counter() < end:
            pass


class Sleeper(NumpySession):
    """Its clocks say that the machine slept for an hour in the second forward, and was set back in the sixth."""

    calls = 0
    jumps: ClassVar = {2: {"CLOCK_BOOTTIME": 3600, "CLOCK_REALTIME": 3600}, 6: {"CLOCK_REALTIME": -50}}

    def forward(self):
        super().forward()
        Sleeper.calls += 1
        if jump := self.jumps.get(Sleeper.calls):
            truth, ahead = time.clock_gettime_ns, {getattr(time, name): s * 10**9 for name, s in jump.items()}
            time.clock_gettime_ns = lambda which: truth(which) + ahead.get(which, 0)


class FullDisk(NumpySession):
    """Finds no room for its answer to the gradient, while the file of RNNBENCH_TEST_FULL is there."""

    def gradient(self):
        super().gradient()
        if os.path.exists(os.environ["RNNBENCH_TEST_FULL"]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "scratch")


def threads() -> int:
    return int(os.environ["OMP_NUM_THREADS"])


class SlowerTogether(NumpySession):
    """Each pass takes 16 ms by several threads and 1 ms by one; RNNBENCH_TEST_TURNED: the reverse."""

    def _take(self, alone: float, together: float) -> None:
        if "RNNBENCH_TEST_TURNED" in os.environ:
            alone, together = together, alone
        time.sleep(together if threads() > 1 else alone)

    def forward(self):
        self._take(0.001, 0.016)
        super().forward()

    def gradient(self):
        self._take(0.001, 0.016)
        super().gradient()

    def train_step(self):
        self._take(0.001, 0.016)
        super().train_step()

    def _train_epoch(self, order):
        self._take(0.001, 0.016)
        super()._train_epoch(order)


class FasterTogether(SlowerTogether):
    """The reverse of `SlowerTogether`."""

    def _take(self, alone: float, together: float) -> None:
        super()._take(together, alone)


class EpochFailsAlone(SlowerTogether):
    def epoch_of(self, order):
        if threads() == 1:
            raise RuntimeError("no epoch by one")
        return super().epoch_of(order)


class RaisesTogether(NumpySession):
    """Its gradient fails by several threads; RNNBENCH_TEST_TURNED: by one."""

    def gradient(self):
        if (threads() > 1) != ("RNNBENCH_TEST_TURNED" in os.environ):
            raise RuntimeError("the parts do not fit together")
        super().gradient()


class WrongTogether(NumpySession):
    """Threads that add to the same sum: by several, its gradient is a little off."""

    def _gradient(self, batch, state):
        grads = super()._gradient(batch, state)
        if threads() > 1:
            for g in grads.values():
                g *= 1.001
        return grads


class DiesTogether(NumpySession):
    """By several threads it dies in its third forward."""

    calls = 0

    def forward(self):
        super().forward()
        DiesTogether.calls += 1
        if DiesTogether.calls == 3 and threads() > 1:
            os.kill(os.getpid(), signal.SIGKILL)


class RaisesAnyway(NumpySession):
    def gradient(self):
        raise RuntimeError(f"no gradient by {threads()}")


class RaisesOnImport(NumpyBackend):
    def __init__(self):
        raise ImportError("libfast.so.3: cannot open shared object file")


class HangsInThirdStart(NumpyBackend):
    """Starts are counted in the file that RNNBENCH_TEST_STARTS names."""

    def __init__(self):
        with open(os.environ["RNNBENCH_TEST_STARTS"], "ab") as file:
            file.write(b".")
        if os.path.getsize(os.environ["RNNBENCH_TEST_STARTS"]) > 2:
            time.sleep(1000)


class UnsupportedEpoch(NumpyBackend):
    def unsupported(self, case):
        return "it has no epochs" if case.pass_ == "epoch" else None


class NoDevice(NumpyBackend):
    def unavailable(self):
        return "no device can be used: there is no driver"


class Chatty(NumpyBackend):
    """Prints where the replies go."""

    def _prepare(self, problem, params, data):
        print("hello from a library that prints")
        os.write(1, b"and from its C code\n")
        return super()._prepare(problem, params, data)


class Hungry(NumpySession):
    """Takes and touches 64 MiB for the length of a forward, 16 MiB while it is prepared."""

    def __init__(self, problem, params, data):
        np.ones(16 << 20, np.uint8)
        super().__init__(problem, params, data)

    def forward(self):
        np.ones(64 << 20, np.uint8)
        super().forward()


class WrongState(NumpySession):
    """One number of the last state is a little off."""

    def fetch(self) -> Outputs:
        outputs = super().fetch()
        for state in outputs.states.values():
            state[0, 0] += 1e-3
        return outputs


class WrongLoss(NumpySession):
    """The loss of each pass but the forward one is a little off."""

    def fetch(self) -> Outputs:
        outputs = super().fetch()
        return replace(outputs, loss=outputs.loss * 1.001) if outputs.grads or outputs.params else outputs


class WrongParameter(NumpySession):
    """A parameter does not move."""

    def fetch(self) -> Outputs:
        outputs = super().fetch()
        params = outputs.params and outputs.params | {"b_h": outputs.params["b_h"] * 0}
        return replace(outputs, params=params)


class SwappedGates(NumpySession):
    """The recurrent matrix with one gate in the place of another."""

    def reset(self):
        super().reset()
        gates = len(self.problem.model.recurrence.gates)
        parts = np.split(self.params["W_hh"], gates, axis=1)
        self.params["W_hh"] = np.concatenate([parts[1], parts[0], *parts[2:]], axis=1)


class Rounds(NumpySession):
    """Right, but for the last bits of its answers."""

    def _off(self, value):
        return value * (1 + 2.0**-52)

    def fetch(self) -> Outputs:
        outputs = super().fetch()
        return replace(
            outputs,
            logits=None if outputs.logits is None else self._off(outputs.logits),
            grads={name: self._off(g) for name, g in outputs.grads.items()},
            params={name: self._off(p) for name, p in outputs.params.items()},
        )


class Jitters(Rounds):
    """Right, but for last bits that are others each time, as where threads add in any order."""

    rng = np.random.default_rng()

    def _off(self, value):
        return value * (1 + 2.0**-50 * self.rng.standard_normal(value.shape))


def _backend(name):
    return lambda: made_of(name)()


WRONG = {
    "scaled": ScaledGradient,
    "swapped": SwappedWeights,
    "no-bias": MissingBias,
    "off-by-one": TruncationOffByOne,
    "no-clip": NoUpdate,
    "stale": StaleAnswer,
    "forgets-moments": ForgetsMoments,
    "swapped-betas": SwappedBetas,
    "same-batch": SameBatch,
    "drops-short-batch": DropsShortBatch,
}
SESSIONS = WRONG | {
    "killed": KilledInTurn,
    "signal-35": EndedByNamelessSignal,
    "hangs": HangsInTurn,
    "raises": RaisesInGradient,
    "memory": RunsOutOfMemory,
    "compiles": Compiles,
    "compiles-early": CompilesEarly,
    "slow": Slow,
    "busy": Busy,
    "sleeper": Sleeper,
    "full-disk": FullDisk,
    "hungry": Hungry,
}
BACKENDS = {
    "bad-import": "RaisesOnImport",
    "third-start": "HangsInThirdStart",
    "no-epoch": "UnsupportedEpoch",
    "no-device": "NoDevice",
    "chatty": "Chatty",
    "single": "SingleThreaded",
}

# In the first two processes right; starts are counted in the file that RNNBENCH_TEST_STARTS names.
LATE = WRONG | {
    "wrong-state": WrongState,
    "wrong-loss": WrongLoss,
    "wrong-parameter": WrongParameter,
    "swapped-gates": SwappedGates,
    "rounds": Rounds,
    "jitters": Jitters,
}


def _late(session: type[NumpySession]) -> type[NumpyBackend]:
    class Late(NumpyBackend):
        def __init__(self):
            with open(os.environ["RNNBENCH_TEST_STARTS"], "ab") as file:
                file.write(b".")
            self.late = os.path.getsize(os.environ["RNNBENCH_TEST_STARTS"]) > 2

        def _prepare(self, problem, params, data) -> Session:
            return (session if self.late else NumpySession)(problem, params, data)

    return Late


for _name, _session in LATE.items():
    globals()[f"backend_late-{_name}"] = _late(_session)
SESSIONS["jitters"] = Jitters
for _name, _session in SESSIONS.items():
    globals()[f"backend_{_name}"] = made_of(_session)


def _threaded(session: type[NumpySession], most: int = 1000) -> type[NumpyBackend]:
    """A backend with as many threads as its process is told, but no more than it can use."""

    class Threaded(made_of(session)):
        def contract(self, problem):
            return replace(super().contract(problem), threads=min(most, threads()))

    return Threaded


THREADED = {
    "slower-together": SlowerTogether,
    "faster-together": FasterTogether,
    "raises-together": RaisesTogether,
    "wrong-together": WrongTogether,
    "dies-together": DiesTogether,
    "raises-anyway": RaisesAnyway,
    "epoch-fails-alone": EpochFailsAlone,
}
for _name, _session in THREADED.items():
    globals()[f"backend_{_name}"] = _threaded(_session)
SingleThreaded = _threaded(NumpySession, most=1)


def register(registry: dict[str, backends.Entry]) -> str:
    """Add all of them to a registry. The PYTHONPATH by which workers find them."""
    for name in (*SESSIONS, *THREADED, *(f"late-{name}" for name in LATE)):
        registry[name] = backends.Entry(f"tests.faulty:backend_{name}", (), None, "faulty")
    for name, attribute in BACKENDS.items():
        registry[name] = backends.Entry(f"tests.faulty:{attribute}", (), None, "faulty")
    registry["absent"] = backends.Entry("tests.faulty:None", ("no_such_module_here",), "torch", "faulty")
    root = Path(__file__).resolve().parents[1]
    return os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
