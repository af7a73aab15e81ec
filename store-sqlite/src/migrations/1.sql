-- Schema 1. Read beside sums.rs, which says what each checksum covers.
--
-- Times are nanoseconds since 1970. Checksums are unsigned 64-bit numbers, kept bit for bit in SQLite's signed
-- integers. A document is the record's JSON; the columns beside it that are called "from the document" are derived
-- from it in one place, for indexes, and `verify` compares them with it.

-- One row: the number that revisions and lease tokens were last taken from.
CREATE TABLE meta (
  key   TEXT    NOT NULL PRIMARY KEY,
  value INTEGER NOT NULL,
  sum   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (key, value, sum) VALUES ('counter', 0, 6509316770073341756);

-- Skills (kind 1) and agents (kind 2). The document is last, so that the columns before it are read without it.
CREATE TABLE definitions (
  kind         INTEGER NOT NULL,
  id           TEXT    NOT NULL,
  owner        TEXT    NOT NULL,  -- from the document, as the next five
  name         TEXT    NOT NULL,
  visibility   TEXT    NOT NULL,
  exposed      INTEGER NOT NULL,
  scheduled    INTEGER NOT NULL,
  webhook      TEXT,
  revision     INTEGER NOT NULL,
  last_seq     INTEGER NOT NULL,  -- of the last version appended, pruned or not
  seq_sum      INTEGER NOT NULL,
  next_run_at  INTEGER,           -- the run state: it stands here and nowhere else
  last_run_at  INTEGER,
  lease_worker TEXT,
  lease_until  INTEGER,
  lease_token  INTEGER,
  run_sum      INTEGER NOT NULL,
  doc_sum      INTEGER NOT NULL,
  doc          TEXT    NOT NULL,
  UNIQUE (kind, id),
  UNIQUE (kind, owner, name)
) STRICT;
CREATE UNIQUE INDEX definitions_webhook ON definitions (webhook) WHERE webhook IS NOT NULL;
CREATE INDEX definitions_owner ON definitions (kind, owner, id);
CREATE INDEX definitions_due ON definitions (kind, next_run_at, id) WHERE next_run_at IS NOT NULL;

-- The sets inside a definition's document that lists look in: field is tag, shared or channel.
CREATE TABLE facets (
  kind  INTEGER NOT NULL,
  field TEXT    NOT NULL,
  term  TEXT    NOT NULL,
  id    TEXT    NOT NULL,
  PRIMARY KEY (kind, field, term, id)
) STRICT, WITHOUT ROWID;

-- The document holds the snapshot and what was said of it; pinned is the one thing of a version that changes.
CREATE TABLE versions (
  kind       INTEGER NOT NULL,
  definition TEXT    NOT NULL,
  seq        INTEGER NOT NULL,
  id         TEXT    NOT NULL UNIQUE,
  pinned     INTEGER NOT NULL,
  sum        INTEGER NOT NULL,
  doc        TEXT    NOT NULL,
  UNIQUE (kind, definition, seq),
  FOREIGN KEY (kind, definition) REFERENCES definitions (kind, id)
) STRICT;

-- What each caller has spent on each meter over each window.
CREATE TABLE accounts (
  caller   TEXT    NOT NULL,
  meter    TEXT    NOT NULL,
  "window" TEXT    NOT NULL,
  sum      INTEGER NOT NULL,
  ledger   TEXT    NOT NULL,
  UNIQUE (caller, meter, "window")
) STRICT;

-- The charges that were made under a key, until their window ends.
CREATE TABLE charges (
  caller     TEXT    NOT NULL,
  meter      TEXT    NOT NULL,
  "window"   TEXT    NOT NULL,
  key        TEXT    NOT NULL,
  amount     INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  sum        INTEGER NOT NULL,
  PRIMARY KEY (caller, meter, "window", key),
  FOREIGN KEY (caller, meter, "window") REFERENCES accounts (caller, meter, "window")
) STRICT, WITHOUT ROWID;
CREATE INDEX charges_expiry ON charges (caller, meter, "window", expires_at);

-- Runs. Each index ends in (started_at, id), the order of every list of runs.
CREATE TABLE runs (
  id          TEXT    NOT NULL UNIQUE,
  parent      TEXT,               -- from the document, as the next seven
  skill       TEXT,
  agent       TEXT,
  caller      TEXT    NOT NULL,
  channel     TEXT,
  status      TEXT    NOT NULL,
  started_at  INTEGER NOT NULL,
  finished_at INTEGER,
  sum         INTEGER NOT NULL,
  doc         TEXT    NOT NULL
) STRICT;
CREATE INDEX runs_started ON runs (started_at, id);
CREATE INDEX runs_top     ON runs (started_at, id)          WHERE parent  IS NULL;
CREATE INDEX runs_parent  ON runs (parent, started_at, id)  WHERE parent  IS NOT NULL;
CREATE INDEX runs_skill   ON runs (skill, started_at, id)   WHERE skill   IS NOT NULL;
CREATE INDEX runs_agent   ON runs (agent, started_at, id)   WHERE agent   IS NOT NULL;
CREATE INDEX runs_channel ON runs (channel, started_at, id) WHERE channel IS NOT NULL;
CREATE INDEX runs_caller  ON runs (caller, started_at, id);
CREATE INDEX runs_status  ON runs (status, started_at, id);

-- Events lie in the order in which they came, which is faster to write than the order of their keys.
CREATE TABLE events (
  run     TEXT    NOT NULL,
  seq     INTEGER NOT NULL,
  kind    TEXT    NOT NULL,
  at      INTEGER NOT NULL,
  sum     INTEGER NOT NULL,
  payload TEXT    NOT NULL,
  UNIQUE (run, seq),
  FOREIGN KEY (run) REFERENCES runs (id)
) STRICT;

-- Where runs stand. A run need not be in the audit, so nothing refers to it.
CREATE TABLE checkpoints (
  run          TEXT    NOT NULL UNIQUE,
  iteration    INTEGER NOT NULL,
  lease_worker TEXT,
  lease_until  INTEGER,
  lease_token  INTEGER,
  head_sum     INTEGER NOT NULL,
  doc_sum      INTEGER NOT NULL,
  doc          TEXT    NOT NULL
) STRICT;

-- For people in the sqlite3 shell: each definition as a host reads it, its run state put into the document with
-- times as text. Dividing rounds towards zero, so a time before 1970 takes one second off and adds it to its
-- nanoseconds. A merge patch leaves out what is null.
CREATE VIEW definitions_view AS
WITH times AS (
  SELECT kind, id, owner, name, revision, last_seq, scheduled, lease_worker, lease_token, doc,
         strftime('%Y-%m-%dT%H:%M:%S', next_run_at / 1000000000 - (next_run_at % 1000000000 < 0), 'unixepoch')
           || printf('.%09dZ', next_run_at % 1000000000 + 1000000000 * (next_run_at % 1000000000 < 0)) AS next_run_at,
         strftime('%Y-%m-%dT%H:%M:%S', last_run_at / 1000000000 - (last_run_at % 1000000000 < 0), 'unixepoch')
           || printf('.%09dZ', last_run_at % 1000000000 + 1000000000 * (last_run_at % 1000000000 < 0)) AS last_run_at,
         strftime('%Y-%m-%dT%H:%M:%S', lease_until / 1000000000 - (lease_until % 1000000000 < 0), 'unixepoch')
           || printf('.%09dZ', lease_until % 1000000000 + 1000000000 * (lease_until % 1000000000 < 0)) AS lease_until
  FROM definitions
)
SELECT CASE kind WHEN 1 THEN 'skill' WHEN 2 THEN 'agent' END AS kind,
       id, owner, name, revision, last_seq, next_run_at, last_run_at, lease_worker, lease_until,
       CASE WHEN scheduled THEN json_patch(doc, json_object('schedule', json_object(
         'next_run_at', next_run_at,
         'last_run_at', last_run_at,
         'lease', CASE WHEN lease_worker IS NULL THEN NULL
                       ELSE json_object('worker', lease_worker, 'until', lease_until, 'token', lease_token) END
       ))) ELSE doc END AS doc
FROM times;

PRAGMA application_id = 1634169716;
PRAGMA user_version = 1;
