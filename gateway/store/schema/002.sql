-- Version 2: worklist: orders and their scheduled steps.

-- One row a scheduled procedure step. `version` grows with every change of any row; placer and filler are order numbers
-- with their namespace; station holds AE titles, each between two backslashes; attributes is the step's data set as JSON.
CREATE TABLE worklist (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    version INTEGER NOT NULL,
    source TEXT NOT NULL,
    message INTEGER,
    accession TEXT NOT NULL,
    step TEXT NOT NULL,
    placer TEXT NOT NULL DEFAULT '',
    filler TEXT NOT NULL DEFAULT '',
    patient TEXT NOT NULL DEFAULT '',
    issuer TEXT NOT NULL DEFAULT '',
    study TEXT NOT NULL DEFAULT '',
    starts TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL,
    performed INTEGER NOT NULL DEFAULT 0,
    open INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    seen_at INTEGER,
    attributes TEXT NOT NULL,
    UNIQUE (accession, step)
);

CREATE INDEX worklist_version ON worklist (version);
CREATE INDEX worklist_patient ON worklist (patient);
CREATE INDEX worklist_study ON worklist (study);
CREATE INDEX worklist_filler ON worklist (filler) WHERE filler != '';
CREATE INDEX worklist_placer ON worklist (placer) WHERE placer != '';
CREATE INDEX worklist_open ON worklist (id) WHERE open = 1;

-- Orders that became no item, and what was left out of one that did: told, never refused.
CREATE TABLE worklist_problem (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    source TEXT NOT NULL,
    message INTEGER,
    accession TEXT NOT NULL,
    step TEXT NOT NULL,
    became_item INTEGER NOT NULL,
    reason TEXT NOT NULL
);

-- Every query, the newest ones: keys as JSON data set, excluded as JSON {"accession/step": [names of keys]}.
CREATE TABLE worklist_query (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    source TEXT NOT NULL,
    calling TEXT NOT NULL,
    called TEXT NOT NULL,
    host TEXT NOT NULL,
    keys TEXT NOT NULL,
    looked_at INTEGER NOT NULL,
    answered INTEGER NOT NULL,
    status INTEGER NOT NULL,
    excluded TEXT NOT NULL
);
