"""The jobs: one file each, which names its steps in order. No job imports another."""

import signal
import sys

# python -m jobs.…: Ctrl-C ends the program without a traceback until lib.run.execute handles it.
if sys.argv[0] == "-m":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
