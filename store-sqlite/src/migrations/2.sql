-- Schema 2: the number of a definition's last version leaves its row, so that appending a version does not write the
-- definition's document anew. Its checksum stays as it is: it covers the kind, the id and the number.
CREATE TABLE last_seqs (
  kind       INTEGER NOT NULL,
  definition TEXT    NOT NULL,
  last_seq   INTEGER NOT NULL,  -- of the last version appended, pruned or not; 0 before the first
  sum        INTEGER NOT NULL,
  PRIMARY KEY (kind, definition),
  FOREIGN KEY (kind, definition) REFERENCES definitions (kind, id)
) STRICT, WITHOUT ROWID;
INSERT INTO last_seqs SELECT kind, id, last_seq, seq_sum FROM definitions;

DROP VIEW definitions_view;
ALTER TABLE definitions DROP COLUMN last_seq;
ALTER TABLE definitions DROP COLUMN seq_sum;

-- For people in the sqlite3 shell: each definition as a host reads it, its run state put into the document with
-- times as text. Dividing rounds towards zero, so a time before 1970 takes one second off and adds it to its
-- nanoseconds. A merge patch leaves out what is null.
CREATE VIEW definitions_view AS
WITH times AS (
  SELECT kind, id, owner, name, revision, scheduled, lease_worker, lease_token, doc,
         strftime('%Y-%m-%dT%H:%M:%S', next_run_at / 1000000000 - (next_run_at % 1000000000 < 0), 'unixepoch')
           || printf('.%09dZ', next_run_at % 1000000000 + 1000000000 * (next_run_at % 1000000000 < 0)) AS next_run_at,
         strftime('%Y-%m-%dT%H:%M:%S', last_run_at / 1000000000 - (last_run_at % 1000000000 < 0), 'unixepoch')
           || printf('.%09dZ', last_run_at % 1000000000 + 1000000000 * (last_run_at % 1000000000 < 0)) AS last_run_at,
         strftime('%Y-%m-%dT%H:%M:%S', lease_until / 1000000000 - (lease_until % 1000000000 < 0), 'unixepoch')
           || printf('.%09dZ', lease_until % 1000000000 + 1000000000 * (lease_until % 1000000000 < 0)) AS lease_until
  FROM definitions
)
SELECT CASE kind WHEN 1 THEN 'skill' WHEN 2 THEN 'agent' END AS kind,
       id, owner, name, revision,
       (SELECT last_seq FROM last_seqs l WHERE l.kind = times.kind AND l.definition = times.id) AS last_seq,
       next_run_at, last_run_at, lease_worker, lease_until,
       CASE WHEN scheduled THEN json_patch(doc, json_object('schedule', json_object(
         'next_run_at', next_run_at,
         'last_run_at', last_run_at,
         'lease', CASE WHEN lease_worker IS NULL THEN NULL
                       ELSE json_object('worker', lease_worker, 'until', lease_until, 'token', lease_token) END
       ))) ELSE doc END AS doc
FROM times;

PRAGMA user_version = 2;
