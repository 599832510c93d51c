"""count-results.py BROKEN FILE…: prints "N passed, N failed" over JUnit XML files; exit code 1 unless all is well.

BROKEN is 1 when a part of the run ended badly; if no file then counts a failure, that is counted as one.
"""

import sys
import xml.etree.ElementTree as ElementTree


def main() -> int:
    broken = sys.argv[1] == "1"
    passed = failed = skipped = 0
    for path in sys.argv[2:]:
        try:
            cases = list(ElementTree.parse(path).getroot().iter("testcase"))
        except (OSError, ElementTree.ParseError) as error:
            print(f"unreadable test report {path}: {error}")
            broken = True
            continue
        for case in cases:
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
                print(f"FAILED {case.get('classname', '')}/{case.get('name', '')}")
            elif case.find("skipped") is not None:
                skipped += 1
            else:
                passed += 1
    if broken and failed == 0:
        failed = 1
        print("FAILED a part of the run ended before it could report (see above)")
    if passed + failed == 0:
        failed = 1
    if skipped:
        print(f"{skipped} skipped")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
