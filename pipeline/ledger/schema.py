"""The tables of the ledger, those in its file and the temporary ones, and the upgrade of older files."""

from __future__ import annotations

import marshal
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

VERSION = 7

_SPANS = """
CREATE TABLE spans (                -- ranges of sources whose outputs are all up to date; see UnchangedRange
    first BLOB PRIMARY KEY, after BLOB, -- the source with which it begins, and with which the next one does
    sources INTEGER NOT NULL, digest BLOB NOT NULL, counts TEXT NOT NULL,
    layout BLOB NOT NULL DEFAULT X''    -- which files belong to it, where the templates do not tell
) WITHOUT ROWID;
"""
_DIGESTS = """
CREATE TABLE digests (              -- of files that count as part of a recipe, so that each is read once
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    digest TEXT NOT NULL
) WITHOUT ROWID;
"""
_FACTS = """
CREATE TABLE facts (                -- what is true of the pipeline as a whole, such as where its outputs lie; JSON
    name TEXT PRIMARY KEY, value TEXT NOT NULL
) WITHOUT ROWID;
"""
_DECREES = """
CREATE TABLE decrees (              -- what a person had the ledger take as true, such as by `accept` and `adopt`; JSON
    id INTEGER PRIMARY KEY, at REAL NOT NULL, verb TEXT NOT NULL, said TEXT NOT NULL
);
"""
_INTENTS = """
CREATE TABLE intents (              -- outputs handed out to be made, many in a row; see Intents
    id INTEGER PRIMARY KEY, outputs BLOB NOT NULL, since INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE part_intents (         -- fan-outs handed out: what surrounds the name of a part in its path
    target BLOB PRIMARY KEY, source BLOB NOT NULL, stage TEXT NOT NULL, prefix BLOB NOT NULL, suffix BLOB NOT NULL,
    since INTEGER NOT NULL
) WITHOUT ROWID;
"""
_FAILURES = """
CREATE TABLE failures (
    source BLOB NOT NULL, stage TEXT NOT NULL,
    kind TEXT NOT NULL, error TEXT NOT NULL,
    attempts INTEGER NOT NULL,            -- of this source by this recipe, in runs that ended in order
    run TEXT NOT NULL,                    -- the last in which it failed
    tried INTEGER NOT NULL DEFAULT 1,     -- whether a stage was tried there, rather than the plan refusing
    source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
    failed_at INTEGER,                    -- when it failed last; a later change of its inode frees a held file
    first_failed_at INTEGER,              -- when this source failed by this recipe for the first time
    dismissed_at REAL, dismissed_by TEXT, -- by which pattern
    seat INTEGER,                         -- of the worker in which it failed last; none outside of a pool
    place TEXT NOT NULL DEFAULT '',       -- where in the user's code it failed, such as stages/sharpen.py:12
    output TEXT NOT NULL DEFAULT '',      -- what was printed; last, since it may be long and is seldom read
    PRIMARY KEY (source, stage)
) WITHOUT ROWID;
"""
# Keyed by the output's path as the templates write it, so that moving the project redoes nothing; stored in byte order
# of the source, as the walk comes. Times are in nanoseconds since 1970.
_OUTPUTS = """
CREATE TABLE outputs (
    target BLOB NOT NULL UNIQUE,
    source BLOB NOT NULL,
    stage TEXT NOT NULL,
    status TEXT NOT NULL,           -- intended, done or skipped
    source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
    reason TEXT,                    -- of a skip
    size INTEGER, mtime_ns INTEGER, -- of the file we wrote; kept by a skip
    at_work INTEGER NOT NULL,       -- since when a job to write it was handed out that is not known to have ended, or 0
    digest BLOB,                    -- of the contents of the file we wrote
    source_digest BLOB, source_ctime_ns INTEGER, -- under `changed_by: hash`, and once it was in doubt
    decree INTEGER,                 -- by which the row says what it does, if not by a run
    part TEXT,                      -- the name of a fan-out's part; empty for all of them together, which have no file
    recorded INTEGER,               -- when the row was written
    earlier BLOB,                   -- the digests of the contents before these, the newest first
    crc INTEGER NOT NULL DEFAULT 0, -- of all columns above but `at_work`; see `row_sum`
    run INTEGER,                    -- that made it
    seat INTEGER,                   -- of the worker
    seconds REAL, peak_bytes INTEGER, -- of its job, and of the worker's memory by then
    bytes_in INTEGER, bytes_out INTEGER,
    annotations TEXT,               -- small facts about the output; JSON
    PRIMARY KEY (source, target)
) WITHOUT ROWID;
CREATE VIEW made AS                 -- what reports read: each output with the run that made it
SELECT source, stage, target, part, status, size, recorded, runs.name AS run, host, seat, seconds, peak_bytes,
    bytes_in, bytes_out, annotations
FROM outputs LEFT JOIN runs ON runs.id = outputs.run;
"""
_RECIPES = "CREATE TABLE recipes (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, parts TEXT NOT NULL);"
_RUNS = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,       -- as logs and temporaries have it
    started INTEGER NOT NULL,
    boot TEXT,                       -- which start of the machine it was
    synced_until INTEGER,            -- before then all that it made is on the disk
    ended INTEGER,                   -- when all of it was; nothing if it did not end in order
    unsure_since INTEGER, unsure_until INTEGER, unsure_why TEXT, -- the period it began with; see Window
    exit INTEGER, summary TEXT,      -- its counts, as `--json` prints them
    host TEXT, versions TEXT,        -- of Python and filemill; JSON
    swept INTEGER NOT NULL DEFAULT 0 -- whether nothing of it can be left beside the outputs
);
"""
_DAYS = """
CREATE TABLE days (                 -- runs older than the last ones, a row a day (local time)
    day TEXT PRIMARY KEY,           -- such as 2026-11-30
    first_run INTEGER NOT NULL, last_run INTEGER NOT NULL, -- the numbers of its runs, to which outputs refer
    runs INTEGER NOT NULL,
    exits TEXT NOT NULL,            -- how many runs ended with which exit code; JSON
    totals TEXT NOT NULL,           -- the sums of their counts, seconds and bytes; JSON
    hosts TEXT NOT NULL, versions TEXT NOT NULL -- of all of them; JSON
) WITHOUT ROWID;
"""
_FOLDERS = """
CREATE TABLE folders (              -- folders of the inputs as runs found them; see InputFolder
    folder BLOB PRIMARY KEY, mount BLOB NOT NULL, files INTEGER NOT NULL, is_lost INTEGER NOT NULL
) WITHOUT ROWID;
"""
_ALL = _FAILURES + _RECIPES + _RUNS + _OUTPUTS + _SPANS + _DIGESTS + _FACTS + _DECREES + _INTENTS + _FOLDERS + _DAYS
TABLES = frozenset(
    [
        *("failures", "recipes", "runs", "outputs", "spans", "digests", "facts", "decrees", "intents", "part_intents"),
        "folders",
        "days",
    ]
)
"""All tables of a ledger of this version."""
_TABLES_OF_1 = frozenset({"failures", "recipes", "runs", "outputs"})
"""The tables of the first version, which every later one has too."""
# Without these columns of `outputs` nothing can be told of an output.
_NEEDED = {"target", "source", "stage", "status", "source_size", "source_mtime_ns", "recipe", "size", "mtime_ns"}

RECORD_COLUMNS = (
    "source, target, stage, status, source_size, source_mtime_ns, recipe, reason, size, mtime_ns, at_work,"
    " digest, source_digest, source_ctime_ns, decree, part, recorded, earlier"
)
"""The columns of `outputs` that the plan reads, and that the row's checksum covers."""
AT_WORK = 10
"""The place of `at_work` among them, which is left out of the checksum: it is set for many rows at a time."""
SUMMED_COLUMNS = RECORD_COLUMNS.replace(" at_work,", "")
# Marshal takes a third of the time of repr. Its format 0 depends on nothing but the values: later ones tell equal texts
# apart by whether Python keeps them once, and refer to what came before.
SUM_FORMAT = 0
packed: Callable[[object, int], bytes] = marshal.dumps  # type: ignore[assignment]


def row_sum(*values: object) -> int:
    """Return the checksum of a row of `outputs`, given its `SUMMED_COLUMNS`."""
    return zlib.crc32(packed(values, SUM_FORMAT))


def _row_sum_by_repr(*values: object) -> int:
    """Return the checksum that versions before 6 gave a row."""
    return zlib.crc32(repr(values).encode())


class TooOld(Exception):
    """The file is of a version that cannot be brought forward."""


def tables_of(connection: sqlite3.Connection) -> set[str]:
    """Return the names of the tables of a ledger's file."""
    return {name for (name,) in connection.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'")}


def has_lost_tables(connection: sqlite3.Connection) -> bool:
    """Return whether the file of a ledger that was written before lacks any of its version's tables."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:  # word for word: a flipped bit may have renamed a column
        with closing(sqlite3.connect(":memory:")) as ours:
            ours.executescript(_ALL)
            return _statements(connection) != _statements(ours)
    return version <= 0 or (version < VERSION and not tables_of(connection) >= _TABLES_OF_1)


def _statements(connection: sqlite3.Connection) -> set[str]:
    return {sql for (sql,) in connection.execute("SELECT sql FROM main.sqlite_schema WHERE sql IS NOT NULL")}


def create_or_upgrade(connection: sqlite3.Connection) -> None:
    """Make the tables of an empty file, and bring an older one forward. Raises TooOld."""
    connection.create_function("row_sum", -1, row_sum, deterministic=True)
    connection.create_function("row_sum_by_repr", -1, _row_sum_by_repr, deterministic=True)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    steps = [_ALL] if version == 0 else _steps_of_upgrade(connection)
    connection.executescript(f"BEGIN IMMEDIATE; {' '.join(steps)} PRAGMA user_version={VERSION}; COMMIT")


def create(file: Path) -> None:
    """Make the file of an empty ledger, whole or not at all, so that whatever else is found there is a damaged one."""
    new = file.with_suffix(".new")
    for left in (new, new.with_name(f"{new.name}-wal")):
        left.unlink(missing_ok=True)
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        # The first run brings it to the disk before it makes anything.
        connection.executescript("PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=OFF; PRAGMA journal_mode=WAL")
        create_or_upgrade(connection)
    new.replace(file)


def _steps_of_upgrade(connection: sqlite3.Connection) -> Sequence[str]:
    """Return the statements that copy what the tables of an older file have in common with ours."""
    with closing(sqlite3.connect(":memory:")) as ours:
        ours.executescript(_ALL)
        new = {table: _columns(ours, table) for table in TABLES}
    old = {table: _columns(connection, table) for table in tables_of(connection) & TABLES}
    if not set(old["outputs"]) >= _NEEDED:
        raise TooOld
    steps = ["DROP VIEW IF EXISTS made;"]
    steps += [f"ALTER TABLE {table} RENAME TO old_{table};" for table in old]
    steps.append(_ALL)
    for table in old:
        shared = {column: column for column in new[table] if column in old[table]}
        if table == "runs" and "name" not in old["runs"]:  # times were in seconds, and nothing was said of the boot
            shared = {"name": "id", "started": "started * 1000000000", "synced_until": "started * 1000000000"}
            shared |= {"ended": "ended * 1000000000"} | {c: c for c in ("exit", "summary") if c in old["runs"]}
        steps.append(f"INSERT INTO {table} ({', '.join(shared)}) SELECT {', '.join(shared.values())} FROM old_{table}"
                     f"{' ORDER BY started' if table == 'runs' else ''};")  # fmt: skip
    steps += [f"DROP TABLE old_{table};" for table in old]
    # A row that was damaged before stays so.
    which = f" WHERE crc = row_sum_by_repr({SUMMED_COLUMNS})" if "crc" in old["outputs"] else ""
    steps.append(f"UPDATE outputs SET crc = row_sum({SUMMED_COLUMNS}){which};")
    behind = "FROM facts WHERE name = 'behind'"
    steps.append(
        f"UPDATE runs SET unsure_since = (SELECT json_extract(value, '$[0]') {behind})"
        f" WHERE id = (SELECT max(id) FROM runs) AND EXISTS (SELECT 1 {behind}); DELETE {behind}; DELETE FROM spans;"
        " DELETE FROM facts WHERE name = 'sources';"
    )
    return steps


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


# Temporary tables: SQLite keeps them beside the file, and drops them when the connection is closed.
#
# table                                   created, filled and cleared by       read by others
# plan, orphans, readings, past_failures  PlanTables, anew for each plan       GroupTables (orphans)
# seen, moves, long_jobs                  PlanTables, anew for each plan       InputFolders (seen)
# members, absent                         GroupTables, cleared to plan anew    -
# listed                                  Ledger.list_sources, once            Ledger.outputs and .failures, if `listed`
# changed                                 Failures, in the course of a run     -
PLAN_TABLES = """
CREATE TEMP TABLE plan (
    seq INTEGER PRIMARY KEY,
    source BLOB, source_size INTEGER, source_mtime_ns INTEGER,
    stage TEXT, action TEXT,
    reason TEXT, -- a code; or a list in JSON of the code and its particulars
    path BLOB, target BLOB,
    rival BLOB, owned INTEGER, late INTEGER,
    leads INTEGER, -- whether it is what is said of its source as a whole
    moved_from BLOB,
    vacant INTEGER -- whether nothing lies at the path
);
CREATE TEMP TABLE long_jobs ( -- the jobs that are handed out first, in this order, by one of the outputs of each
    place INTEGER PRIMARY KEY, source BLOB NOT NULL UNIQUE, seq INTEGER NOT NULL
);
CREATE TEMP TABLE orphans (
    target BLOB PRIMARY KEY, source BLOB, stage TEXT, status TEXT, code TEXT, size INTEGER, mtime_ns INTEGER,
    digests BLOB, spared INTEGER NOT NULL DEFAULT 0 -- whether it is kept as the old output of what fails
) WITHOUT ROWID;
CREATE TEMP TABLE readings ( -- of sources that are as they were, for the rows that say less of them
    target BLOB PRIMARY KEY, mtime_ns INTEGER, digest BLOB, ctime_ns INTEGER -- the last two of those that were read
) WITHOUT ROWID;
CREATE TEMP TABLE touched ( -- outputs whose contents are as recorded and whose time is not
    target BLOB PRIMARY KEY, mtime_ns INTEGER
) WITHOUT ROWID;
CREATE TEMP TABLE past_failures (source BLOB, stage TEXT);
CREATE TEMP TABLE moves ( -- new sources, each with the one source that is gone and had its size and time
    source BLOB PRIMARY KEY, seq INTEGER, gone BLOB, size INTEGER, mtime_ns INTEGER, digest BLOB
) WITHOUT ROWID;
CREATE TEMP TABLE seen ( -- folders in which the walk met files, as far as the ledger keeps them
    folder BLOB PRIMARY KEY, mount BLOB, files INTEGER
) WITHOUT ROWID;
"""
MEMBERS_TABLE = """
CREATE TEMP TABLE members (
    stage TEXT, grp BLOB, output BLOB, target BLOB, source BLOB, part TEXT,
    contents BLOB,                               -- their digest as it was made; none if somebody has edited it
    found_size INTEGER, found_mtime_ns INTEGER,  -- as it is
    PRIMARY KEY (stage, grp, output, target)
) WITHOUT ROWID
"""
ABSENT_TABLE = """
CREATE TEMP TABLE absent (
    stage TEXT, grp BLOB, output BLOB, source BLOB, how TEXT, PRIMARY KEY (stage, grp, output, source)
) WITHOUT ROWID
"""
LISTED_TABLE = "CREATE TEMP TABLE listed (path BLOB PRIMARY KEY) WITHOUT ROWID"
CHANGED_TABLE = "CREATE TEMP TABLE changed (source BLOB, stage TEXT)"
