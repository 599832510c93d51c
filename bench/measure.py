"""Ratios of two rates within one run: A-B-B-A, medians, a bootstrap interval, and probes that detect a noisy machine."""

import dataclasses
import hashlib
import random
import statistics
import time


@dataclasses.dataclass
class Ratio:
    """Ours divided by the peer, from interleaved pairs."""

    ours: list[float]
    peer: list[float]

    @property
    def value(self) -> float:
        return statistics.median(self._ratios())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the medians of resampled ratios."""
        ratios = self._ratios()
        generator = random.Random(7)
        medians = sorted(statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(500))
        return medians[12], medians[487]

    def _ratios(self) -> list[float]:
        return [ours / peer for ours, peer in zip(self.ours, self.peer)]


def interleave(ours, peer, repetitions: int) -> Ratio:
    """Runs both callables, which return a rate, in the order A-B-B-A as often as asked."""
    result = Ratio([], [])
    for index in range(repetitions):
        order = [(ours, result.ours), (peer, result.peer)]
        for run, rates in order if index % 2 == 0 else reversed(order):
            rates.append(run())
    return result


def hash_loop(seconds: float = 0.5) -> float:
    """SHA-256 blocks per second on one core: the calibration probe."""
    block = b"\0" * 4096
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        for _ in range(200):
            hashlib.sha256(block).digest()
        count += 200
    return count / seconds


@dataclasses.dataclass
class Row:
    """One line of the report."""

    name: str
    meaning: str
    value: str
    floor: str
    goal: str
    details: str


@dataclasses.dataclass
class Size:
    """The size of a measurement: full, or just enough to check that it works."""

    seconds: int
    repetitions: int
    short: bool = False

    def many(self, count: int) -> int:
        """A number of rows, hosts or the like; a fiftieth of it in the short form, with a minimum."""
        return max(count // 50, 20) if self.short else count


def ratio_row(name: str, meaning: str, ratio: Ratio, floor: str, goal: str, unit: str) -> Row:
    low, high = ratio.interval
    details = (
        f"95 % {low:.2f}–{high:.2f}; medians {statistics.median(ratio.ours):.0f} and "
        f"{statistics.median(ratio.peer):.0f} {unit}"
    )
    return Row(name, meaning, f"{ratio.value:.2f}", floor, goal, details)


def table(rows: list[Row]) -> str:
    lines = ["| Row | What | Measured | At least | Aim | Details |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [
        f"| {row.name} | {row.meaning} | **{row.value}** | {row.floor} | {row.goal} | {row.details} |" for row in rows
    ]
    return "\n".join(lines)
