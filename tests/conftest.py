"""What all tests share, on either side: nothing of either side is imported here."""

from __future__ import annotations

import os
import signal

# The tests' models are tiny: their time goes into compiling, of which XLA's newer CPU emitters take the larger half.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process that they start to
# send Ctrl-C to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
