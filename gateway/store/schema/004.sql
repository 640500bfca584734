-- Version 4: procedure steps, the progress of studies, and storage commitment as SCP.

-- What Modalities report of performed steps (MPPS); attributes is the whole data set as JSON, as the last N-SET left it.
CREATE TABLE procedure_step (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    message INTEGER NOT NULL,
    attributes TEXT NOT NULL
);

CREATE INDEX procedure_step_changed ON procedure_step (changed_at);

-- What each performed step answers to.
CREATE TABLE procedure_step_scheduled (
    step INTEGER NOT NULL REFERENCES procedure_step (id),
    study TEXT NOT NULL,
    accession TEXT NOT NULL,
    scheduled TEXT NOT NULL,
    requested TEXT NOT NULL,
    PRIMARY KEY (step, study, accession, scheduled, requested)
) WITHOUT ROWID;

CREATE INDEX procedure_step_study ON procedure_step_scheduled (study);

-- How far each study has come, by the Source that brings its Instances; followed from the Messages, so that keeping an
-- Instance costs nothing more. Complete: completed_at is not NULL, and cause says by what. Deliveries that wait for that
-- have been made for Messages up to owed_until. disagreements: JSON, the keywords in which Instances differ from the
-- worklist.
CREATE TABLE study_progress (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL,
    source INTEGER NOT NULL REFERENCES endpoint (id),
    accession TEXT NOT NULL DEFAULT '',
    instances INTEGER NOT NULL DEFAULT 0,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    last_message INTEGER NOT NULL,
    completed_at INTEGER,
    cause TEXT,
    owed_until INTEGER NOT NULL DEFAULT 0,
    disagreements TEXT,
    UNIQUE (uid, source)
);

CREATE INDEX study_progress_open ON study_progress (last_at) WHERE completed_at IS NULL;
CREATE INDEX study_progress_owing ON study_progress (id) WHERE completed_at IS NOT NULL AND owed_until < last_message;
CREATE INDEX study_progress_disagreeing ON study_progress (id) WHERE disagreements IS NOT NULL;

INSERT INTO about SELECT 'followed', CAST(coalesce(max(id), 0) AS TEXT) FROM message;

-- Requests for storage commitment. state: 0 waits for its Instances, 1 decided and to be reported, 2 reported, 3 given up.
CREATE TABLE commitment (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    transaction_uid TEXT NOT NULL,
    source TEXT NOT NULL,
    calling TEXT NOT NULL,
    called TEXT NOT NULL,
    host TEXT NOT NULL,
    digest BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try_at INTEGER NOT NULL,
    settled_at INTEGER NOT NULL DEFAULT 0,
    last_error TEXT
);

CREATE INDEX commitment_open ON commitment (next_try_at) WHERE state < 2;
CREATE INDEX commitment_transaction ON commitment (transaction_uid);

-- reason: NULL undecided, 0 committed, else the Failure Reason (PS3.3, C.14.1.1).
CREATE TABLE commitment_instance (
    commitment INTEGER NOT NULL REFERENCES commitment (id),
    ordinal INTEGER NOT NULL,
    sop_class TEXT NOT NULL,
    sop_instance TEXT NOT NULL,
    reason INTEGER,
    PRIMARY KEY (commitment, ordinal)
) WITHOUT ROWID;
