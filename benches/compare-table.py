#!/usr/bin/env python3
"""compare-table.py RESULTS: the tables of compare.sh, in Markdown. Each line of RESULTS: tool, step, wall seconds, CPU seconds,
peak MB, bytes of the repository afterwards (of `bound`: of the day alone)."""
import sys

rows = {}
for line in open(sys.argv[1]):
    tool, step, *numbers = line.split()
    rows.setdefault(tool, {})[step] = [float(number) for number in numbers]
bound = {step: row[3] for step, row in rows.pop("bound").items()}
days = list(bound)
WALL, CPU, PEAK, SIZE = range(4)


def added(tool, day):
    before = days.index(day) - 1
    return rows[tool][day][SIZE] - (rows[tool][days[before]][SIZE] if before >= 0 else 0)


def table(head, lines):
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for line in lines:
        print("| " + " | ".join(line) + " |")
    print()


def ratio(ours, theirs):
    """Ours beside the best of theirs."""
    return f"{ours / min(theirs):.2f}" if theirs and min(theirs) > 0 else "–"


peers = [tool for tool in rows if tool != "ours"]
print("\nBytes added, in MB; the last columns: ours beside the best peer's, and beside the bound\n")
table(
    ["day", *rows, "bound", "of the best", "of the bound"],
    [
        [day[3:], *(f"{added(tool, day) / 1e6:.2f}" for tool in rows), f"{bound[day] / 1e6:.2f}",
         ratio(added("ours", day), [added(peer, day) for peer in peers]), ratio(added("ours", day), [bound[day]])]
        for day in days
    ],
)
later = days[1:]
steps = {"first backup": days[:1], "a later day, mean": later, "read the newest": ["read"], "check every byte": ["check"], "keep two": ["prune"]}
for name, column in (("Wall seconds", WALL), ("CPU seconds", CPU), ("Peak memory, MB", PEAK)):
    lines = []
    for what, of in steps.items():
        means = {}
        for tool in rows:
            found = [rows[tool][step][column] for step in of if step in rows[tool]]
            if found:
                means[tool] = max(found) if column == PEAK else sum(found) / len(found)
        best = [value for tool, value in means.items() if tool != "ours"]
        lines.append([what, *(f"{means[tool]:.2f}" if tool in means else "–" for tool in rows), ratio(means["ours"], best)])
    print(f"{name}; the last column: ours beside the best peer's\n")
    table(["", *rows, "of the best"], lines)
