"""A process to be killed: it has loaded torch once, and forks a child for each run that it is told to make.

Reads a line of JSON a request from stdin and answers each with a line of JSON:
{"start": {"call": "generate" or "resume", "args": {...}, ...}} forks, and answers the child's process id;
{"wait": pid} answers the child's exit status, -9 where it was killed.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import vqclip.runs.api
from tests.conftest import stand_in

WRITERS = ("checkpoint.py", "generate.py", "recorder.py", "resume.py", "run_dir.py")  # what writes, and decides when


def main():
    """Answer requests until stdin ends."""
    stand_in(pytest.MonkeyPatch())
    os.fsync = lambda handle: None  # the disk outlives a killed process; flushing is half of the time
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports what each child would import again
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps("ready"), file=answer, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            told = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            told = os.fork()
            if not told:
                work(**request["start"])
                os._exit(0)
        print(json.dumps(told), file=answer, flush=True)


def work(call, args, *, die_at=0, count_in="", hold_in=""):
    """Make a run, or resume one. Of one process, once.

    die_at: SIGKILL at this line, counted from 1, of all lines that the modules WRITERS execute. count_in: a file for
    the number of these lines. hold_in: a folder; after its second step the run writes `held` there, and goes on once
    there is `go`.
    """
    lines = [0]

    def trace(frame, event, arg):
        name = frame.f_code.co_filename
        return count if name.endswith(WRITERS) and Path(name).parent.name == "runs" else None

    def count(frame, event, arg):
        if event == "line":
            lines[0] += 1
            if lines[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    def hold(step):
        if hold_in and step.step == 2:
            (Path(hold_in) / "held").touch()
            while not (Path(hold_in) / "go").exists():
                time.sleep(0.01)

    if die_at or count_in:
        sys.settrace(trace)
        threading.settrace(trace)
    getattr(vqclip.runs.api, call)(**args, on_step=hold)
    sys.settrace(None)
    if count_in:
        Path(count_in).write_text(str(lines[0]))


if __name__ == "__main__":
    main()
