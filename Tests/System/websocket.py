"""A WebSocket (RFC 6455) of the standard library alone, for consoles."""

import base64
import os
import socket
import struct
import time
from urllib.parse import parse_qs, urlsplit


class Refused(Exception):
    """The server did not upgrade; `status` is its answer."""

    def __init__(self, status):
        super().__init__(f"HTTP {status}")
        self.status = status


class WebSocket:
    def __init__(self, url, origin=None, timeout=30):
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        target = "/" + query["path"][0] if "path" in query else f"/?{parts.query}"
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout)
        head = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Protocol: binary"]
        if origin:
            head.append(f"Origin: {origin}")
        self.socket.sendall("\r\n".join([*head, "", ""]).encode())
        self.stream = self.socket.makefile("rb")
        status = int(self.stream.readline().split()[1])
        while self.stream.readline() not in (b"\r\n", b""):
            pass
        if status != 101:
            self.close()
            raise Refused(status)
        self.data = b""
        self.reason = None

    def send(self, payload, opcode=2):
        size, mask = len(payload), os.urandom(4)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
        self.socket.sendall(bytes([0x80 | opcode]) + length + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)))

    def receive(self):
        """The data of the next frame with data; nothing at the end, whose reason is then in `reason`."""
        while True:
            head = self.stream.read(2)
            if len(head) < 2:
                return b""
            size = head[1] & 127
            if size == 126:
                size = struct.unpack("!H", self.stream.read(2))[0]
            elif size == 127:
                size = struct.unpack("!Q", self.stream.read(8))[0]
            payload, opcode = self.stream.read(size), head[0] & 15
            if opcode == 8:
                self.reason = (struct.unpack("!H", payload[:2])[0], payload[2:].decode())
                return b""
            if opcode == 9:
                self.send(payload, opcode=10)
            elif payload:
                return payload

    def read(self, count):
        """Exactly `count` bytes."""
        while len(self.data) < count:
            more = self.receive()
            assert more, f"the console ended: {self.reason}"
            self.data += more
        found, self.data = self.data[:count], self.data[count:]
        return found

    def until(self, text, limit=60):
        """What arrives up to and including `text`."""
        end = time.monotonic() + limit
        while text not in self.data:
            assert time.monotonic() < end, f"{text} is not in {self.data[-500:]}"
            more = self.receive()
            assert more, f"the console ended: {self.reason}"
            self.data += more
        at = self.data.index(text) + len(text)
        found, self.data = self.data[:at], self.data[at:]
        return found

    def close(self):
        self.socket.close()
