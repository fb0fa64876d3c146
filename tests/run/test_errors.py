"""Errors of other packages become errors of this program, at one place."""

import pytest

from lib.run.errors import JobError, UnreadableFilmError, UsageError, mapped


def _raised(error: Exception, keep_cause: bool = True) -> BaseException:
    kinds: dict[type[Exception], object] = {
        FileNotFoundError: lambda found: UsageError(f"no such file: {found}"),
        OSError: lambda found: JobError(f"disk: {found}"),
    }
    with (
        pytest.raises(BaseException, match=r".") as caught,
        mapped(kinds, keep_cause=keep_cause),  # type: ignore[arg-type]
    ):
        raise error
    return caught.value


def test_the_first_kind_that_fits_counts() -> None:
    assert isinstance(_raised(FileNotFoundError("x")), UsageError)
    error = _raised(PermissionError("x"))
    assert (type(error), str(error)) == (JobError, "disk: x")
    assert isinstance(error.__cause__, PermissionError)


def test_a_cause_that_names_a_film_is_left_out() -> None:
    error = _raised(OSError("patient.png"), keep_cause=False)
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_other_errors_pass_unchanged() -> None:
    for error in (ValueError("x"), JobError("x"), UsageError("x")):
        assert _raised(error) is error


def test_an_unreadable_film_is_told_on_one_line_whatever_its_header_holds() -> None:
    assert str(UnreadableFilmError("modality M\r\n\x1b[2JR\x00")) == "modality M   [2JR "
