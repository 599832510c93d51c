"""count-results.py BROKEN FILE…: prints "N passed, N failed" over JUnit XML files; exit code 1 unless all passed.

count-results.py --hanging LOG: names the tests of a Swift Testing log that began and did not end.

BROKEN is 1 when a part of the run ended badly; if no file then counts a failure, that is counted as one.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree


def hanging(path: str) -> None:
    begun: list[str] = []
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in log:
            if began := re.search(r"Test (?!case passing|run )(.+) started\.$", line):
                begun.append(began[1])
            elif ended := re.search(r"Test (.+?) (?:with \d+ test cases? )?(?:passed|failed|skipped)", line):
                if ended[1] in begun:
                    begun.remove(ended[1])
    print("The Swift tests did not end; these were not finished: " + ", ".join(begun))


def main() -> int:
    if sys.argv[1] == "--hanging":
        hanging(sys.argv[2])
        return 1
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
