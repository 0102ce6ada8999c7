"""Runs ministack, and ends it when whoever started it is gone. A script of its own: it imports nothing of ours.

Usage: embedded_child.py SECONDS, with standard input a pipe that the parent holds open and never writes to. The
kernel closes it however the parent ends, SIGKILL included; unlike PR_SET_PDEATHSIG this does not depend on which
thread started us, works beyond Linux, and leaves time to save what is held.
"""

import os
import runpy
import signal
import sys
import threading
import time


def _follow(save_s: float) -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)  # ministack saves its state and ends
    time.sleep(save_s)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_follow, args=(float(sys.argv[1]),), daemon=True).start()
    sys.argv = ["ministack"]
    runpy.run_module("ministack", run_name="__main__", alter_sys=True)
