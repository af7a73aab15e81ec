CREATE TABLE counter (value INTEGER NOT NULL) STRICT;
INSERT INTO counter VALUES (0);

CREATE TABLE skills (
  id           TEXT NOT NULL PRIMARY KEY,
  owner        TEXT NOT NULL,
  name         TEXT NOT NULL,
  last_seq     INTEGER NOT NULL,
  next_run_at  INTEGER,
  last_run_at  INTEGER,
  lease_worker TEXT,
  lease_until  INTEGER,
  lease_token  INTEGER,
  doc          TEXT NOT NULL,
  UNIQUE (owner, name)
) STRICT;
CREATE INDEX skills_due ON skills (next_run_at, id) WHERE next_run_at IS NOT NULL;

CREATE TABLE versions (
  id    TEXT NOT NULL UNIQUE,
  skill TEXT NOT NULL REFERENCES skills (id),
  seq   INTEGER NOT NULL,
  doc   TEXT NOT NULL,
  UNIQUE (skill, seq)
) STRICT;

CREATE TABLE accounts (
  caller   TEXT NOT NULL,
  meter    TEXT NOT NULL,
  "window" TEXT NOT NULL,
  ledger   TEXT NOT NULL,
  UNIQUE (caller, meter, "window")
) STRICT;

-- start is the document of the run as it began, finish that of its end.
CREATE TABLE runs (
  id            TEXT NOT NULL PRIMARY KEY,
  parent        TEXT,
  skill         TEXT,
  agent         TEXT,
  caller        TEXT NOT NULL,
  channel       TEXT,
  status        TEXT NOT NULL,
  started_at    INTEGER NOT NULL,
  finished_at   INTEGER,
  cost          INTEGER NOT NULL DEFAULT 0,
  input_tokens  INTEGER NOT NULL DEFAULT 0,
  output_tokens INTEGER NOT NULL DEFAULT 0,
  start         TEXT NOT NULL,
  finish        TEXT
) STRICT;
CREATE INDEX runs_started ON runs (started_at, id);
CREATE INDEX runs_top     ON runs (started_at, id)          WHERE parent  IS NULL;
CREATE INDEX runs_parent  ON runs (parent, started_at, id)  WHERE parent  IS NOT NULL;
CREATE INDEX runs_skill   ON runs (skill, started_at, id)   WHERE skill   IS NOT NULL;
CREATE INDEX runs_agent   ON runs (agent, started_at, id)   WHERE agent   IS NOT NULL;
CREATE INDEX runs_channel ON runs (channel, started_at, id) WHERE channel IS NOT NULL;
CREATE INDEX runs_caller  ON runs (caller, started_at, id);
CREATE INDEX runs_status  ON runs (status, started_at, id);

CREATE TABLE events (
  run     TEXT NOT NULL REFERENCES runs (id),
  seq     INTEGER NOT NULL,
  kind    TEXT NOT NULL,
  at      INTEGER NOT NULL,
  payload TEXT NOT NULL,
  UNIQUE (run, seq)
) STRICT;

CREATE TABLE checkpoints (
  run       TEXT NOT NULL PRIMARY KEY,
  iteration INTEGER NOT NULL,
  doc       TEXT NOT NULL
) STRICT;
