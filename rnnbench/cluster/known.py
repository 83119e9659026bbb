"""Lines that arrive more than once, or of a turn that was measured twice, are kept once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from rnnbench.records import store
from rnnbench.records.record import Epoch, Record, TrainingRecord, TurnRecord

Item: TypeAlias = Record | Epoch | TrainingRecord
_DECODE: dict[str, Callable[[bytes], Item]] = {
    store.RECORDS: store.decode_record,
    store.CURVES: store.decode_epoch,
    store.TRAININGS: store.decode_training,
}


class Known:
    """The lines that are kept. The digest of a line is its id: no two measurements agree in all their nanoseconds."""

    def __init__(self) -> None:
        self.lines: set[bytes] = set()
        self.slots: set[tuple[object, ...]] = set()

    def add(self, file: str, line: bytes) -> Item | None:
        """The record or epoch of a line of that file, or None where it is known, its turn is, or it is damaged."""
        line = line.strip()
        digest = hashlib.blake2b(line, digest_size=16).digest()
        if digest in self.lines:
            return None
        try:
            item = _DECODE[file](line)
        except msgspec.DecodeError:  # left out, as in any report
            return None
        self.lines.add(digest)
        slot = _slot(item)
        if slot in self.slots:
            return None
        if slot:
            self.slots.add(slot)
        return item


def _slot(item: Item) -> tuple[object, ...] | None:
    """What is measured once only. A check belongs to a process, and a trial to a choice: of these there may be more."""
    if isinstance(item, TurnRecord):
        return item.case.key, item.backend, item.launch, item.round, item.attempt
    if isinstance(item, TrainingRecord):
        return item.case.key, item.until, item.backend, item.seeds.params, item.cache
    if isinstance(item, Epoch):
        return item.workload, item.backend, item.dtype, item.epoch
    return None
