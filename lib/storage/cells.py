r"""File names as cells of a table: one line each, no formula for a spreadsheet, and back again.

| in the name | in the cell |
|---|---|
| `=`, `+`, `-`, `@` (also their full-width forms) or `'` at the beginning | the same behind a `'` |
| newline, carriage return, tab | `\n`, `\r`, `\t` |
| other controls, U+2028, U+2029, bytes that are not UTF-8 | `\x` and two hexadecimal digits each |
| `\` | `\\` |

Source: OWASP, "CSV Injection".
"""

import os
import re

_SHORT = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_LONG = {short[1]: character for character, short in _SHORT.items()}
_SPECIAL = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\udc80-\udcff]")
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.DOTALL)
_RUNS = tuple("'=+-@＝＋－＠")


def to_cell(name: str) -> str:
    """The cell of a name. Bytes that are not UTF-8 are surrogates in it, as Python has them."""
    cell = _SPECIAL.sub(_escaped, name)
    return f"'{cell}" if cell.startswith(_RUNS) else cell


def from_cell(cell: str) -> str:
    """The name of a cell, the inverse of `to_cell`. `os.fsencode` of it gives the bytes."""
    if "\\" not in cell:
        return cell.removeprefix("'")
    return os.fsdecode(_ESCAPE.sub(_unescaped, cell.removeprefix("'").encode()))


def is_inside(name: str) -> bool:
    """Whether a path below a folder stays there. The name of an object in a bucket may not."""
    return not name.startswith("/") and ".." not in name.split("/")


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    if character in _SHORT:
        return _SHORT[character]
    return "".join(rf"\x{byte:02x}" for byte in os.fsencode(character))


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match.group(1).decode()
    return bytes([int(code[1:], 16)]) if len(code) == 3 else _LONG[code].encode()
