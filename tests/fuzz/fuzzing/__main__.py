"""Try cases of a seed and print the classes, as ``PYTHONPATH=tests/fuzz python -m fuzzing``."""

import argparse
import sys
import tempfile
from pathlib import Path

from fuzzing.cases import Case, draw, table
from fuzzing.worker import Worker

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--cases", type=int, default=1200)
parser.add_argument("--door", help="Only this door.")
parser.add_argument("--base", help="Only this file.")
parser.add_argument("--case", type=int, help="Only the case of this seed, with --door and --base.")
parser.add_argument("--part", default="0/1", help="Which of how many parts of the cases.")
parser.add_argument("--bases", help="Folder to keep the whole files in, for the next call.")
parser.add_argument("--quick", action="store_true", help="Leave out what takes seconds.")
parser.add_argument("--all", action="store_true", help="Also say what is clean.")
arguments = parser.parse_args()

cases = draw(arguments.seed, arguments.cases, arguments.quick)
cases = [c for c in cases if arguments.door in (None, c.door) and arguments.base in (None, c.base)]
if arguments.case is not None:
    cases = [Case(arguments.door, arguments.base, arguments.case)]
part, parts = (int(number) for number in arguments.part.split("/"))
cases = cases[part::parts]
outcomes = []
with tempfile.TemporaryDirectory() as folder:
    bases = Path(arguments.bases or folder) / "bases"
    made = bases.exists()
    bases.mkdir(parents=True, exist_ok=True)
    with Worker(bases) as worker:
        if not made:
            worker.make()
        for case in cases:
            outcomes.append((case, worker.ask(case)))
            outcome = outcomes[-1][1]
            if outcome.kind != "clean" or arguments.all:
                print(
                    f"{outcome.kind:9} {case}\n    {outcome.damage}\n    {outcome.said}", flush=True
                )
print(f"seed {arguments.seed}\n{table(outcomes)}")
sys.exit(any(outcome.kind != "clean" for _, outcome in outcomes))
