"""Imported by the server process that reading processes are forked from, and nowhere else.

What they need besides the decoders (lib/images/preload.py): the engine of the segmenter, and SciPy
for its masks.
"""

from scipy import ndimage  # noqa: F401  # what the server is there to have imported

from lib.prediction import seen  # noqa: F401
