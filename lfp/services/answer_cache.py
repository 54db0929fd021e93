"""The cache of a language-model service's answers.

It is one SQLite file that jobs share and that a paper can ship.

An answer is kept under the digest of the full request, without any key. Beside answers stand their
costs, the money that is reserved for calls under way, submitted batches, and the features that a
server turned out not to support.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lfp.files.canonical import canonical_json

#: Seconds to wait for a lock of the file.
_PATIENCE = 120
_TABLES = """
create table if not exists answers (
    key text primary key, request text, response text, created text);
create table if not exists charges (
    service text, key text, usd real, confirmed integer, created text);
create table if not exists reservations (
    id integer primary key, service text, usd real, key text);
create table if not exists batches (
    id text primary key, service text, keys text, created text, usd real);
create table if not exists traits (
    service text, name text, value text, primary key (service, name));
"""
#: Columns that tables of earlier releases lack.
_LATER_COLUMNS = {"reservations": "key text", "batches": "usd real"}
#: What was charged, is reserved, and may be charged for batches that are not collected.
_TAKEN = " + ".join(
    f"(select coalesce(sum(usd), 0) from {table} where service = :service)"
    for table in ("charges", "reservations", "batches")
)


class CacheError(RuntimeError):
    """A cache file cannot be read or written."""


def _remedy(error: sqlite3.Error | OSError) -> str:
    """What to do about a failure of a cache file."""
    code, number = getattr(error, "sqlite_errorcode", 0) & 0xFF, getattr(error, "errno", None)
    if code == sqlite3.SQLITE_FULL or number in (errno.ENOSPC, errno.EDQUOT):
        return "its disk is full. Make room and run again: the answers so far are kept"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return (
            f"another program has locked it for {_PATIENCE} seconds. End that program (a browser of"
            " databases, a copy under way) and run again"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM) or (
        number in (errno.EROFS, errno.EACCES, errno.EPERM)
    ):
        return (
            "it or its folder cannot be written. Make both writable, or set offline: true for the"
            " service where the file has every answer"
        )
    if code == sqlite3.SQLITE_IOERR or number is not None:
        return "its disk fails. See that it is mounted, has room and works, and run again"
    return (
        "the cache of answers cannot be used. Restore a copy of it, or move it away and run again"
        " (what it held is asked for again)"
    )


def request_key(base_url: str, endpoint: str, body: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical request; the key of its answer."""
    parts = {"version": 1, "base_url": base_url.rstrip("/"), "endpoint": endpoint, "body": body}
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


class AnswerCache:
    """Answers by the digest of their request, in the SQLite file `path`.

    The cache is safe for threads and for concurrent jobs. An `offline` one is read where it lies in
    a folder that cannot be written.

    Raises
    ------
    CacheError
        If the file is no database, a damaged one, or cannot be opened.
    """

    def __init__(self, path: str | Path, offline: bool = False) -> None:
        self.path = Path(path)
        self._held: set[int] = set()
        self._held_guard = threading.Lock()
        self._shipped = (
            offline
            and self.path.exists()
            and not (os.access(self.path.parent, os.W_OK) and os.access(self.path, os.W_OK))
        )
        if not self._shipped:
            self._prepare()
        with self._reading() as database:
            verdict = database.execute("pragma quick_check").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict.replace("\n", " ")[:200])

    def _prepare(self) -> None:
        """Make the folder, the tables, and the file of the locks."""
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._writing() as database:
            for statement in filter(str.strip, _TABLES.split(";")):
                database.execute(statement)
            for table, column in _LATER_COLUMNS.items():
                names = [row[1] for row in database.execute(f"pragma table_info({table})")]
                if column.split()[0] not in names:
                    database.execute(f"alter table {table} add column {column}")
        # One descriptor for the cache's life: closing any descriptor of a file drops all of a
        # process's locks on it.
        with self._explained():
            self._lock_file = os.open(
                self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Failures of the file as errors that say what to do."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise CacheError(f"{self.path}: {error}; {_remedy(error)}") from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        # What cannot be written changes under nobody: SQLite then needs no files beside it.
        name = f"{self.path.absolute().as_uri()}{'?mode=ro&immutable=1' if self._shipped else ''}"
        with (
            self._explained(),
            closing(
                sqlite3.connect(name, timeout=_PATIENCE, isolation_level=None, uri=True)
            ) as database,
        ):
            if not self._shipped:
                database.execute("pragma journal_mode=wal")
            yield database

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as database:
            database.execute("begin immediate")
            try:
                yield database
            except BaseException:
                database.execute("rollback")
                raise
            database.execute("commit")

    @contextmanager
    def asking(self, key: str, go_on: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the right to ask for `key`: no other thread or job asks for it in the meantime.

        The lock is a byte range of one file, which the kernel frees when its holder dies. While
        another one holds it, `go_on` is called again and again; its exception ends the wait.
        """
        while not self._acquire(key):
            go_on()
            time.sleep(0.05)
        try:
            yield
        finally:
            self._free(key)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Hold the right to collect and to submit batches, which one thread or job has at once."""
        with self._explained():
            file = self.path.with_name(f".{self.path.name}.batches").open("w")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _free(self, key: str) -> None:
        offset = int(key[:12], 16)
        with self._held_guard:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN, 1, offset)
            self._held.discard(offset)

    def _acquire(self, key: str) -> bool:
        offset = int(key[:12], 16)
        with self._held_guard:
            if offset in self._held:
                return False
            try:
                fcntl.lockf(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
            except OSError:
                return False
            self._held.add(offset)
            return True

    # -------------------------------------------------------------------------------------- answers

    def get(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Those answers to `keys` that are in the cache, by key."""
        answers = {}
        with self._reading() as database:
            for key in keys:
                row = database.execute(
                    "select response from answers where key = ?", (key,)
                ).fetchone()
                if row:
                    answers[key] = json.loads(row[0])
        return answers

    def put(
        self,
        key: str,
        request: Mapping[str, Any],
        response: Mapping[str, Any],
        service: str,
        usd: float,
    ) -> None:
        """Keep an answer and its cost; the first answer to a request stays.

        A rejection is none: what is put after it takes its place. The cost takes the place of what
        was reserved for the request.

        Parameters
        ----------
        key
            Digest of the request (:func:`request_key`).
        request, response
            The body that was sent, and the kept parts of its answer.
        service
            Name of the service that is charged.
        usd
            Cost of the call in US dollars.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._writing() as database:
            row = (key, canonical_json(request), canonical_json(response), now)
            database.execute(
                "insert into answers values (?, ?, ?, ?) on conflict (key) do update"
                " set response = excluded.response, created = excluded.created"
                " where json_extract(answers.response, '$.rejected') is not null",
                row,
            )
            _charge(database, service, key, usd, confirmed=True)

    # --------------------------------------------------------------------------------------- budget

    def charge(self, service: str, key: str, usd: float) -> None:
        """Count a call that gave no usable answer but may have been billed."""
        with self._writing() as database:
            _charge(database, service, key, usd)

    def spent(self, service: str) -> float:
        """US dollars charged for `service`, confirmed or not."""
        with self._reading() as database:
            return database.execute(
                "select coalesce(sum(usd), 0) from charges where service = ?", (service,)
            ).fetchone()[0]

    def unconfirmed(self, service: str) -> float:
        """US dollars charged for `service` in calls that gave no answer and may have been billed.

        They failed after they were sent, or their job was killed.
        """
        with self._reading() as database:
            return database.execute(
                "select coalesce(sum(usd), 0) from charges where service = ? and confirmed = 0",
                (service,),
            ).fetchone()[0]

    def taken(self, service: str) -> float:
        """US dollars that a budget of `service` has no longer.

        They are charged, reserved for calls under way, or the most that batches can cost that are
        not collected.
        """
        with self._reading() as database:
            return database.execute(f"select {_TAKEN}", {"service": service}).fetchone()[0]

    def settle(self, service: str) -> float:
        """Charge what killed jobs had reserved, and return it in US dollars.

        Their calls may have been answered and billed; the charge is not confirmed.
        """
        with self._writing() as database:
            return self._settle(database, service)

    def _settle(self, database: sqlite3.Connection, service: str, held: str = "") -> float:
        """As :meth:`settle`; a reservation for the key `held` is from before it was held."""
        rows = database.execute(
            "select key, usd from reservations where service = ?", (service,)
        ).fetchall()
        left = [(key, usd) for key, usd in rows if key == held or self._is_left(key)]
        for key, usd in left:
            _charge(database, service, key, usd)
        # An earlier release wrote no keys.
        database.execute("delete from reservations where service = ? and key is null", (service,))
        return sum(usd for _, usd in left)

    def _is_left(self, key: str | None) -> bool:
        """Whether nobody holds the right to ask for `key`, so that its call is over."""
        if key is None:
            return True
        is_free = self._acquire(key)
        if is_free:
            self._free(key)
        return is_free

    @contextmanager
    def reserved(self, service: str, key: str, usd: float, budget: float | None) -> Iterator[bool]:
        """Reserve `usd` of `budget` for the call for `key`, which the caller holds.

        Yields whether the budget has room for it. An error whose attribute ``billed`` is false
        gives the money back; after any other one it counts as that of a killed job.
        """
        if not usd:
            yield True
            return
        with self._writing() as database:
            self._settle(database, service, key)
            taken = database.execute(f"select {_TAKEN}", {"service": service}).fetchone()[0]
            room = budget is None or taken + usd <= budget
            if room:
                database.execute(
                    "insert into reservations (service, usd, key) values (?, ?, ?)",
                    (service, usd, key),
                )
        try:
            yield room
        except Exception as error:
            if room and not getattr(error, "billed", True):
                self._give_back(key)
            raise

    def _give_back(self, key: str) -> None:
        with self._writing() as database:
            database.execute("delete from reservations where key = ?", (key,))

    # --------------------------------------------------------------------------- batches and traits

    def add_batch(self, batch: str, service: str, keys: Sequence[str], usd: float) -> None:
        """Remember a submitted batch, the requests in it, and the most that it can cost."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._writing() as database:
            database.execute(
                "insert into batches (id, service, keys, created, usd) values (?, ?, ?, ?, ?)",
                (batch, service, json.dumps(list(keys)), now, usd),
            )

    def rename_batch(self, before: str, after: str) -> None:
        """Give a batch that was remembered before it had a name that of the server."""
        with self._writing() as database:
            database.execute("update batches set id = ? where id = ?", (after, before))

    def batches(self, service: str) -> dict[str, list[str]]:
        """The requests of those batches of `service` that are not collected yet, by batch."""
        with self._reading() as database:
            rows = database.execute(
                "select id, keys from batches where service = ?", (service,)
            ).fetchall()
        return {batch: json.loads(keys) for batch, keys in rows}

    def drop_batch(self, batch: str) -> None:
        """Forget a batch whose answers are in."""
        with self._writing() as database:
            database.execute("delete from batches where id = ?", (batch,))

    def trait(self, service: str, name: str) -> str | None:
        """A known trait of a server, for example that it refuses response schemas."""
        with self._reading() as database:
            row = database.execute(
                "select value from traits where service = ? and name = ?", (service, name)
            ).fetchone()
        return row[0] if row else None

    def set_trait(self, service: str, name: str, value: str) -> None:
        """Remember a trait that a server turned out to have."""
        with self._writing() as database:
            database.execute(
                "insert or replace into traits values (?, ?, ?)", (service, name, value)
            )

    def close(self) -> None:
        """Fold the write-ahead log into the file, so that the one file can be shipped."""
        if self._shipped:
            return
        with self._reading() as database:
            database.execute("pragma wal_checkpoint(truncate)")
        os.close(self._lock_file)


def _charge(
    database: sqlite3.Connection, service: str, key: str, usd: float, confirmed: bool = False
) -> None:
    """Add a charge, which takes the place of what was reserved for `key`."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    database.execute(
        "insert into charges values (?, ?, ?, ?, ?)", (service, key, usd, confirmed, now)
    )
    database.execute("delete from reservations where key = ?", (key,))
