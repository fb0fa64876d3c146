"""Suggestions for mistyped words."""

import difflib
from collections.abc import Sequence


def did_you_mean(word: str, valid: Sequence[str]) -> str:
    """` Did you mean 'x'?` for the nearest valid word, or an empty string if none is near."""
    near = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
