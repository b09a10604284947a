-- Version 1 kept the outbox as a column of the events: 0 pending, 1 delivered, 2 dead letter.
CREATE TABLE outbox (
  row INTEGER PRIMARY KEY REFERENCES event (row)
) STRICT;
INSERT INTO outbox SELECT row FROM event WHERE state = 0;
DROP INDEX event_pending;
ALTER TABLE event DROP COLUMN state;
