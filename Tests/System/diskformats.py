"""Command lines of QEMU that open a disk without an explicit format, from libvirt's logs of a cloud's guests.

QEMU guesses the format of such a disk from its content, which the guest can change (CVE-2026-24708, CVE-2015-7548).
"""

import json

FORMATS = {"raw", "qcow2"}
PROTOCOLS = {"file", "host_device", "nbd"}
GUESSING = {"-hda", "-hdb", "-hdc", "-hdd", "-cdrom", "-fda", "-fdb", "-mtdblock", "-pflash", "-sd"}


def command_lines(text):
    """libvirt writes the program and each option with its value on a line of its own."""
    current = None
    for line in text.splitlines():
        goes_on = line.endswith(" \\")
        words = line.removesuffix(" \\")
        if current is None and "/qemu-system-" in words and " " not in words:
            current = [words]
        elif current is not None:
            option, _, value = words.partition(" ")
            current += [option] + ([value.strip("'")] if value else [])
        if not goes_on and current is not None:
            yield current
            current = None


def problems(arguments):
    found, nodes, used = [], {}, []
    for option, value in zip(arguments, arguments[1:] + [""]):
        if option in GUESSING or option == "-drive" and "file" in value and "format=" not in value:
            found.append(f"{option} {value}")
        if option == "-blockdev":
            node = json.loads(value)
            nodes[node["node-name"]] = node
        if option == "-device":
            options = json.loads(value) if value.startswith("{") else dict(each.partition("=")[::2] for each in value.split(","))
            if "drive" in options:
                used.append(options["drive"])
    for name, node in nodes.items():
        driver = node.get("driver")
        # Without the member "backing", QEMU opens the backing file that the disk names.
        if driver not in FORMATS | PROTOCOLS or driver == "qcow2" and "backing" not in node:
            found.append(f"{name}: {node}")
    return found + [f"a device uses {name}" for name in used if nodes.get(name, {}).get("driver") not in FORMATS]


def check(state):
    """Of all guests that have run in the cloud with the directory `state`."""
    logs = [*state.glob("libvirt/log/qemu/*.log*"), *state.glob("host-*/libvirt/log/qemu/*.log*")]
    lines = [line for log in logs for line in command_lines(log.read_text(errors="replace"))]
    found = [problem for line in lines for problem in problems(line)]
    assert found == [], found[:5]
    return lines
