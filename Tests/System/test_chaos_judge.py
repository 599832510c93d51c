"""The judge of `make chaos`: its behaviour while the cloud cannot answer yet. Needs no cloud."""

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "Chaos"))

import chaos


def test_the_judge_waits_for_a_database_that_recovers():
    answers = [
        AssertionError("psql: FATAL: the database system is starting up"), subprocess.TimeoutExpired("psql", 60),
        ["postgres is starting"], [], ["never asked"],
    ]

    def question():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert chaos.judge(question, time.monotonic() + 60, pause=0) == []
    assert answers == [["never asked"]]


def test_a_database_that_never_answers_is_a_violation():
    def question():
        raise AssertionError("the database system is starting up")

    assert chaos.judge(question, time.monotonic(), pause=0) == ["no answer: the database system is starting up"]


def test_a_doctor_that_hangs_is_a_violation():
    class Cloud:
        def osctl(self, *arguments, **options):
            raise subprocess.TimeoutExpired("osctl doctor", 120)

    assert "timed out" in chaos.doctor(Cloud())[0]
