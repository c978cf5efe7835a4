"""The tables of ledgers as older versions of the program made them, and a ledger written as one of those."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

OLD_SCHEMAS = {
    1: """
CREATE TABLE failures (
 source BLOB NOT NULL, stage TEXT NOT NULL,
 kind TEXT NOT NULL, error TEXT NOT NULL,
 attempts INTEGER NOT NULL,
 run TEXT NOT NULL,
 PRIMARY KEY (source, stage)
) WITHOUT ROWID;
CREATE TABLE outputs (
 target BLOB NOT NULL UNIQUE,
 source BLOB NOT NULL,
 stage TEXT NOT NULL,
 status TEXT NOT NULL,
 source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
 reason TEXT,
 size INTEGER, mtime_ns INTEGER,
 at_work INTEGER NOT NULL,
 PRIMARY KEY (source, target)
) WITHOUT ROWID;
CREATE TABLE recipes (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, parts TEXT NOT NULL);
CREATE TABLE runs (
 id TEXT PRIMARY KEY, started REAL NOT NULL, ended REAL, exit INTEGER, summary TEXT,
 swept INTEGER NOT NULL DEFAULT 0
);
""",
    2: """
CREATE TABLE failures (
 source BLOB NOT NULL, stage TEXT NOT NULL,
 kind TEXT NOT NULL, error TEXT NOT NULL,
 attempts INTEGER NOT NULL,
 run TEXT NOT NULL,
 tried INTEGER NOT NULL DEFAULT 1,
 source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
 dismissed_at REAL, dismissed_by TEXT,
 output TEXT NOT NULL DEFAULT '',
 PRIMARY KEY (source, stage)
) WITHOUT ROWID;
CREATE TABLE outputs (
 target BLOB NOT NULL UNIQUE,
 source BLOB NOT NULL,
 stage TEXT NOT NULL,
 status TEXT NOT NULL,
 source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
 reason TEXT,
 size INTEGER, mtime_ns INTEGER,
 at_work INTEGER NOT NULL,
 PRIMARY KEY (source, target)
) WITHOUT ROWID;
CREATE TABLE recipes (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, parts TEXT NOT NULL);
CREATE TABLE runs (
 id TEXT PRIMARY KEY, started REAL NOT NULL, ended REAL, exit INTEGER, summary TEXT,
 swept INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE spans (
 first BLOB PRIMARY KEY, after BLOB,
 sources INTEGER NOT NULL, digest BLOB NOT NULL, counts TEXT NOT NULL
) WITHOUT ROWID;
""",
    3: """
CREATE TABLE decrees (
 id INTEGER PRIMARY KEY, at REAL NOT NULL, verb TEXT NOT NULL, said TEXT NOT NULL
);
CREATE TABLE digests (
 path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
 digest TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE facts (
 name TEXT PRIMARY KEY, value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE failures (
 source BLOB NOT NULL, stage TEXT NOT NULL,
 kind TEXT NOT NULL, error TEXT NOT NULL,
 attempts INTEGER NOT NULL,
 run TEXT NOT NULL,
 tried INTEGER NOT NULL DEFAULT 1,
 source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
 dismissed_at REAL, dismissed_by TEXT,
 output TEXT NOT NULL DEFAULT '',
 PRIMARY KEY (source, stage)
) WITHOUT ROWID;
CREATE TABLE intents (
 id INTEGER PRIMARY KEY, outputs BLOB NOT NULL
);
CREATE TABLE outputs (
 target BLOB NOT NULL UNIQUE,
 source BLOB NOT NULL,
 stage TEXT NOT NULL,
 status TEXT NOT NULL,
 source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
 reason TEXT,
 size INTEGER, mtime_ns INTEGER,
 at_work INTEGER NOT NULL,
 digest BLOB,
 source_digest BLOB, source_ctime_ns INTEGER,
 decree INTEGER,
 part TEXT,
 PRIMARY KEY (source, target)
) WITHOUT ROWID;
CREATE TABLE recipes (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, parts TEXT NOT NULL);
CREATE TABLE runs (
 id TEXT PRIMARY KEY, started REAL NOT NULL, ended REAL, exit INTEGER, summary TEXT,
 swept INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE spans (
 first BLOB PRIMARY KEY, after BLOB,
 sources INTEGER NOT NULL, digest BLOB NOT NULL, counts TEXT NOT NULL
) WITHOUT ROWID;
""",
    4: """
CREATE TABLE decrees (
 id INTEGER PRIMARY KEY, at REAL NOT NULL, verb TEXT NOT NULL, said TEXT NOT NULL
);
CREATE TABLE digests (
 path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
 digest TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE facts (
 name TEXT PRIMARY KEY, value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE failures (
 source BLOB NOT NULL, stage TEXT NOT NULL,
 kind TEXT NOT NULL, error TEXT NOT NULL,
 attempts INTEGER NOT NULL,
 run TEXT NOT NULL,
 tried INTEGER NOT NULL DEFAULT 1,
 source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
 dismissed_at REAL, dismissed_by TEXT,
 output TEXT NOT NULL DEFAULT '',
 PRIMARY KEY (source, stage)
) WITHOUT ROWID;
CREATE TABLE intents (
 id INTEGER PRIMARY KEY, outputs BLOB NOT NULL, since INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE outputs (
 target BLOB NOT NULL UNIQUE,
 source BLOB NOT NULL,
 stage TEXT NOT NULL,
 status TEXT NOT NULL,
 source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
 reason TEXT,
 size INTEGER, mtime_ns INTEGER,
 at_work INTEGER NOT NULL,
 digest BLOB,
 source_digest BLOB, source_ctime_ns INTEGER,
 decree INTEGER,
 part TEXT,
 recorded INTEGER,
 earlier BLOB,
 crc INTEGER NOT NULL DEFAULT 0,
 run INTEGER,
 seat INTEGER,
 seconds REAL, peak_bytes INTEGER,
 bytes_in INTEGER, bytes_out INTEGER,
 annotations TEXT,
 PRIMARY KEY (source, target)
) WITHOUT ROWID;
CREATE TABLE part_intents (
 target BLOB PRIMARY KEY, source BLOB NOT NULL, stage TEXT NOT NULL, prefix BLOB NOT NULL, suffix BLOB NOT NULL,
 since INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE recipes (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, parts TEXT NOT NULL);
CREATE TABLE runs (
 id INTEGER PRIMARY KEY,
 name TEXT NOT NULL UNIQUE,
 started INTEGER NOT NULL,
 boot TEXT,
 synced_until INTEGER,
 ended INTEGER,
 unsure_since INTEGER, unsure_until INTEGER, unsure_why TEXT,
 exit INTEGER, summary TEXT,
 host TEXT, versions TEXT,
 swept INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE spans (
 first BLOB PRIMARY KEY, after BLOB,
 sources INTEGER NOT NULL, digest BLOB NOT NULL, counts TEXT NOT NULL
) WITHOUT ROWID;
CREATE VIEW made AS
SELECT source, stage, target, part, status, size, recorded, runs.name AS run, host, seat, seconds, peak_bytes,
 bytes_in, bytes_out, annotations
FROM outputs LEFT JOIN runs ON runs.id = outputs.run;
""",
    5: """
CREATE TABLE failures (
 source BLOB NOT NULL, stage TEXT NOT NULL,
 kind TEXT NOT NULL, error TEXT NOT NULL,
 attempts INTEGER NOT NULL,
 run TEXT NOT NULL,
 tried INTEGER NOT NULL DEFAULT 1,
 source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
 failed_at INTEGER,
 first_failed_at INTEGER,
 dismissed_at REAL, dismissed_by TEXT,
 output TEXT NOT NULL DEFAULT '',
 PRIMARY KEY (source, stage)
) WITHOUT ROWID;
CREATE TABLE recipes (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, parts TEXT NOT NULL);
CREATE TABLE runs (
 id INTEGER PRIMARY KEY,
 name TEXT NOT NULL UNIQUE,
 started INTEGER NOT NULL,
 boot TEXT,
 synced_until INTEGER,
 ended INTEGER,
 unsure_since INTEGER, unsure_until INTEGER, unsure_why TEXT,
 exit INTEGER, summary TEXT,
 host TEXT, versions TEXT,
 swept INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE outputs (
 target BLOB NOT NULL UNIQUE,
 source BLOB NOT NULL,
 stage TEXT NOT NULL,
 status TEXT NOT NULL,
 source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
 reason TEXT,
 size INTEGER, mtime_ns INTEGER,
 at_work INTEGER NOT NULL,
 digest BLOB,
 source_digest BLOB, source_ctime_ns INTEGER,
 decree INTEGER,
 part TEXT,
 recorded INTEGER,
 earlier BLOB,
 crc INTEGER NOT NULL DEFAULT 0,
 run INTEGER,
 seat INTEGER,
 seconds REAL, peak_bytes INTEGER,
 bytes_in INTEGER, bytes_out INTEGER,
 annotations TEXT,
 PRIMARY KEY (source, target)
) WITHOUT ROWID;
CREATE VIEW made AS
SELECT source, stage, target, part, status, size, recorded, runs.name AS run, host, seat, seconds, peak_bytes,
 bytes_in, bytes_out, annotations
FROM outputs LEFT JOIN runs ON runs.id = outputs.run;
CREATE TABLE spans (
 first BLOB PRIMARY KEY, after BLOB,
 sources INTEGER NOT NULL, digest BLOB NOT NULL, counts TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE digests (
 path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
 digest TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE facts (
 name TEXT PRIMARY KEY, value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE decrees (
 id INTEGER PRIMARY KEY, at REAL NOT NULL, verb TEXT NOT NULL, said TEXT NOT NULL
);
CREATE TABLE intents (
 id INTEGER PRIMARY KEY, outputs BLOB NOT NULL, since INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE part_intents (
 target BLOB PRIMARY KEY, source BLOB NOT NULL, stage TEXT NOT NULL, prefix BLOB NOT NULL, suffix BLOB NOT NULL,
 since INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE folders (
 folder BLOB PRIMARY KEY, mount BLOB NOT NULL, files INTEGER NOT NULL, is_lost INTEGER NOT NULL
) WITHOUT ROWID;
""",
    6: """
CREATE TABLE failures (
 source BLOB NOT NULL, stage TEXT NOT NULL,
 kind TEXT NOT NULL, error TEXT NOT NULL,
 attempts INTEGER NOT NULL,
 run TEXT NOT NULL,
 tried INTEGER NOT NULL DEFAULT 1,
 source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
 failed_at INTEGER,
 first_failed_at INTEGER,
 dismissed_at REAL, dismissed_by TEXT,
 output TEXT NOT NULL DEFAULT '',
 PRIMARY KEY (source, stage)
) WITHOUT ROWID;
CREATE TABLE recipes (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, parts TEXT NOT NULL);
CREATE TABLE runs (
 id INTEGER PRIMARY KEY,
 name TEXT NOT NULL UNIQUE,
 started INTEGER NOT NULL,
 boot TEXT,
 synced_until INTEGER,
 ended INTEGER,
 unsure_since INTEGER, unsure_until INTEGER, unsure_why TEXT,
 exit INTEGER, summary TEXT,
 host TEXT, versions TEXT,
 swept INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE outputs (
 target BLOB NOT NULL UNIQUE,
 source BLOB NOT NULL,
 stage TEXT NOT NULL,
 status TEXT NOT NULL,
 source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
 reason TEXT,
 size INTEGER, mtime_ns INTEGER,
 at_work INTEGER NOT NULL,
 digest BLOB,
 source_digest BLOB, source_ctime_ns INTEGER,
 decree INTEGER,
 part TEXT,
 recorded INTEGER,
 earlier BLOB,
 crc INTEGER NOT NULL DEFAULT 0,
 run INTEGER,
 seat INTEGER,
 seconds REAL, peak_bytes INTEGER,
 bytes_in INTEGER, bytes_out INTEGER,
 annotations TEXT,
 PRIMARY KEY (source, target)
) WITHOUT ROWID;
CREATE VIEW made AS
SELECT source, stage, target, part, status, size, recorded, runs.name AS run, host, seat, seconds, peak_bytes,
 bytes_in, bytes_out, annotations
FROM outputs LEFT JOIN runs ON runs.id = outputs.run;
CREATE TABLE spans (
 first BLOB PRIMARY KEY, after BLOB,
 sources INTEGER NOT NULL, digest BLOB NOT NULL, counts TEXT NOT NULL,
 layout BLOB NOT NULL DEFAULT X''
) WITHOUT ROWID;
CREATE TABLE digests (
 path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
 digest TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE facts (
 name TEXT PRIMARY KEY, value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE decrees (
 id INTEGER PRIMARY KEY, at REAL NOT NULL, verb TEXT NOT NULL, said TEXT NOT NULL
);
CREATE TABLE intents (
 id INTEGER PRIMARY KEY, outputs BLOB NOT NULL, since INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE part_intents (
 target BLOB PRIMARY KEY, source BLOB NOT NULL, stage TEXT NOT NULL, prefix BLOB NOT NULL, suffix BLOB NOT NULL,
 since INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE folders (
 folder BLOB PRIMARY KEY, mount BLOB NOT NULL, files INTEGER NOT NULL, is_lost INTEGER NOT NULL
) WITHOUT ROWID;
""",
}


def write_as(version: int, file: Path) -> None:
    """Write the rows of a ledger that is closed into a file of an older version, in its place, as that left it."""
    old = file.with_name("old.sqlite")
    with closing(sqlite3.connect(old)) as made:
        made.executescript(f"{OLD_SCHEMAS[version]} PRAGMA user_version={version}")
        made.execute("ATTACH ? AS new", (str(file),))
        for (table,) in made.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'").fetchall():
            if table == "intents":
                continue
            columns = [row[1] for row in made.execute(f"PRAGMA main.table_info({table})")]
            values = [_AS_BEFORE.get(each, each) for each in columns] if table == "runs" and version < 4 else columns
            made.execute(f"INSERT INTO main.{table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM new.{table}")
        if version == 5:  # the first with checksums
            summed = ", ".join(_SUMMED_IN_5.split())
            made.create_function("row_sum", -1, lambda *values: zlib.crc32(repr(values).encode()))
            made.execute(f"UPDATE main.outputs SET crc = row_sum({summed})")
        made.commit()
        made.execute("DETACH new")
    for new in file.parent.glob("ledger-good*"):
        new.unlink()
    old.replace(file)


_SUMMED_IN_5 = """
source target stage status source_size source_mtime_ns recipe reason size mtime_ns
digest source_digest source_ctime_ns decree part recorded earlier
"""
# The columns of the table of runs that held something else.
_AS_BEFORE = {"id": "name", "started": "started / 1e9", "ended": "ended / 1e9"}
