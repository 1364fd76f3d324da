-- What captioners wrote, added to items.sqlite with the first caption. docs/format.md explains it.
CREATE TABLE captioners (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    spec TEXT NOT NULL UNIQUE, -- JSON: model, digest of its weights, prompt, … : what decides a caption
    live INTEGER NOT NULL      -- 1: its captions are those that are shown and searched
);

CREATE TABLE captions (
    id INTEGER PRIMARY KEY,
    captioner INTEGER NOT NULL REFERENCES captioners (id),
    content INTEGER NOT NULL REFERENCES contents (id),
    text TEXT,
    failure TEXT,              -- why there is no text
    UNIQUE (captioner, content)
);

CREATE TABLE caption_spaces (  -- spaces whose vectors are of captions
    space INTEGER PRIMARY KEY REFERENCES spaces (id),
    captioner INTEGER NOT NULL REFERENCES captioners (id)
);

CREATE VIRTUAL TABLE caption_words USING fts5 (
    text, content = 'captions', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'
);

CREATE TRIGGER caption_comes AFTER INSERT ON captions BEGIN
    INSERT INTO caption_words (rowid, text) VALUES (NEW.id, NEW.text);
END;
CREATE TRIGGER caption_goes AFTER DELETE ON captions BEGIN
    INSERT INTO caption_words (caption_words, rowid, text) VALUES ('delete', OLD.id, OLD.text);
END;
CREATE TRIGGER caption_content_goes AFTER DELETE ON contents BEGIN
    DELETE FROM captions WHERE content = OLD.id;
END;
