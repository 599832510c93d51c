"""make bench: measures a running cloud and its peers, writes a report in Markdown."""

import argparse
import pathlib
import platform
import sys

import rows
from cloud import Cloud
from measure import Row, Size, hash_loop, table

DRIFT_MAX = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=pathlib.Path, required=True)
    parser.add_argument("--port-offset", type=int, default=0)
    parser.add_argument("--binaries", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--short", action="store_true", help="only show that every row can be measured")
    parser.add_argument("--only", action="append", choices=sorted(rows.ALL), help="rows; all when not given")
    parser.add_argument("--report", type=pathlib.Path)
    arguments = parser.parse_args()
    cloud = Cloud(arguments.state.resolve(), arguments.port_offset, arguments.binaries.resolve())
    size = Size(1, 1, short=True) if arguments.short else Size(arguments.seconds, arguments.repetitions)
    before = hash_loop()
    measured, broken = [], []
    for name in arguments.only or rows.ALL:
        print(f"{name} …", flush=True)
        try:
            found = rows.ALL[name](cloud, size)
        except Exception as error:  # a row that cannot be measured does not prevent the others
            broken.append(f"{name} could not be measured: {type(error).__name__}: {error}")
            continue
        for row in [found] if isinstance(found, Row) else found:
            measured.append(row)
            print(f"{row.name} {row.value} ({row.details})", flush=True)
    drift = abs(hash_loop() / before - 1)
    report = "\n".join(
        [
            table(measured),
            "",
            f"{platform.machine()}, {len(__import__('os').sched_getaffinity(0))} cores; "
            f"calibration drift {drift:.1%}" + (" (over 5 %: measure again)" if drift > DRIFT_MAX else ""),
            *broken,
        ]
    )
    print("\n" + report)
    if arguments.report:
        arguments.report.write_text(report + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
