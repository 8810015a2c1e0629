"""What keeps the event loop's pauses short. In processes of their own: both are settings of a whole process."""

from __future__ import annotations

import subprocess
import sys

_COLLECTOR = """
import gc, time
from policy_server.event_loop import spare_what_stays

def pause():
    begun = time.thread_time()
    gc.collect()
    return time.thread_time() - begun

loaded = [{"number": [number]} for number in range(300_000)]  # about as many objects as jax and a policy are
before = pause()
spare_what_stays()
after = min(pause() for _ in range(5))
assert after < before / 5, (before, after)
"""

_THREADS = """
import asyncio, sys, threading, time
from policy_server.event_loop import run_event_loop

stop = threading.Event()

def prepare():
    while not stop.is_set():
        sum(range(1000))

async def median_wait():
    times = []
    for _ in range(60):
        begun = time.perf_counter()
        await asyncio.sleep(0.002)  # as for a message, and then for the interpreter
        times.append(time.perf_counter() - begun - 0.002)
    return sorted(times)[30]

async def compare():
    for _ in range(2):
        threading.Thread(target=prepare).start()
    ours, waits = sys.getswitchinterval(), {}
    for name, interval in [("ours", ours), ("pythons", 0.005)] * 2:
        sys.setswitchinterval(interval)
        waits[name] = min(await median_wait(), waits.get(name, 1.0))
    stop.set()
    assert type(asyncio.get_running_loop()).__module__ == "uvloop"
    assert waits["ours"] < waits["pythons"] / 2, waits

run_event_loop(compare())
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_garbage_collector_passes_over_what_was_loaded_before_the_server_is_ready():
    run(_COLLECTOR)


def test_the_event_loop_waits_for_threads_half_as_long_as_with_pythons_own_setting_or_less():
    run(_THREADS)
