-- Version 3: what Query/Retrieve finds: studies, series and Instances that the Spool holds.

-- Filled behind the intake from the heads of the files, up to the Message that about('queryable') names. attributes is
-- JSON, a data set as text; a study stands once for each Patient ID under which its Instances came.
CREATE TABLE held_study (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL,
    patient TEXT NOT NULL,
    date TEXT NOT NULL,
    attributes TEXT NOT NULL,
    UNIQUE (uid, patient)
);

CREATE INDEX held_study_patient ON held_study (patient);
CREATE INDEX held_study_date ON held_study (date);

CREATE TABLE held_series (
    id INTEGER PRIMARY KEY,
    study INTEGER NOT NULL REFERENCES held_study (id),
    uid TEXT NOT NULL,
    modality TEXT NOT NULL,
    attributes TEXT NOT NULL,
    UNIQUE (study, uid)
);

CREATE INDEX held_series_uid ON held_series (uid);

CREATE TABLE held_instance (
    message INTEGER PRIMARY KEY,
    series INTEGER NOT NULL REFERENCES held_series (id),
    object TEXT NOT NULL,
    uid TEXT NOT NULL,
    sop_class TEXT NOT NULL,
    attributes TEXT NOT NULL
);

CREATE INDEX held_instance_series ON held_instance (series);
CREATE INDEX held_instance_uid ON held_instance (uid);

INSERT INTO about VALUES ('queryable', '0');
