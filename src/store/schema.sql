-- The store's tables, version 2. Times are milliseconds since 1970 (UTC); words of a verdict are the C ABI's numbers.

-- A verdict, or several equal ones within a window. Rows grow with time.
CREATE TABLE event (
  row            INTEGER PRIMARY KEY,
  opening        INTEGER NOT NULL,            -- random, new at each opening of the store: part of the event's id
  sequence       INTEGER NOT NULL,            -- number of the row within that opening
  time           INTEGER NOT NULL,
  name           TEXT    NOT NULL,
  client         BLOB,                        -- 4 or 16 bytes; of a hash 16
  client_mode    INTEGER NOT NULL,            -- 0 full, 1 truncate, 2 hmac, 3 none
  qtype          INTEGER NOT NULL,
  score          REAL,                        -- NULL: the model did not run
  label          INTEGER NOT NULL,
  decision       INTEGER NOT NULL,
  source         INTEGER NOT NULL,
  action         INTEGER NOT NULL,
  flags          INTEGER NOT NULL,
  sinkhole4      BLOB,
  sinkhole6      BLOB,
  model          INTEGER NOT NULL,            -- key of table model
  vet            REAL    NOT NULL,
  block          REAL    NOT NULL,
  client_group   TEXT,
  count          INTEGER NOT NULL,
  closes         INTEGER NOT NULL,            -- from then on the count is final and the row may be forwarded
  dropped_before INTEGER NOT NULL             -- events lost since the row before
) STRICT;
CREATE INDEX event_by_name ON event (name);

-- The events that no cluster has acknowledged; those neither here nor among the dead letters are delivered.
CREATE TABLE outbox (
  row INTEGER PRIMARY KEY REFERENCES event (row)
) STRICT;

-- Why a cluster will never take an event.
CREATE TABLE dead_letter (
  row    INTEGER PRIMARY KEY REFERENCES event (row),
  time   INTEGER NOT NULL,
  reason TEXT    NOT NULL
) STRICT;

-- What is known of a name over all its events.
CREATE TABLE domain (
  name       TEXT PRIMARY KEY,
  registered TEXT,                            -- NULL: a public suffix or a shared host
  first_seen INTEGER NOT NULL,
  last_seen  INTEGER NOT NULL,
  allowed    INTEGER NOT NULL,
  vetted     INTEGER NOT NULL,
  blocked    INTEGER NOT NULL,
  score      REAL,                            -- the last one
  decision   INTEGER NOT NULL                 -- the last one
) STRICT, WITHOUT ROWID;

-- Administrators' decisions.
CREATE TABLE override (
  id         INTEGER PRIMARY KEY,
  name       TEXT    NOT NULL,
  class      TEXT    NOT NULL,
  author     TEXT    NOT NULL,
  note       TEXT    NOT NULL,
  scope      TEXT    NOT NULL,
  created    INTEGER NOT NULL,
  expires    INTEGER,
  from_index INTEGER NOT NULL,                -- 1: from the cluster's vetting index
  UNIQUE (name, scope, from_index)
) STRICT;

-- Registered domains that the vetting index has to hear of: pending names, decisions made here, decisions taken back.
CREATE TABLE to_vet (
  key     INTEGER PRIMARY KEY,
  name    TEXT    NOT NULL UNIQUE,
  state   TEXT    NOT NULL,                   -- pending, decided, withdrawn
  example TEXT    NOT NULL,
  score   REAL    NOT NULL,
  time    INTEGER NOT NULL,
  count   INTEGER NOT NULL,
  author  TEXT    NOT NULL,
  written INTEGER NOT NULL                    -- 1: the index has it
) STRICT;
CREATE INDEX to_vet_unwritten ON to_vet (key) WHERE written = 0;

CREATE TABLE model (
  id      INTEGER PRIMARY KEY,                -- first 8 bytes of its SHA-256, as a signed number
  name    TEXT NOT NULL,
  version TEXT NOT NULL
) STRICT;

-- Single values: override_generation, clean, instance, cursor_index, cursor_seq_no.
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('override_generation', '0'), ('clean', '1');
