"""Judges the results of an Autobahn run: report.py INDEX COUNT compare|accept|any EXPECTED."""

import json
import sys
from collections import Counter
from pathlib import Path

# What the timing of a run decides: the same server is OK in one run and NON-STRICT in the next.
FLIPPING = {
    "3.2", "3.3", "3.4",
    "4.1.3", "4.1.4", "4.1.5",
    "4.2.3", "4.2.4", "4.2.5",
    "5.15",
}  # fmt: skip


def main(index: Path, count: int, mode: str, expected_file: Path) -> int:
    (cases,) = json.loads(index.read_text()).values()
    results = {
        case: {"behavior": result["behavior"], "behaviorClose": result["behaviorClose"]}
        for case, result in sorted(cases.items(), key=lambda item: order(item[0]))
    }
    problems = {case: text for case, result in results.items() if (text := failure(result))}
    if mode == "accept" and not problems:
        expected_file.write_text(one_line_a_case(results))
    if mode == "compare":
        expected = json.loads(expected_file.read_text())
        for case, result in results.items():
            if case not in problems and (text := difference(case, result, expected.get(case))):
                problems[case] = text

    for case, text in problems.items():
        print(f"{case}: {text} (see {index.parent})")
    behaviors = Counter(result["behavior"] for result in results.values())
    print(", ".join(f"{number} {name}" for name, number in sorted(behaviors.items())))
    missing = abs(count - len(results))
    if missing:
        print(f"{len(results)} cases ran, {count} were expected")
    failed = len(problems) + missing
    print(f"{len(results) - len(problems)} passed, {failed} failed")
    return 1 if failed else 0


def failure(result: dict[str, str]) -> str | None:
    if result["behavior"] not in ("OK", "NON-STRICT", "INFORMATIONAL"):
        return result["behavior"]
    if result["behaviorClose"] not in ("OK", "INFORMATIONAL"):
        return f"the close was {result['behaviorClose']}"
    return None


def difference(case: str, result: dict[str, str], expected: dict[str, str] | None) -> str | None:
    if expected is None:
        return "has no expected result; accept it with --full --accept"
    if case in FLIPPING:
        result, expected = (
            {**either, "behavior": "OK"} if either["behavior"] == "NON-STRICT" else either
            for either in (result, expected)
        )
    if result != expected:
        return f"was {words(expected)}, is {words(result)}; accept it with --full --accept"
    return None


def words(result: dict[str, str]) -> str:
    return f"{result['behavior']} (close {result['behaviorClose']})"


def one_line_a_case(results: dict[str, dict[str, str]]) -> str:
    lines = (f"  {json.dumps(case)}: {json.dumps(result)}" for case, result in results.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def order(case: str) -> list[int]:
    return [int(part) for part in case.split(".")]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])))
