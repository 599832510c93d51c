"""Requests made from the services' own OpenAPI documents, valid, mutated and malformed (Tests/Fuzz)."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "Fuzz"))

from fuzz import Fuzzer  # noqa: E402


def test_s18_no_request_is_a_server_error(cloud, scale, tally):
    seed = int(os.environ.get("SEED", 1))
    fuzzer = Fuzzer(cloud.state, seed, is_shared=True)
    try:
        failures = fuzzer.run(seconds=scale(30, 900))
    finally:
        fuzzer.close()
    counts = fuzzer.counts
    tally(requests=sum(counts.values()), refused=sum(n for status, n in counts.items() if 400 <= status < 500), failures=len(failures))
    assert not failures, f"seed {seed}: {failures[:10]}"
    assert sum(counts.values()) > 1000, counts
    # There were both valid and invalid requests.
    assert sum(n for status, n in counts.items() if status < 300) > 20, counts
    assert counts.get(400, 0) > 50, counts
