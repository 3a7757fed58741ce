"""Every builder and variant by what is promised of it: saved, on replicas, pruned, rounded in training, exported.

    python benchmarks/contract_table.py

The table and its checks are those of tests/models/contract.py. A cell shows what was measured, or the reason of a known
gap; what stays in float while the rest is rounded stands below. Exits with 1 when a promise is broken that is no known
gap, or when a known gap has closed.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import importlib.util
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
SCRIPT = HERE.parent / "tests" / "models" / "contract.py"
_spec = importlib.util.spec_from_file_location("contract", SCRIPT)
contract = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(contract)
KEPT, GAP, BROKEN, CLOSED = "kept", "known gap", "broken", "gap closed"
TITLES = {
    "saved": "saved and loaded",
    "replicas": "2 replicas",
    "pruned": "pruned to 50%",
    "rounded": "quantize_aware",
    "float32": "float32 file",
    "int8": "int8 file",
}
COLORS = {KEPT: "green", GAP: "yellow", BROKEN: "red", CLOSED: "red"}


def answer(promise, name, check):
    """Returns whether the promise is kept, and what there is to say."""
    gap = contract.GAPS.get((promise, name))
    try:
        shown = check()
    except Exception as error:
        words = str(error).strip().splitlines()
        return (BROKEN, f"{type(error).__name__}: {words[0] if words else ''}") if gap is None else (GAP, gap)
    return (KEPT, shown) if gap is None else (CLOSED, shown)


def trained_on_replicas(folder):
    """Returns, per row, how far weights moved in one step, and how far two replicas are from one device."""
    path = folder / "replicas.json"
    subprocess.run([sys.executable, SCRIPT, path], check=True, stderr=subprocess.DEVNULL)
    return json.loads(path.read_text())


def measure(folder):
    moves = trained_on_replicas(folder)
    cells = {}
    for name in contract.TABLE:
        model, x, y = contract.build(name)
        cells[name] = {}
        for promise in TITLES:
            if promise == "replicas":
                check = partial(contract.on_replicas, name, *moves[name])
            else:
                check = partial(contract.PROMISES[promise], model, x, y, folder)
            cells[name][promise] = answer(promise, name, check)
    return cells


def main():
    with tempfile.TemporaryDirectory() as folder:
        cells = measure(Path(folder))
    table = Table("model", *TITLES.values(), show_lines=True)
    notes = {}
    for name, row in cells.items():
        shown = []
        for how, text in row.values():
            first, *more = text.splitlines()
            for note in more:
                notes.setdefault(note, []).append(name)
            shown.append(f"[{COLORS[how]}]{'✓ ' if how == KEPT else how + ': '}{first}[/]")
        table.add_row(name, *shown)
    console = Console(width=170)
    console.print(table)
    for note, names in notes.items():
        console.print(f"{note}  ({len(names)} rows)")
    target = HERE / "results" / "contract_table.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(cells, indent=2) + "\n")
    wrong = [(name, p, *c) for name, row in cells.items() for p, c in row.items() if c[0] in (BROKEN, CLOSED)]
    for name, promise, how, text in wrong:
        print(f"MISSED  {name}, {TITLES[promise]}: {how}: {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
