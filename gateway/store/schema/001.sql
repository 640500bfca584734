-- Version 1. Times are microseconds since 1970, UTC. Sequence numbers are never used again (AUTOINCREMENT).

CREATE TABLE about (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

INSERT INTO about VALUES ('indexed', '0');

-- A Source or Destination by its configured name; the number stays when the configuration changes.
CREATE TABLE endpoint (
    id INTEGER PRIMARY KEY,
    role TEXT NOT NULL CHECK (role IN ('source', 'destination')),
    name TEXT NOT NULL,
    UNIQUE (role, name)
);

-- Append-only. raw is the bytes as received, NULL where they lie in the Spool under object.
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source INTEGER NOT NULL REFERENCES endpoint (id),
    kind TEXT NOT NULL,
    peer TEXT,
    identifier TEXT,
    digest BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    observed_at INTEGER,
    size INTEGER NOT NULL,
    object TEXT,
    result TEXT,
    headers TEXT,
    quarantined TEXT,
    origin INTEGER,
    terms TEXT,
    raw BLOB
);

CREATE INDEX message_identifier ON message (identifier, source, digest) WHERE identifier IS NOT NULL;
CREATE INDEX message_object ON message (object) WHERE object IS NOT NULL;
CREATE INDEX message_quarantined ON message (id) WHERE quarantined IS NOT NULL;

-- What a person searches by: patient, visit, accession number, study. Filled in pieces from message.terms (JSON), up to
-- the Message that about('indexed') names.
CREATE TABLE term (
    value TEXT NOT NULL,
    message INTEGER NOT NULL REFERENCES message (id),
    PRIMARY KEY (value, message)
) WITHOUT ROWID;

-- state: 0 pending, 1 delivered, 2 parked, 3 discarded.
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    message INTEGER NOT NULL REFERENCES message (id),
    destination INTEGER NOT NULL REFERENCES endpoint (id),
    state INTEGER NOT NULL DEFAULT 0,
    slot INTEGER NOT NULL DEFAULT 0,
    ordinal INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try_at INTEGER NOT NULL DEFAULT 0,
    settled_at INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX delivery_message ON delivery (message);
CREATE INDEX delivery_pending ON delivery (destination, id, slot) WHERE state = 0;
CREATE INDEX delivery_parked ON delivery (destination, id) WHERE state = 2;

-- Every try and every act on a Delivery.
CREATE TABLE attempt (
    delivery INTEGER NOT NULL REFERENCES delivery (id),
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    reason TEXT,
    acknowledgement BLOB,
    PRIMARY KEY (delivery, number)
) WITHOUT ROWID;

-- Kept with every change, never counted by scanning.
CREATE TABLE counter (
    endpoint INTEGER NOT NULL REFERENCES endpoint (id),
    name TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (endpoint, name)
) WITHOUT ROWID;

-- Who did what, when: acts of operators.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    act TEXT NOT NULL,
    detail TEXT NOT NULL
);
