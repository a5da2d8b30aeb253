"""A process that is killed while it replaces a bundle leaves the old or the new one, whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agevi.io import _bundle

# One process imports torch once; the ones that die are its forks. Arguments: folder of agevi.io, bundle, what to do.
START = """
import os, random, signal, sys, time, types, warnings

for name, path in (("agevi", sys.argv[1] + "/.."), ("agevi.io", sys.argv[1])):  # the storage layer alone
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
import torch
from agevi.io import _bundle, _files

torch.set_num_threads(1)
path = sys.argv[2]
warnings.simplefilter("ignore")  # that the old one is read is what is tested

def save(number):
    tensors = {"w": torch.full((20_000,), float(number))}
    _bundle.write_bundle(path, {"number": number}, tensors, f"# {number}", overwrite=True)

def visible():  # hidden ones are swept after a day
    return [name for name in os.listdir(os.path.dirname(path)) if not name.startswith(".")]

def read():
    bundle = _bundle.read_bundle(path)
    number = bundle.meta["number"]
    assert bundle.card == f"# {number}" and bool((bundle.tensors["w"] == number).all()), "mixed"
    return number, bundle.path.name
"""

# Die before the n-th change to the file system, for every n until a save gets through, each time from the state that
# the last death left, and from a clean one.
EVERY_STEP = """
def dying(function, budget):
    def call(*args, **kwargs):
        budget[0] -= 1
        if budget[0] < 0:
            os._exit(9)
        return function(*args, **kwargs)
    return call

def save_and_die(number, steps):
    pid = os.fork()
    if pid == 0:
        budget = [steps]
        for name in ("mkdir", "rename", "unlink", "rmdir", "fsync"):
            setattr(os, name, dying(getattr(os, name), budget))
        save(number)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

for clean in (True, False):
    code, steps, number = 9, 0, 0
    save(number)
    old = number
    while code == 9:
        number += 1
        code = save_and_die(number, steps)
        found, where = read()
        print("clean" if clean else "littered", steps, {old: "old", number: "new"}.get(found, found), where)
        steps += 1
        if clean:
            save(number)
            assert visible() == ["clock"], visible()
        old = number if clean else found
"""

# Save over and over and be killed at a random moment; the pipe tells which saves had begun and which were done.
RANDOM = """
random.seed(20)
save(0)
done = 0
for _ in range(20):
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        for number in range(done + 1, 100_000):
            os.write(into, b"b")
            save(number)
            os.write(into, b"d")
        os._exit(0)
    os.close(into)
    os.read(out, 1)
    time.sleep(random.uniform(0.0, 0.08))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    told = b"b"
    while piece := os.read(out, 65536):
        told += piece
    os.close(out)
    begun, finished = done + told.count(b"b"), done + told.count(b"d")
    found, where = read()
    print("whole" if finished <= found <= begun else f"{finished} <= {found} <= {begun}", finished - done, where)
    done = found
save(done + 1)
print(*visible())
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, list[str]]:
    """What both programs print."""
    folder = tmp_path_factory.mktemp("in")
    program = f"{START}{EVERY_STEP}\nprint('end of one')\npath = sys.argv[3]\n{RANDOM}"
    paths = [str(Path(_bundle.__file__).parent), str(folder / "one" / "clock"), str(folder / "two" / "clock")]
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    every_step, at_random = done.stdout.split("end of one\n")
    return {"every step": every_step.splitlines(), "random": at_random.splitlines()}


@pytest.mark.slow
def test_death_at_every_step(told):
    deaths = [line.split() for line in told["every step"]]
    for start, least in (("clean", 12), ("littered", 15)):
        steps = [(int(step), found, where) for state, step, found, where in deaths if state == start]
        assert [step for step, _, _ in steps] == list(range(len(steps)))
        assert len(steps) > least  # files synced, directories renamed, leftovers deleted one by one
        # the old bundle, the old one set aside, the new one: nothing else, and each is met
        assert {(found, where) for _, found, where in steps} == {
            ("old", "clock"),
            ("old", "clock.old"),
            ("new", "clock"),
        }


@pytest.mark.slow
def test_sigkill_at_random_moments(told):
    *kills, left = [line.split() for line in told["random"]]
    assert [state for state, *_ in kills] == ["whole"] * 20
    assert sum(int(finished) for _, finished, _ in kills) > 0
    assert left == ["clock"]
