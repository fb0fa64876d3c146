"""A strict command line on top of Fire: the signature of a job is its whole configuration.

Plain Fire calls the function before it complains about a mistyped flag, guesses types from the
text and accepts any `**kwargs`. Here every flag is checked against the signature before any work,
each value is parsed by its annotation, and Fire receives only checked flags.
"""

import inspect
import os
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from lib.run.errors import UsageError
from lib.run.suggest import did_you_mean

Job = Callable[..., int]


@dataclass(frozen=True)
class Flag:
    """Help text and valid values of a flag, added to the type in an annotation.

    `Annotated[float, Flag("fraction of films held out for the final score", above=0, below=1)]`
    """

    help: str
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    placeholder: str = ""


@dataclass(frozen=True)
class Setting(Flag):
    """A flag that several jobs share; an environment variable sets it as well."""

    env: str = ""
    default: Any = None


@dataclass(frozen=True)
class Parameter:
    """One flag, read from the signature."""

    name: str
    type: Any
    optional: bool
    default: Any
    flag: Flag

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.type) if get_origin(self.type) is Literal else self.flag.choices

    @property
    def metavar(self) -> str:
        if self.flag.placeholder:
            return self.flag.placeholder
        if self.choices:
            return "|".join(self.choices)
        return {bool: "True|False", int: "N", float: "X", Path: "PATH"}.get(self.type, "TEXT")

    def parse(self, text: str) -> Any:
        """Parse a value by the annotation; check it against the choices and bounds.

        Raises:
            UsageError: says what the flag takes, and the nearest valid choice.
        """
        if self.type is Path and not self.optional and not text.strip():
            raise UsageError(f"--{self.name} is empty; it takes a path.")
        if self.optional and text.lower() in ("none", "auto", ""):
            return None
        if self.choices and text not in self.choices:
            hint = did_you_mean(text, self.choices)
            raise UsageError(
                f"--{self.name} takes one of {', '.join(self.choices)}, not {text!r}.{hint}"
            )
        try:
            value = _READERS[self.type if self.type in _READERS else str](text)
        except ValueError:
            raise UsageError(f"--{self.name} takes {_NOUNS[self.type]}, not {text!r}.") from None
        for number in value if isinstance(value, tuple) else (value,):
            self._check_bounds(number)
        return value

    def _check_bounds(self, value: Any) -> None:
        flag = self.flag
        for bound, broken, words in (
            (flag.at_least, flag.at_least is not None and value < flag.at_least, "at least"),
            (flag.above, flag.above is not None and value <= flag.above, "more than"),
            (flag.below, flag.below is not None and value >= flag.below, "less than"),
        ):
            if broken:
                raise UsageError(f"--{self.name} must be {words} {bound:g}, not {value:g}.")


def _read_bool(text: str) -> bool:
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
            text.lower()
        ]
    except KeyError:
        raise ValueError(text) from None


def _read_float(text: str) -> float:
    value = float(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


def _read_numbers(text: str) -> tuple[float, ...]:
    return tuple(_read_float(part) for part in _read_names(text))


def _read_names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_READERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: _read_float,
    bool: _read_bool,
    Path: lambda text: Path(text).expanduser(),
    tuple[str, ...]: _read_names,
    tuple[float, ...]: _read_numbers,
}
_NOUNS = {
    int: "a whole number",
    float: "a number",
    tuple[float, ...]: "numbers with commas between them",
    bool: "True or False",
}


def parameters_of(job: Job) -> dict[str, Parameter]:
    """The flags of a job, by name.

    Raises:
        TypeError: a parameter is not keyword-only.
    """
    hints = typing.get_type_hints(job, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(job).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise TypeError(
                f"{job.__name__}: {name} must be keyword-only; *args and **kwargs are not taken"
            )
        annotation, flag = get_args(hints[name])
        optional = get_origin(annotation) in (UnionType, typing.Union) and NoneType in get_args(
            annotation
        )
        kind = (
            next(arg for arg in get_args(annotation) if arg is not NoneType)
            if optional
            else annotation
        )
        default = (
            inspect.Parameter.empty if parameter.default is parameter.empty else parameter.default
        )
        found[name] = Parameter(name, kind, optional, default, flag)
    return found


@dataclass(frozen=True)
class CommandLine:
    """The values of the given flags as text, by name, and whether help was asked for."""

    values: dict[str, str]
    help: bool = False


def read_flags(argv: Sequence[str], parameters: dict[str, Parameter]) -> CommandLine:
    """Read `--name value`, `--name=value`, `--switch` and `--noswitch`; `-` counts as `_`.

    Raises:
        UsageError: unknown flag (with the nearest valid name), missing value, repeated flag, or a
            word that is no flag.
    """
    values: dict[str, str] = {}
    show_help = False
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in ("--help", "-h", "help"):
            show_help = True
            continue
        if word in (
            "--debug",
            "--quiet",
        ):  # `execute` knows them: they also hold for a command line that is refused
            continue
        if not word.startswith("--") or word == "--":
            raise UsageError(
                f"unexpected argument {word!r}: every setting is a flag, written --name value."
            )
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        negated = name.removeprefix("no").removeprefix("_")
        if (
            not equals
            and name not in parameters
            and name.startswith("no")
            and _is_switch(parameters, negated)
        ):
            name, value = negated, "False"
        elif name not in parameters:
            raise UsageError(
                f"unknown flag --{name}."
                + did_you_mean(f"--{name}", [f"--{n}" for n in parameters])
            )
        elif not equals:
            bare_switch = _is_switch(parameters, name) and (not words or words[0].startswith("--"))
            if bare_switch:
                value = "True"
            elif not words or words[0].startswith("--"):
                raise UsageError(f"--{name} needs a value: --{name} {parameters[name].metavar}.")
            else:
                value = words.pop(0)
        if name in values:
            raise UsageError(f"--{name} is given twice.")
        values[name] = value
    return CommandLine(values, show_help)


def _is_switch(parameters: dict[str, Parameter], name: str) -> bool:
    return name in parameters and parameters[name].type is bool


def resolve(
    parameters: dict[str, Parameter], texts: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Check every value, and take missing ones from the environment.

    Returns the texts for Fire, and the origin of every value that is not the default.

    Raises:
        UsageError: an invalid value, or a required flag that is missing.
    """
    checked: dict[str, str] = {}
    overrides: dict[str, str] = {}
    for name, parameter in parameters.items():
        setting = parameter.flag if isinstance(parameter.flag, Setting) else None
        text, origin = texts.get(name), f"--{name}"
        if text is None and setting and os.environ.get(setting.env, "") != "":
            text, origin = os.environ[setting.env], f"{setting.env} in the environment or .env"
        if text is None:
            if parameter.default is inspect.Parameter.empty:
                raise UsageError(
                    f"--{name} {parameter.metavar} is required: {parameter.flag.help}."
                )
            continue
        try:
            value = parameter.parse(text)
        except UsageError as error:
            raise UsageError(
                str(error) if origin.startswith("--") else f"{origin}: {error}"
            ) from None
        checked[name] = text
        if value != parameter.default:
            overrides[name] = "" if origin.startswith("--") else f" ({origin})"
    return checked, overrides


def help_text(job: Job) -> str:
    """Help of a job, from its docstring and its signature."""
    purpose, _, examples = inspect.cleandoc(job.__doc__ or "").partition("Examples:\n")
    lines = [
        f"usage: python -m jobs.{job.__name__} [--flag value ...]",
        "",
        purpose.strip(),
        "",
        "flags:",
    ]
    for parameter in parameters_of(job).values():
        default = parameter.default
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        ending = f"default: {'none' if shown in ('', None) else shown}"
        if default is inspect.Parameter.empty:
            ending = "required"
        elif isinstance(parameter.flag, Setting):
            ending += f"; environment: {parameter.flag.env}"
        lines += [
            f"  --{parameter.name} {parameter.metavar}",
            f"        {parameter.flag.help} [{ending}]",
        ]
    for name, meaning in (
        (
            "debug",
            "show the whole traceback of an error; the log in RUNS_DIR/logs has it in any case",
        ),
        ("quiet", "print the last line alone, and warnings and errors; the log has the others"),
        ("help", "show this text"),
    ):
        lines += [f"  --{name}", f"        {meaning}"]
    return "\n".join(
        [*lines, "", "examples:", *(f"  {line.strip()}" for line in examples.strip().splitlines())]
    )
