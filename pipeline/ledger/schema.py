"""The tables of the ledger, those in its file and the temporary ones, and the upgrades of older files."""

from __future__ import annotations

VERSION = 3

_SPANS = """
CREATE TABLE spans (                -- ranges of sources whose outputs are all up to date; see UnchangedRange
    first BLOB PRIMARY KEY, after BLOB, -- the source with which it begins, and with which the next one does
    sources INTEGER NOT NULL, digest BLOB NOT NULL, counts TEXT NOT NULL
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
    id INTEGER PRIMARY KEY, outputs BLOB NOT NULL
);
"""
_FAILURES = """
CREATE TABLE failures (
    source BLOB NOT NULL, stage TEXT NOT NULL,
    kind TEXT NOT NULL, error TEXT NOT NULL,
    attempts INTEGER NOT NULL,            -- of this source by this recipe, in runs that ended in order
    run TEXT NOT NULL,                    -- the last in which it failed
    tried INTEGER NOT NULL DEFAULT 1,     -- whether a stage was tried there, rather than the plan refusing
    source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
    dismissed_at REAL, dismissed_by TEXT, -- by which pattern
    output TEXT NOT NULL DEFAULT '',      -- what was printed; last, since it may be long and is seldom read
    PRIMARY KEY (source, stage)
) WITHOUT ROWID;
"""
# Keyed by the output's path as the templates write it, so that moving the project redoes nothing; stored in byte order
# of the source, as the walk comes.
_OUTPUTS = """
CREATE TABLE outputs (
    target BLOB NOT NULL UNIQUE,
    source BLOB NOT NULL,
    stage TEXT NOT NULL,
    status TEXT NOT NULL,           -- intended, done or skipped
    source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER,
    reason TEXT,                    -- of a skip
    size INTEGER, mtime_ns INTEGER, -- of the file we wrote; kept by a skip
    at_work INTEGER NOT NULL,       -- whether a job to write it was handed out and is not known to have ended
    digest BLOB,                    -- of the contents of the file we wrote
    source_digest BLOB, source_ctime_ns INTEGER, -- under `changed_by: hash` only
    decree INTEGER,                 -- by which the row says what it does, if not by a run
    part TEXT,                      -- the name of a fan-out's part; empty for all of them together, which have no file
    PRIMARY KEY (source, target)
) WITHOUT ROWID;
"""
_RECIPES = "CREATE TABLE recipes (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, parts TEXT NOT NULL);"
_RUNS = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, started REAL NOT NULL, ended REAL, exit INTEGER, summary TEXT,
    swept INTEGER NOT NULL DEFAULT 0 -- whether nothing of it can be left beside the outputs
);
"""

# Of what failed under version 1, nobody knows of which source and recipe: its attempts count anew.
_FROM_1 = f"""
ALTER TABLE failures ADD COLUMN tried INTEGER NOT NULL DEFAULT 1;
ALTER TABLE failures ADD COLUMN source_size INTEGER;
ALTER TABLE failures ADD COLUMN source_mtime_ns INTEGER;
ALTER TABLE failures ADD COLUMN recipe INTEGER;
ALTER TABLE failures ADD COLUMN dismissed_at REAL;
ALTER TABLE failures ADD COLUMN dismissed_by TEXT;
ALTER TABLE failures ADD COLUMN output TEXT NOT NULL DEFAULT '';
{_SPANS}
"""
_FROM_2 = f"""
ALTER TABLE outputs ADD COLUMN digest BLOB;
ALTER TABLE outputs ADD COLUMN source_digest BLOB;
ALTER TABLE outputs ADD COLUMN source_ctime_ns INTEGER;
ALTER TABLE outputs ADD COLUMN decree INTEGER;
ALTER TABLE outputs ADD COLUMN part TEXT;
{_DIGESTS}{_FACTS}{_DECREES}{_INTENTS}
"""
_NEW = _FAILURES + _RECIPES + _OUTPUTS + _RUNS + _SPANS + _DIGESTS + _FACTS + _DECREES + _INTENTS

# Temporary tables: SQLite keeps them beside the file, and drops them when the connection is closed.
#
# table                                   created, filled and cleared by       read by others
# plan, orphans, readings, past_failures  PlanTables, anew for each plan       GroupTables (orphans)
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
    moved_from BLOB
);
CREATE TEMP TABLE orphans (
    target BLOB PRIMARY KEY, source BLOB, stage TEXT, status TEXT, code TEXT, size INTEGER, mtime_ns INTEGER
) WITHOUT ROWID;
CREATE TEMP TABLE readings ( -- of sources that are as they were, for the rows that say less of them
    target BLOB PRIMARY KEY, digest BLOB, mtime_ns INTEGER, ctime_ns INTEGER
) WITHOUT ROWID;
CREATE TEMP TABLE past_failures (source BLOB, stage TEXT);
"""
MEMBERS_TABLE = """
CREATE TEMP TABLE members (
    stage TEXT, grp BLOB, output BLOB, target BLOB, source BLOB, part TEXT,
    size INTEGER, mtime_ns INTEGER,              -- as it was made, or as somebody has edited it
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

UPGRADES = {0: _NEW, 1: _FROM_1 + _FROM_2, 2: _FROM_2}
"""The statements that bring a file of each older version forward; 0 is the version of an empty file."""
