"""Load generators: wrk for HTTP, pgbench for SQL. Programs are called with argument lists, never through a shell."""

import contextlib
import http.client
import json
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

PGBENCH = "/usr/lib/postgresql/15/bin/pgbench"


def wrk(url: str, *, headers: dict[str, str], seconds: int, connections: int, script: str | None = None) -> float:
    """Requests per second that were answered with 2xx; anything else is an error."""
    arguments = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    with contextlib.ExitStack() as stack:
        if script is not None:
            file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".lua"))
            file.write(script)
            file.flush()
            arguments += ["-s", file.name]
        for name, value in headers.items():
            arguments += ["-H", f"{name}: {value}"]
        output = subprocess.run([*arguments, url], check=True, capture_output=True, text=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if bad:
        raise RuntimeError(f"{url}: {bad.group(1)} answers were not 2xx")
    broken = re.search(r"Socket errors: (.*)", output)
    if broken:
        raise RuntimeError(f"{url}: {broken.group(0)}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1))


def pgbench(database: str, script: str, *, seconds: int, clients: int, variables: dict[str, str] | None = None) -> float:
    """Transactions per second of a script of SQL."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        arguments = [PGBENCH, "-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-T", str(seconds), "-f", file.name]
        for name, value in (variables or {}).items():
            arguments += ["-D", f"{name}={value}"]
        result = subprocess.run([*arguments, database], capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(f"pgbench: {result.stderr[:500]}")
        output = result.stdout
    failed = re.search(r"number of failed transactions: (\d+)", output)
    if failed and failed.group(1) != "0":
        raise RuntimeError(f"pgbench: {failed.group(1)} transactions failed")
    return float(re.search(r"tps = ([\d.]+)", output).group(1))


@contextlib.contextmanager
def serving(program: pathlib.Path, port: int, body: bytes):
    """The bare server with these bytes as its answer, while the block runs."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        process = subprocess.Popen([program, "serve", "--port", str(port), "--body", file.name])
        try:
            wait_for(f"http://127.0.0.1:{port}/")
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.wait()


def wait_for(url: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > end:
                raise
            time.sleep(0.002)


def latency(url: str, headers: dict[str, str], count: int) -> list[float]:
    """Durations of `count` GETs in seconds, one after the other on one connection."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    times = []
    for _ in range(count):
        begun = time.monotonic()
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        answer = connection.getresponse()
        answer.read()
        times.append(time.monotonic() - begun)
        if answer.status != 200:
            raise RuntimeError(f"{url}: {answer.status}")
    connection.close()
    return times


def call(method: str, url: str, body=None, *, headers: dict[str, str] | None = None):
    """One request; returns (headers, raw bytes, decoded JSON or None) and raises for anything but 2xx."""
    request = urllib.request.Request(url, method=method, headers={"Content-Type": "application/json", **(headers or {})})
    if body is not None:
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request, timeout=60) as answer:
        raw = answer.read()
        kind = answer.headers.get("content-type", "")
        return answer.headers, raw, json.loads(raw) if raw and "json" in kind else None
