-- Version 6: what the laboratory was asked for, for analysers that ask what to do with a sample.

-- One row a test of a sample. sample is the number under which it was ordered, lab_sample all numbers of the tube.
CREATE TABLE lab_order (
    id INTEGER PRIMARY KEY,
    sample TEXT NOT NULL,
    test TEXT NOT NULL,
    patient TEXT NOT NULL,
    name TEXT NOT NULL,
    birth_date TEXT NOT NULL,
    sex TEXT NOT NULL,
    urgent INTEGER NOT NULL,
    ordered_at INTEGER NOT NULL,
    message INTEGER NOT NULL,
    UNIQUE (sample, test)
);

CREATE INDEX lab_order_patient ON lab_order (patient);
CREATE INDEX lab_order_ordered ON lab_order (ordered_at);

CREATE TABLE lab_sample (
    number TEXT NOT NULL,
    sample TEXT NOT NULL,
    PRIMARY KEY (number, sample)
) WITHOUT ROWID;
