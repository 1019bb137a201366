"""A terminal of its own for a command, and what is to be seen on it."""

import fcntl
import os
import struct
import subprocess
import sys
import termios
import threading

import pyte

from tests.process.test_signals import FAKED, ROOT


class Screen:
    """A terminal of its own: what a process shows on it, and what it prints beside it."""

    def __init__(self, words, folder, columns=80, lines=30, **environ):
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen, self.raw = pyte.Screen(columns, lines), b""
        with subprocess.Popen(
            [sys.executable, "-c", FAKED, *words], cwd=folder, stdout=subprocess.PIPE, stderr=theirs, stdin=theirs,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm"} | environ,
        ) as process:  # fmt: skip
            os.close(theirs)
            reader = threading.Thread(target=self._read, args=(ours,))
            reader.start()
            self.out = process.stdout.read().decode()
            self.code = process.wait(60)
        reader.join(10)
        os.close(ours)

    def _read(self, ours):
        stream = pyte.ByteStream(self.screen)
        try:
            while data := os.read(ours, 65536):
                self.raw += data
                stream.feed(data)
        except OSError:  # closed on the other side
            pass

    @property
    def lines(self):
        """The lines that are not empty, without what they end in."""
        return [line.rstrip() for line in self.screen.display if line.strip()]
