"""`train` with a mishap at a moment of a save.

    python train_until.py kill|stop|fill EVENT PATTERN ARGUMENT …

The mishap happens at an audit event of a path with the pattern: SIGKILL, SIGTERM, or no more room for large files. The
arguments are those of `train`.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

from at_moment import at

from training.cli import main

_MISHAPS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "fill": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY)),
}

if __name__ == "__main__":
    program, mishap, event, pattern, *arguments = sys.argv
    at([(event, pattern)], _MISHAPS[mishap])
    sys.argv = [program, *arguments]
    main()
