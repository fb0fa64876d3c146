"""Imported by the server process that reading processes are forked from, and nowhere else.

They inherit the decoders, and a standard error that leads nowhere. Decoders in C write messages
about damaged files to it, and a process that is forked while its job is being stopped writes a
traceback. What is wrong with a file comes back as a result.
"""

import os

from lib.images import reader  # noqa: F401  # what the server is there to have imported

os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
