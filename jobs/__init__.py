"""Five programs. Each is one file, read top to bottom as a recipe; no job imports another."""

import signal
import sys

if (
    sys.argv[0] == "-m"
):  # python -m jobs.…: until cli.execute listens, Ctrl-C ends the program without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
