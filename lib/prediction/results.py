"""The rows of one run: journal, table, maps and processed contents behind one interface."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from lib.images.inputs import Inputs
from lib.prediction.classify import Classified
from lib.prediction.map_files import MapFolder
from lib.prediction.processed import Processed, may_pass
from lib.prediction.request import PredictOptions, Request
from lib.prediction.rows import Counts, Row, RowSchema
from lib.prediction.sample import draw
from lib.run import console
from lib.storage import tables
from lib.storage.atomic import sha256_of
from lib.storage.journal import Journal
from lib.storage.lines import Record
from lib.storage.stamp import Stamp


class Results:
    """Takes rows in any order and ends with a complete table. A context manager.

    Rows of an interrupted run are reused. With `Request.incremental` only contents that no earlier
    run has processed are classified, and the rows of an earlier table stay.
    """

    def __init__(
        self, request: Request, films: Inputs, schema: RowSchema, options: PredictOptions
    ) -> None:
        """`options` as the classifier uses them: with the precision that it has chosen."""
        self._request, self._films, self._schema, self._options = request, films, schema, options
        self._maps = MapFolder(request.explain) if request.explain else None
        self._processed = Processed(request.incremental) if request.incremental else None
        self.names: Sequence[str] = (
            self._processed.new(films, request.readers) if self._processed else films.names
        )
        self._sample = draw(self.names, options.sample, options.seed)
        self._table = tables.table_of(request.output, schema.columns, request.rows_per_file)
        self._journal = Journal(self._table, self.names, self._belongs_to())
        self._reused = 0  # rows of an interrupted run

    def __enter__(self) -> "Results":
        """Open the journal.

        Raises:
            JobError: it holds rows of another model or of other settings.
        """
        self._journal.__enter__()
        self._reused = self._journal.open(self._request.resume, self._is_current)
        if self._reused:
            rows = f"{self._reused} of {len(self.names)} rows"
            console.say(f"an interrupted run left {rows}; they are reused.")
        return self

    def __exit__(self, *error: object) -> None:
        self._journal.__exit__(*error)

    def missing(self) -> Iterable[int]:
        """Indices of the `names` that have no row yet."""
        return self._journal.missing()

    def number_missing(self) -> int | None:
        """How many names had no row at first; None while they are still being listed."""
        return len(self.names) - self._reused if self._films.is_listed else None

    def add(self, index: int, film: Classified) -> None:
        """Keep the row of `names[index]`, and its map."""
        if self._maps and film.map:
            self._maps.write(film.row.path, film.map)
        row = replace(film.row, is_sampled=film.row.path in self._sample)
        self._journal.add(index, film.stamp, self._schema.record(row))

    def publish(self) -> Counts:
        """Write the table, remember the contents, delete the journal: in this order.

        Raises:
            JobError: an earlier table has other columns, or cannot be read.
        """
        self._journal.publish(keep=self._processed is not None)
        if self._processed:
            failed = [row.path for row in self.rows() if may_pass(row.error)]
            self._processed.record(self._films, failed)
        self._journal.remove()
        return Counts.of(self.rows())

    def rows(self) -> Iterator[Row]:
        """The rows of the published table, earlier ones included."""
        return map(self._schema.row, self._table.records())

    def new_rows(self) -> Iterator[Row]:
        """The rows of the published table whose films this run was asked for."""
        if self._processed is None:
            return self.rows()
        names = set(self.names)
        return (row for row in self.rows() if row.path in names)

    def _belongs_to(self) -> dict[str, object]:
        """What must be the same for rows of two runs to stand in one table."""
        sample = {"sample": self._options.sample, "seed": self._options.seed}
        return {
            "model": sha256_of(self._request.model / "model.json"),
            "precision": self._options.precision,
            "operating_point": str(self._options.rule),
            "review_below": self._options.review_below,
            "trust_headers": self._options.trust_headers,
            "columns": [column.name for column in self._schema.columns],
            **(sample if self._options.sample else {}),
        }

    def _is_current(self, name: str, stamp: Stamp, record: Record) -> bool:
        """Whether a row can be reused: the film is unchanged, and its map is there if it has one.
        A film that cannot be read has none.
        """
        if self._films.stamp(name) != stamp:
            return False
        lacks_map = self._maps and self._schema.row(record).prediction and not self._maps.has(name)
        return not lacks_map
