"""A process that tries cases, forked from one that has everything imported.

What a case does to the process ends with it: the next is forked when one is gone.
"""

import json
import os
import pickle
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from fuzzing.judge import Outcome

SECONDS = 150
"""Time for a case, on a machine that does other things too; most take a tenth of a second."""
_PATIENCE = 900  # seconds to import everything, or to write the whole files
_MEMORY = 6 * 2**30  # bytes of data; a size that asks for more is an error, not a dead machine
_ONE = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class Worker:
    """The other side of the process: give it cases, get outcomes."""

    def __init__(self, bases):
        self._log = (bases.parent / "worker.log").open("w+b")
        path = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzzing.worker", str(bases)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,  # a line that waits in a buffer is not seen by select
            env={**os.environ, **_ONE, "PYTHONPATH": os.pathsep.join(path), "COLUMNS": "400"},
        )
        self._child = self._read(_PATIENCE)["child"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
        self._log.close()

    def _read(self, seconds):
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the worker is gone")
        return json.loads(line)

    def make(self):
        """Write the whole files."""
        found = self.ask(("make", "", 0))
        if found.kind != "clean":
            raise RuntimeError(f"no whole files were written: {found}")

    def ask(self, case):
        """The outcome of a case."""
        self._process.stdin.write(json.dumps(case).encode() + b"\n")
        self._process.stdin.flush()
        found = self._read(_PATIENCE if case[0] == "make" else SECONDS)
        hung = found is None
        if hung:
            os.kill(self._child, signal.SIGKILL)
            found = self._read(60)
        if "died" not in found:
            return Outcome(*found["outcome"])
        self._child = self._read(_PATIENCE)["child"]
        if found["status"]:
            self._log.seek(0)
            raise RuntimeError(self._log.read().decode()[-3000:])
        return Outcome("hang" if hung else "crash", found["damage"], f"signal {found['died']}")


def _serve(bases, told):
    """Fork a process that answers, and another when it is gone."""
    note = bases / "damage.txt"
    while True:
        child = os.fork()
        if child == 0:
            _answer(bases, told, note)
            os._exit(0)
        _tell(told, {"child": child})
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        damage = note.read_text() if note.exists() else ""
        ours = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0  # of this file, not of a door
        signalled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        _tell(told, {"died": signalled, "status": ours, "damage": damage})


def _tell(told, message):
    os.write(told, json.dumps(message).encode() + b"\n")


def _answer(bases, told, note):
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    known = {}
    with open(0, "rb", buffering=0, closefd=False) as asked:
        while line := asked.readline():
            door, base, seed = json.loads(line)
            _tell(told, {"outcome": _try(door, base, seed, bases, note, known)})


def _try(door, base, seed, bases, note, known):
    from fuzzing import judge
    from fuzzing.bases import make_bases
    from fuzzing.files import damage

    if door == "make":
        make_bases(bases)
        return Outcome("clean", "")
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        (work / "out").mkdir()
        os.chdir(work)
        if door == "options":
            return _try_options(rng, bases, work / "out", note)
        before = known.get((door, base)) or _before(door, base, bases, work)
        known[door, base] = before
        path = _copy(bases / base, work / "in" / base)
        others = [p for p in sorted(bases.iterdir()) if p.is_file() and p.name != note.name]
        found = damage(path, rng, others)
        note.write_text(found.what)
        return _judged(judge, door, path, bases, work / "out", found, before)


def _copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path((shutil.copytree if source.is_dir() else shutil.copy)(source, target))


def _before(door, base, bases, work):
    """What a door gives of the whole file."""
    from fuzzing.doors import come_in

    kept = bases.parent / f"{door}-{base}.pickle"
    if not kept.exists():
        path = _copy(bases / base, work / "whole" / base)
        (work / "before").mkdir()
        kept.write_bytes(pickle.dumps(come_in(door, path, bases, work / "before")))
    return pickle.loads(kept.read_bytes())


def _judged(judge, door, path, bases, out, found, before):
    from fuzzing.doors import come_in

    beside = sorted(p.name for p in path.parent.iterdir())
    try:
        result = come_in(door, path, bases, out)
    except BaseException as err:  # noqa: BLE001  # whatever it is, it is the outcome
        left = [p.name for p in out.iterdir()]
        left += [p.name for p in path.parent.iterdir() if p.name not in beside]
        return judge.of_error(found, err, left)
    left = [p.name for p in out.iterdir() if p.name.startswith(".")]
    if left:
        return Outcome("partial", found.what, ", ".join(left))
    return judge.of_result(found, result, before)


def _try_options(rng, bases, out, note):
    from fuzzing import judge
    from fuzzing.bases import command
    from fuzzing.doors import Refused
    from fuzzing.files import Damage
    from fuzzing.options import WRITTEN, choices, written_out

    every = choices()
    name, words, names, certain = every[int(rng.integers(len(every)))]
    arguments = [name, *written_out(words, bases, out)]
    (out.parent / "file").write_text("")
    what = " ".join(a if len(a) < 60 else f"{a[:60]}…" for a in [name, *words])
    note.write_text(what)
    before = {p.name for p in out.parent.iterdir()}
    done = command(*arguments)
    found = Damage(what, names, certain)
    left = [p.name for p in out.iterdir() if p.name.startswith(".") or p.name not in WRITTEN]
    if done.exit_code != 0:
        left = [p.name for p in out.iterdir()]
        left += [p.name for p in out.parent.iterdir() if p.name not in before]
        return judge.of_error(found, Refused(done), left)
    if left:
        return Outcome("partial", what, ", ".join(left))
    if certain:
        return Outcome("silent", what, "accepted")
    return Outcome("clean", what, "accepted")


if __name__ == "__main__":
    answers = os.dup(1)
    os.dup2(2, 1)
    sys.modules["umap"] = None  # not installed: it compiles itself in every process, for seconds
    _serve(Path(sys.argv[1]), answers)
