"""The cache of a language-model service's answers.

It is one SQLite file that jobs share and that a paper can ship.

An answer is kept under the digest of the full request, without any key. Beside answers stand their
costs, the money that is reserved for calls under way, submitted batches, and the features that a
server turned out not to support.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lfp.files.canonical import canonical_json

_TABLES = """
create table if not exists answers (
    key text primary key, request text, response text, created text);
create table if not exists charges (
    service text, key text, usd real, confirmed integer, created text);
create table if not exists reservations (
    id integer primary key, service text, usd real, expires real);
create table if not exists batches (id text primary key, service text, keys text, created text);
create table if not exists traits (
    service text, name text, value text, primary key (service, name));
"""


class CacheError(RuntimeError):
    """A cache file cannot be read."""


def request_key(base_url: str, endpoint: str, body: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical request; the key of its answer."""
    parts = {"version": 1, "base_url": base_url.rstrip("/"), "endpoint": endpoint, "body": body}
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


class AnswerCache:
    """Answers by the digest of their request, in the SQLite file `path`.

    The cache is safe for threads and for concurrent jobs.

    Raises
    ------
    CacheError
        If the file is no database, or a damaged one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._writing() as database:
            for statement in filter(str.strip, _TABLES.split(";")):
                database.execute(statement)
        with self._reading() as database:
            verdict = database.execute("pragma quick_check").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict.replace("\n", " ")[:200])
        # One descriptor for the cache's life: closing any descriptor of a file drops all of a
        # process's locks on it.
        self._lock_file = os.open(
            self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644
        )
        self._held: set[int] = set()
        self._held_guard = threading.Lock()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=120, isolation_level=None)) as database:
                database.execute("pragma journal_mode=wal")
                yield database
        except sqlite3.DatabaseError as error:
            raise CacheError(
                f"{self.path}: {error}; the cache of answers cannot be used. Restore a copy of it,"
                " or move it away and run again (what it held is asked for again)"
            ) from error

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
    def asking(self, key: str) -> Iterator[None]:
        """Hold the right to ask for `key`: no other thread or job asks for it in the meantime.

        The lock is a byte range of one file, which the kernel frees when its holder dies.
        """
        offset = int(key[:12], 16)
        while not self._acquire(offset):
            time.sleep(0.05)
        try:
            yield
        finally:
            with self._held_guard:
                fcntl.lockf(self._lock_file, fcntl.LOCK_UN, 1, offset)
                self._held.discard(offset)

    def _acquire(self, offset: int) -> bool:
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

        A rejection is none: what is put after it takes its place.

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
            database.execute("insert into charges values (?, ?, ?, 1, ?)", (service, key, usd, now))

    # --------------------------------------------------------------------------------------- budget

    def charge(self, service: str, key: str, usd: float) -> None:
        """Count a call that gave no usable answer but may have been billed."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._writing() as database:
            database.execute("insert into charges values (?, ?, ?, 0, ?)", (service, key, usd, now))

    def spent(self, service: str) -> float:
        """US dollars charged for `service`, confirmed or not."""
        with self._reading() as database:
            return database.execute(
                "select coalesce(sum(usd), 0) from charges where service = ?", (service,)
            ).fetchone()[0]

    @contextmanager
    def reserved(
        self, service: str, usd: float, budget: float | None, seconds: float
    ) -> Iterator[bool]:
        """Reserve `usd` of `budget` for a call of at most `seconds`.

        Yields whether the budget has room for it.
        """
        if budget is None:
            yield True
            return
        with self._writing() as database:
            now = time.time()
            database.execute("delete from reservations where expires < ?", (now,))
            taken = database.execute(
                "select (select coalesce(sum(usd), 0) from charges where service = ?)"
                " + (select coalesce(sum(usd), 0) from reservations where service = ?)",
                (service, service),
            ).fetchone()[0]
            room = taken + usd <= budget
            if room:
                row = (service, usd, now + seconds)
                number = database.execute(
                    "insert into reservations (service, usd, expires) values (?, ?, ?)", row
                ).lastrowid
        try:
            yield room
        finally:
            if room:
                with self._writing() as database:
                    database.execute("delete from reservations where id = ?", (number,))

    # --------------------------------------------------------------------------- batches and traits

    def add_batch(self, batch: str, service: str, keys: Sequence[str]) -> None:
        """Remember a submitted batch and the requests in it."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._writing() as database:
            database.execute(
                "insert into batches values (?, ?, ?, ?)",
                (batch, service, json.dumps(list(keys)), now),
            )

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
        with self._reading() as database:
            database.execute("pragma wal_checkpoint(truncate)")
        os.close(self._lock_file)
