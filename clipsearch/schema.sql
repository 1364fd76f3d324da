-- The tables of items.sqlite, format 1. docs/format.md explains them.
CREATE TABLE state (generation INTEGER NOT NULL);  -- grows with every commit
INSERT INTO state VALUES (0);

CREATE TABLE sources (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- here and below: an id never comes to mean another thing
    kind TEXT NOT NULL,
    root NOT NULL,             -- text; bytes where the name is not Unicode
    options TEXT NOT NULL,     -- JSON
    UNIQUE (kind, root)
);

CREATE TABLE contents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256 BLOB NOT NULL UNIQUE,
    facts TEXT NOT NULL,       -- JSON: width, height, format, taken, camera, latitude, longitude
    shown INTEGER NOT NULL DEFAULT 0  -- how many items show it; kept by the triggers
);
CREATE INDEX contents_hidden ON contents (id) WHERE shown = 0;

CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source INTEGER NOT NULL REFERENCES sources (id),
    key NOT NULL,              -- text; bytes where the name is not Unicode
    stamp TEXT,
    content INTEGER REFERENCES contents (id),
    failure TEXT,              -- why there is no content
    missing INTEGER NOT NULL DEFAULT 0,
    metadata TEXT NOT NULL DEFAULT '{}',
    UNIQUE (source, key)
);
CREATE INDEX items_content ON items (content);

CREATE TABLE spaces (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    folder TEXT NOT NULL UNIQUE,
    model TEXT NOT NULL UNIQUE,
    fingerprint TEXT NOT NULL,
    dim INTEGER NOT NULL,
    live INTEGER NOT NULL
);

CREATE TABLE segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    space INTEGER NOT NULL REFERENCES spaces (id),
    rows INTEGER NOT NULL,
    vectors_sha256 TEXT NOT NULL,
    rows_sha256 TEXT NOT NULL
);

CREATE TRIGGER item_comes AFTER INSERT ON items BEGIN
    UPDATE contents SET shown = shown + 1 WHERE id = NEW.content AND NOT NEW.missing;
END;
CREATE TRIGGER item_goes AFTER DELETE ON items BEGIN
    UPDATE contents SET shown = shown - 1 WHERE id = OLD.content AND NOT OLD.missing;
END;
CREATE TRIGGER item_changes AFTER UPDATE OF content, missing ON items BEGIN
    UPDATE contents SET shown = shown - 1 WHERE id = OLD.content AND NOT OLD.missing;
    UPDATE contents SET shown = shown + 1 WHERE id = NEW.content AND NOT NEW.missing;
END;
