"""Attacks on a running cloud. `make test` runs a bounded part of each, `make attack` all of it."""

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))

FULL = os.environ.get("WOLKE_ATTACK") == "full"


@pytest.fixture(scope="session")
def scale():
    """`scale(bounded, full)`: the first number in `make test`, the second one in `make attack`."""
    return lambda bounded, full: full if FULL else bounded


@pytest.fixture
def tally(request):
    """`tally(what=count, …)`: the counts of an attack. They are printed; WOLKE_ATTACK_REPORT names a file that collects them."""

    def record(**counts):
        report = os.environ.get("WOLKE_ATTACK_REPORT")
        if report:
            with open(report, "a") as file:
                file.write(json.dumps({"attack": request.node.name, **counts}) + "\n")
        print(request.node.name, *(f"{name}={count}" for name, count in counts.items()))

    return record
