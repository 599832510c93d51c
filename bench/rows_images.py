"""Rows of the Image service: the data of an image up and down, against nginx with the same file and the same client."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import time

from cloud import Cloud, pss_kib
from load import call, wait_for
from measure import Row, Size, interleave, ratio_row

MIB = 1 << 20

# `sendfile` and one process: what one client can get from it at best.
NGINX = """
user root;
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    sendfile on;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/unused;
    fastcgi_temp_path {directory}/unused;
    uwsgi_temp_path {directory}/unused;
    scgi_temp_path {directory}/unused;
    server {{ listen 127.0.0.1:{port}; root {directory}/files; dav_methods PUT; }}
}}
"""


@contextlib.contextmanager
def nginx(cloud: Cloud):
    """nginx on the file system of the image store; gives its URL and the directory of its files."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="bench-nginx.", dir=cloud.state))
    port = 18180 + cloud.offset % 1000
    (directory / "files").mkdir()
    (directory / "files" / "ready").write_text("ready\n")
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory, port=port))
    process = subprocess.Popen(["/usr/sbin/nginx", "-c", directory / "nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/ready")
        yield f"http://127.0.0.1:{port}", directory / "files"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory)


def curl(*arguments, status: set[int]) -> float:
    """Seconds of one request; raises for another status."""
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{time_total}", "-H", "Expect:", *arguments]
    code, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if int(code) not in status:
        raise RuntimeError(f"{arguments[-1]}: {code}")
    return float(seconds)


class Images:
    """The Image service as its member `demo` sees it."""

    def __init__(self, cloud: Cloud):
        self.base = cloud.url("image") + "/v2/images"
        self.headers = {"X-Auth-Token": cloud.token("demo")}

    def create(self) -> str:
        body = {"name": "bench", "disk_format": "raw", "container_format": "bare"}
        return call("POST", self.base, body, headers=self.headers)[2]["id"]

    def delete(self, image: str) -> None:
        call("DELETE", f"{self.base}/{image}", headers=self.headers)

    def transfer(self, image: str, *arguments) -> list:
        """curl's arguments for the data of an image."""
        return [*arguments, "-H", f"X-Auth-Token: {self.headers['X-Auth-Token']}", "-H", "Content-Type: application/octet-stream",
                f"{self.base}/{image}/file"]


@contextlib.contextmanager
def file_of(cloud: Cloud, mebibytes: int):
    """A file of random bytes, so that nothing on the way can be compressed or left out as a hole."""
    with tempfile.NamedTemporaryFile(dir=cloud.state, prefix="bench-image.") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(MIB))
        file.flush()
        yield pathlib.Path(file.name)


def transfers(cloud: Cloud, size: Size) -> list[Row]:
    mebibytes = 16 if size.short else 256
    images = Images(cloud)
    with file_of(cloud, mebibytes) as file, nginx(cloud) as (bare, files):
        kept = images.create()
        curl(*images.transfer(kept, "-T", file), status={204})
        shutil.copy(file, files / "image")

        def upload() -> float:
            image = images.create()
            try:
                return mebibytes / curl(*images.transfer(image, "-T", file), status={204})
            finally:
                images.delete(image)

        def put() -> float:
            (files / "put").unlink(missing_ok=True)
            return mebibytes / curl("-T", file, f"{bare}/put", status={201})

        try:
            up = interleave(upload, put, size.repetitions)
            down = interleave(
                lambda: mebibytes / curl(*images.transfer(kept), status={200}),
                lambda: mebibytes / curl(f"{bare}/image", status={200}), size.repetitions)
        finally:
            images.delete(kept)
    rows = [
        ratio_row("M40", "upload of an image ÷ nginx (PUT), same file and client", up, "0.8", "0.95", "MiB/s"),
        ratio_row("M41", "download of an image ÷ nginx, same file and client", down, "0.8", "0.95", "MiB/s"),
    ]
    for row in rows:
        row.details += f"; {mebibytes} MiB"
    return rows


def memory_of_uploads(cloud: Cloud, size: Size) -> Row:
    """Ten uploads at once, slow enough that all of them run at the same time."""
    mebibytes, rate = (4, "4M") if size.short else (64, "8M")
    images = Images(cloud)
    processes = cloud.processes()["wolke-image"]

    def resident() -> float:
        return sum(map(pss_kib, processes)) / 1024

    before = resident()
    peak = [before]
    ended = threading.Event()

    def watch():
        while not ended.wait(0.05):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    made = [images.create() for _ in range(10)]
    try:
        with file_of(cloud, mebibytes) as file:
            begun = time.monotonic()
            uploads = [
                subprocess.Popen(["curl", "-sSf", "-o", "/dev/null", "--limit-rate", rate, *images.transfer(image, "-T", file)])
                for image in made
            ]
            failed = sum(upload.wait() != 0 for upload in uploads)
            seconds = time.monotonic() - begun
    finally:
        ended.set()
        watcher.join()
        for image in made:
            images.delete(image)
    if failed:
        raise RuntimeError(f"{failed} of {len(made)} uploads failed")
    details = f"{before:.0f} MB before, {10 * mebibytes} MiB in {seconds:.1f} s"
    return Row("M42", "memory (PSS) of wolke-image while ten uploads run", f"{peak[0]:.0f} MB", "100 MB", "50 MB", details)


ROWS = {"m40": transfers, "m42": memory_of_uploads}
