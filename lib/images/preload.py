"""Imported by the server process that reading processes are forked from, and nowhere else.

What they inherit: the decoders, and a closed mouth. Decoders in C write their opinion of damaged
files to standard error, and a process that is forked while its job is being stopped writes a
traceback; what matters comes back as a result.
"""

import os

from lib.images import reader  # noqa: F401  # what the server is there to have imported

os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
