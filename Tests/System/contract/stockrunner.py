"""Runs many `openstack` commands in one process: starting Python for each would take most of the time.

Standard input: {"cloud": name, "lines": [command, …]}; standard output: {command: [exit code, output, errors], …}.
One process serves one cloud, because the client keeps connections in its classes.

`stockrunner.py serve CLOUD` reads a command per line, as a list of words, and answers each with a line [exit code, output, errors].
"""

import contextlib
import io
import json
import shlex
import sys
import time
import traceback

from openstackclient.shell import OpenStackShell

# Verbs that print an object or a list.
FORMATTED = {"create", "show", "list", "issue"}
PLAIN = ("console log show", "resource class create", "trait create")


def run(cloud, line):
    """`until WORD COMMAND` runs a command until its output has the word, for at most a minute."""
    if line.startswith("until "):
        _, word, command = line.split(" ", 2)
        end = time.monotonic() + 60
        while word not in (answer := run_once(cloud, command))[1] and time.monotonic() < end:
            time.sleep(0.5)
        return answer if word in answer[1] else [1, answer[1], f"no {word} within a minute"]
    return run_once(cloud, line)


def run_once(cloud, line):
    words = shlex.split(line)
    format = ["-f", "json"] if FORMATTED & set(words) and not line.startswith(PLAIN) else []
    return run_words(["--os-cloud", cloud, "--os-placement-api-version", "1.39", *words, *format])


def run_words(words):
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            code = OpenStackShell().run(words)
        except SystemExit as end:
            code = end.code
        except Exception:
            traceback.print_exc()
            code = 255
    return [code, output.getvalue(), errors.getvalue()]


if sys.argv[1:2] == ["serve"]:
    for text in sys.stdin:
        print(json.dumps(run_words(["--os-cloud", sys.argv[2], *json.loads(text)])), flush=True)
else:
    request = json.load(sys.stdin)
    answers = {line: run(request["cloud"], line) for line in request["lines"]}
    json.dump(answers, sys.stdout)
