#!/usr/bin/env python3
"""Instructions per request by layer, from what `cargo bench --bench instructions` left behind.

    benches/layers.py                          # a table of all operations
    benches/layers.py snap_create              # one operation
    benches/layers.py snap_create validate     # and what a layer calls
    benches/layers.py snap_create dialect::check::check    # the same for any function

A layer's cost is that of its step without the step below, whatever it calls included. A layer that hands
the rest to a task of its own has what that task does besides. What no layer calls (the runtime, the way
into the stack, the loop around it all) is `outside`; rows add up to the total. A step that the compiler has
put into the one above it shows as nothing there.
"""

import collections
import json
import os
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
OUTPUT = TARGET / "gungraun/ayova/instructions/counted/stack"
OUTSIDE = "outside"


def layers():
    """In their order, from the table that a test holds against the stack."""
    text = (HERE.parent / "ARCHITECTURE.md").read_text()
    table = text.split("## One request through the stack")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.M)


def read(file):
    """What each function costs itself, and what it costs in each of its callers: {callee: {caller: cost}}."""
    own, calls, names = collections.Counter(), collections.defaultdict(collections.Counter), {}

    def name(text):
        number = re.match(r"\(\d+\) ?", text)
        return names.setdefault(number[0].strip(), text[number.end() :]) if number else text

    caller = callee = None
    is_call, positions = False, 1
    for line in file.read_text().splitlines():
        key, _, rest = line.partition("=")
        if line.startswith("positions:"):
            positions = len(line.split()) - 1
        elif key == "fn":
            caller = name(rest)
        elif key == "cfn":
            callee = name(rest)
        elif key == "calls":
            is_call = True
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            parts = line.split()
            cost = int(parts[positions]) if len(parts) > positions else 0
            if is_call:
                calls[callee][caller] += cost
            else:
                own[caller] += cost
            is_call = False
    return own, calls


def entries(calls, rows):
    """Where a layer begins, {function: layer}: its step, and what it has handed the layers below it to."""
    steps = {f"ayova::layers::{row}::{row}::{{{{closure}}}}": row for row in rows}
    found = {step: row for step, row in steps.items() if step in calls}
    for step, row in list(found.items()):
        for caller in calls[step]:
            if caller not in steps and row != rows[0]:
                found[caller] = rows[rows.index(row) - 1]
    return found


def by_layer(own, calls, entry):
    """What each layer costs without the layers below it."""
    costs = collections.Counter()
    for function, callers in calls.items():
        for caller, cost in callers.items():
            if function in entry and caller != function:
                costs[entry[function]] += cost
                costs[entry.get(caller)] -= cost
    del costs[None]
    costs[OUTSIDE] = sum(own.values()) - sum(costs.values())
    return costs


def called_by(name, own, calls, entry):
    """What a layer, or functions with that in their name, cost in themselves and call below."""
    mine = lambda function: entry.get(function) == name or (name not in entry.values() and name in function)
    details = collections.Counter({"(own code, and what was put into it)": sum(own[f] for f in own if mine(f))})
    for function, callers in calls.items():
        if not mine(function) and function not in entry:
            details[function] += sum(cost for caller, cost in callers.items() if mine(caller))
    return details


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else "*"
    inside = sys.argv[2] if len(sys.argv) > 2 else None
    sizes = json.loads((HERE / "instructions.json").read_text())["sizes"]
    requests = int(os.environ.get("AYOVA_BENCH_REQUESTS", sizes[0]))
    rows, runs, entry = layers(), {}, {}
    for file in sorted(OUTPUT.glob("serve.*/callgrind.*.out")):
        runs[file.parent.name.removeprefix("serve.")] = run = read(file)
        # A task is known by what it calls, which not every operation lets it do.
        entry.update(entries(run[1], rows))
    runs = {name: run for name, run in runs.items() if wanted in ("*", name)}
    if not runs:
        sys.exit(f"nothing of that in {OUTPUT}: run cargo bench --bench instructions first")
    table = [by_layer(own, calls, entry) for own, calls in runs.values()]
    print(f"{'layer':<14}" + "".join(f"{name:>22}" for name in runs))
    for row in rows + [OUTSIDE, "total"]:
        cells = []
        for costs in table:
            total = sum(costs.values())
            cost = total if row == "total" else costs[row]
            cells.append(f"{cost / requests:>14,.0f} {100 * cost / total:>5.1f} %")
        print(f"{row:<14}" + "".join(cells))
    for name, run in runs.items() if inside else ():
        print(f"\n{name}, {inside}:")
        for function, cost in called_by(inside, *run, entry).most_common(20):
            if cost >= requests:
                print(f"{cost / requests:>14,.0f}  {function}")


main()
