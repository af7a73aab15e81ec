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
  skill TEXT NOT NULL,
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
