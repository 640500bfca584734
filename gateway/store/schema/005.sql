-- Version 5: what archives have committed to, and forwarding.

-- What has a priority above 0 goes before the others.
ALTER TABLE delivery ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;

CREATE INDEX delivery_urgent ON delivery (destination, id, slot) WHERE state = 0 AND priority > 0;

-- What was delivered to an archive that is asked to commit to it, under the names that it was sent with. state: 0 to be
-- asked, 1 asked, 2 committed, 3 denied (its Delivery is owed again, or parked), 4 asked no more. A Message is kept while
-- one of its rows is in state 0 or 1. due_at: since when it waits to be asked, or when it is asked again.
CREATE TABLE archival (
    delivery INTEGER PRIMARY KEY REFERENCES delivery (id),
    message INTEGER NOT NULL REFERENCES message (id),
    destination INTEGER NOT NULL REFERENCES endpoint (id),
    sop_class TEXT NOT NULL,
    sop_instance TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL,
    asked INTEGER NOT NULL DEFAULT 0,
    denied INTEGER NOT NULL DEFAULT 0,
    reason INTEGER
);

CREATE INDEX archival_message ON archival (message);
CREATE INDEX archival_due ON archival (destination, due_at) WHERE state IN (0, 1);

-- Which transactions asked for which of them; a report may come after it was asked for again.
CREATE TABLE archival_request (
    transaction_uid TEXT NOT NULL,
    delivery INTEGER NOT NULL REFERENCES archival (delivery),
    PRIMARY KEY (transaction_uid, delivery)
) WITHOUT ROWID;

CREATE INDEX archival_request_delivery ON archival_request (delivery);
