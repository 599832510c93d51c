"""Runs many `openstack` commands in one process: starting Python for each would take most of the time.

Standard input: {"cloud": name, "lines": [command, …]}; standard output: {command: [exit code, output, errors], …}.
One process serves one cloud, because the client keeps connections in its classes.
"""

import contextlib
import io
import json
import sys
import traceback

from openstackclient.shell import OpenStackShell


def run(cloud, line):
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            code = OpenStackShell().run(["--os-cloud", cloud, "--os-placement-api-version", "1.39", *line.split(), "-f", "json"])
        except SystemExit as end:
            code = end.code
        except Exception:
            traceback.print_exc()
            code = 255
    return [code, output.getvalue(), errors.getvalue()]


request = json.load(sys.stdin)
answers = {line: run(request["cloud"], line) for line in request["lines"]}
json.dump(answers, sys.stdout)
