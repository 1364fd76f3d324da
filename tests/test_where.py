"""`where=`: what passes, beside SQLite itself running the same words; what is refused, and where."""

import json
import random
import sqlite3

import numpy as np
import pytest

from clipsearch.columns import Columns, Words
from clipsearch.errors import QueryError
from clipsearch.filters import select
from clipsearch.store import Store
from clipsearch.where import parse

WORDS = [
    "Dog",
    "dog",
    "강아지",
    "강",
    "it's",
    "100%",
    "a_b",
    'say "hi"',
    "",
    "ÄRGER",
    "ärger",
    "a\nb",
    "🐕 dog",
]
NUMBERS = [0, 1, -1, 2, 3.5, -0.25, 1e9, 7, 7.0]
COLUMNS = ("t", "n", "m", "b", "키", "camera", "width", "height", "taken")
ROWS = [
    {
        "t": word,
        "n": NUMBERS[i % len(NUMBERS)] if i % 5 else None,
        "m": [word, NUMBERS[i % len(NUMBERS)], None][i % 3],
        "b": [True, False, None][i % 3],
        "키": word if i % 2 else None,
    }
    for i, word in enumerate([*WORDS, None, *WORDS, None, None])
]
FACTS = [
    {"width": i * 10, "height": 130, "taken": f"2024-{i % 12 + 1:02}-01T10:00:00"}
    | ({"camera": "X100V"} if i % 2 else {})
    for i in range(len(ROWS))
]


def fill(store, rows, facts):
    """A collection of items of which all that is known is this; ids from 1, contents likewise from 101."""
    db = store.db
    db.execute("BEGIN")
    db.execute("INSERT INTO sources VALUES (1, 'folder', '/photos', '{}')")
    for id, (row, fact) in enumerate(zip(rows, facts, strict=True), 1):
        about = json.dumps({name: value for name, value in row.items() if value is not None})
        values = (100 + id, bytes([id // 256, id % 256]), json.dumps(fact))
        db.execute("INSERT INTO contents (id, sha256, facts) VALUES (?, ?, ?)", values)
        row = (id, f"{id % 3}/{id}.jpg", 100 + id, about)
        db.execute("INSERT INTO items (id, source, key, content, metadata) VALUES (?, 1, ?, ?, ?)", row)
    db.execute("COMMIT")


def opened(path, rows, facts=None):
    store = Store.create(path)
    fill(store, rows, [{} for _ in rows] if facts is None else facts)
    return Columns(store, store.generation())


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    return opened(tmp_path_factory.mktemp("where") / "c", ROWS, FACTS)


@pytest.fixture(scope="module")
def sqlite():
    db = sqlite3.connect(":memory:")
    db.execute(f"CREATE TABLE plain (id INTEGER PRIMARY KEY, {', '.join(COLUMNS)})")
    marks = ", ".join("?" * (len(COLUMNS) + 1))
    for id, row in enumerate(map(dict.__or__, FACTS, ROWS), 1):
        db.execute(f"INSERT INTO plain VALUES ({marks})", [id, *map(row.get, COLUMNS)])
    yield db
    db.close()


def passing(columns, text):
    return np.flatnonzero(select(columns, parse(text)).items).tolist()


def same_as_sqlite(columns, sqlite, text):
    expected = [id for (id,) in sqlite.execute(f"SELECT id FROM plain WHERE {text} ORDER BY id")]
    assert passing(columns, text) == expected, text


SIGNS = ("=", "==", "!=", "<>", "<", "<=", ">", ">=")
PAIRS = """
t 'dog'; t '강'; t ''; t 'zzz'; t 'it''s'; n 2; n -0.25; n 1e9; m 'dog'; m 3; m ''; b true; b 0; 3.5 n
'dog' t; width height; 키 t; t 키; taken '2024-06-15'; n width; camera 'x100v'
"""
PATTERNS = """
dog; DOG%; %g; %o%; _og; %_og; 강%; _; %; %%; __%; %a_b%; %"%; %''%; ä%; Ä%; a%b; %d%g; 🐕%; _ dog; 100%; %.%
[a]%; %강_지%; %o_; %_%_%; d%d%; %g%g; \\%
"""
OTHERS = """
t in ('dog', '강', 'none'); n in (1, 2, 3.5); m in ('dog', 7); t not in ('dog'); t not like '%o%'; t like ''
n between 0 and 2; n not between 0 and 2; t between 'a' and 'e'; m between 1 and 'e'; n between 2 and 0
n is null; n is not null; b; not b; n; not n; n in (1); width between 40 and 60 and height = 130
camera is null or "taken" like '2024-0_-%'; "키" is not null; m like 'd%'; not not n > 1; NOT(n)AND b
t = 'dog' or n = 2 and b; (t = 'dog' or n = 2) and b; not n = 2 or b is null; id in (1, 5) or id > 20
n <> 2 or n is null; not (n > 1 and t > 'a'); not (n > 1 or t > 'a'); +1 = n; n = .5 or n=3.50; m
"""


def each(text):
    return [part.strip() for line in text.strip().splitlines() for part in line.split(";")]


SIMPLE = [pair.replace(" ", f" {sign} ", 1) for pair in each(PAIRS) for sign in SIGNS]
SIMPLE += [f"t like '{pattern}'" for pattern in each(PATTERNS)] + each(OTHERS)


@pytest.mark.parametrize("text", SIMPLE)
def test_the_same_pictures_pass_as_with_sqlite(columns, sqlite, text):
    same_as_sqlite(columns, sqlite, text)


def test_thousands_of_joined_conditions_pass_the_same_pictures_as_with_sqlite(columns, sqlite):
    rng = random.Random(0)

    def grown(depth):
        if not depth or rng.random() < 0.2:
            return rng.choice(SIMPLE)
        word = rng.choice(["and", "or", "not"])
        if word == "not":
            return f"not ({grown(depth - 1)})"
        return f"({grown(depth - 1)}) {word} {rng.choice(['', 'not '])}({grown(depth - 1)})"

    for _ in range(2000):
        same_as_sqlite(columns, sqlite, grown(4))


def test_like_finds_what_sqlite_finds_among_random_texts():
    rng = random.Random(1)
    letters = ["a", "B", "b", "강", "%", "_", "é", "\n", "."]
    words = sorted({"".join(rng.choices(letters, k=rng.randrange(7))).encode() for _ in range(400)})
    db = sqlite3.connect(":memory:")
    for _ in range(600):
        pattern = "".join(rng.choices(["a", "b", "강", "%", "_", "%", "_", "É", "."], k=rng.randrange(6)))
        expected = [db.execute("SELECT ? LIKE ?", (word.decode(), pattern)).fetchone()[0] for word in words]
        assert Words(words).like(pattern).tolist() == [bool(found) for found in expected], pattern
    db.close()


def test_a_pattern_of_many_wild_cards_takes_no_time_over_texts_that_nearly_match():
    words = Words([b"a" * 3000 + str(n).encode() for n in range(20)])
    assert not words.like("%a" * 20 + "%b").any()
    assert not words.like("%a" * 20 + "b").any()


LISTS = [
    {"tags": ["beach", "Dog"], "sizes": [1, 5]},
    {"tags": ["city"], "sizes": [10]},
    {"tags": [], "sizes": []},
    {},
    {"tags": "beach", "sizes": 5},
    {"tags": ["강아지", None, 3, ["x"]], "sizes": [None]},
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tags = 'beach'", [1, 5]),
        ("tags != 'beach'", [2, 3, 6]),
        ("not tags = 'beach'", [2, 3, 6]),
        ("tags in ('city', '강아지')", [2, 6]),
        ("tags not in ('city', '강아지')", [1, 3, 5]),
        ("tags like 'dog'", [1]),
        ("tags like '%c%'", [1, 2, 5]),
        ("tags = 3", [6]),
        ("tags is null", [4]),
        ("tags is not null", [1, 2, 3, 5, 6]),
        ("sizes between 2 and 4", []),
        ("sizes between 4 and 6", [1, 5]),
        ("sizes > 5", [2]),
        ("tags = 'beach' and tags = 'Dog'", [1]),
        ("tags = '[\"x\"]'", [6]),
    ],
)
def test_of_a_list_any_element_will_do(tmp_path, text, expected):
    assert passing(opened(tmp_path / "c", LISTS), text) == expected


def test_the_users_own_value_hides_the_files_as_in_a_hit(tmp_path):
    columns = opened(
        tmp_path / "c", [{"camera": "mine"}, {}, {"width": "wide"}], [{"camera": "X100V", "width": 5}] * 3
    )
    assert passing(columns, "camera = 'mine'") == [1]
    assert passing(columns, "camera = 'X100V'") == [2, 3]
    assert passing(columns, "width = 5") == [1, 2]


def test_names_paths_and_sources_are_columns(columns):
    assert passing(columns, "key = '1/4.jpg'") == [4]
    assert passing(columns, "path = '/photos/2/5.jpg'") == [5]
    assert passing(columns, "path like '/photos/0/%' and id <= 9") == [3, 6, 9]
    assert passing(columns, "source = '/photos'") == list(range(1, len(ROWS) + 1))
    assert passing(columns, "TAKEN_AT < '2024-02'") == passing(columns, "taken < '2024-02'") != []
    assert passing(columns, "Camera = 'X100V'") == passing(columns, "camera = 'X100V'") != []
    assert passing(columns, "latitude > 0 or format = 'JPEG'") == [], "no picture has these: unknown"
    assert passing(columns, "latitude is null and T = 'dog'") == passing(columns, "t = 'dog'") != []


def test_texts_that_are_not_unicode_are_columns_too(tmp_path):
    columns = opened(tmp_path / "c", [{"t": "a\udc80"}, {"t": "b", "u": ["\udc80"]}])
    assert passing(columns, "t > 'a'") == [1, 2]
    assert passing(columns, "t = 'a\udc80'") == [1]
    assert passing(columns, "u like '_'") == [2]


def test_missing_failed_and_newer_pictures_never_pass(tmp_path):
    columns = opened(tmp_path / "c", [{"n": 1}] * 4)
    db = columns._store.db
    db.execute("UPDATE items SET missing = 1 WHERE id = 2")
    db.execute("UPDATE items SET content = NULL, failure = 'broken' WHERE id = 3")
    db.execute("UPDATE items SET content = 104 WHERE id = 1")
    selection = select(Columns(columns._store, 0), parse("id > 0"))
    assert [id for id in range(9) if selection.has(id)] == [1, 4]
    assert not selection.has(10**12)
    contents = np.array([101, 102, 103, 104, 105, 10**12])
    assert selection.of_contents(contents).tolist() == [False, False, False, True, False, False]


def test_nothing_passes_where_there_is_nothing(tmp_path):
    assert passing(opened(tmp_path / "c", []), "whatever = 3 and path like '%'") == []


REFUSED = {
    "": (1, "found the end, expected a column's name"),
    "   ": (4, "found the end"),
    "n =": (4, "found the end, expected a text in single quotes or a number"),
    "n = 1 n": (7, "found n, expected and, or, or the end"),
    "1=1; drop table items": (4, "found ;"),
    "1=1": (1, "found two values, expected a column's name"),
    "n = 1; drop table items": (6, "found ;"),
    "(select 1)": (9, "found 1"),
    "id in (select id from items)": (8, "found select, expected a text in single quotes or a number"),
    "exists (select 1)": (8, "found (, expected =, !="),
    "length(t) = 3": (7, "found (, expected =, !="),
    "n = abs(1)": (8, "found (, expected and, or, or the end"),
    "t = 'a' -- or more": (9, "found --"),
    "t = 'a' /* or */": (9, "found /*"),
    "t = 'a": (5, "found 'a, expected the ' that closes it"),
    't = "a': (5, 'expected the " that closes it'),
    "t = 'a' union select 1": (9, "found union"),
    "t || 'a' = 'b'": (3, "found ||"),
    "n + 1 = 2": (3, "found +"),
    "n +1 = 2": (3, "found +1, expected =, !="),
    "n = 12abc": (5, "found 12abc"),
    "n = 0x10": (5, "found 0x10"),
    "n = 1e": (5, "found 1e"),
    "n = 9007199254740993": (5, "found the whole number 9007199254740993, expected one up to"),
    "n in (1, -9007199254740994)": (10, "found the whole number -9007199254740994"),
    "n = ?": (5, "found ?"),
    "n = :a": (5, "found :a"),
    "n = null": (5, "found null, expected a value: nothing equals null; write `is null`"),
    "n in (1, null)": (10, "found null"),
    "n in ()": (7, "found ), expected a text"),
    "n in (1": (8, "found the end, expected )"),
    "n in 1": (6, "found 1, expected ("),
    "n in (m)": (7, "found m"),
    "n between 1 or 2": (13, "found or, expected and"),
    "n between 1 and": (16, "found the end"),
    "n not = 3": (7, "found =, expected in, like, match or between"),
    "n is 3": (6, "found 3, expected null"),
    "t like 3": (8, "found 3, expected a text in single quotes"),
    "t like 'a' escape 'b'": (12, "found escape"),
    "t glob 'a'": (3, "found glob, expected =, !="),
    "n < 1 < 2": (7, "found <"),
    "(n = 1": (7, "found the end, expected )"),
    "n = 1)": (6, "found )"),
    "(n) = 1": (5, "found ="),
    "and": (1, "found and, expected a column's name"),
    "n = 1 or": (9, "found the end"),
    "3": (2, "found the end, expected =, !="),
    "m.x = 1": (2, "found .x"),
    "n = 1 \0": (7, "found"),
    "wdith > 3": (1, "no picture has 'wdith', expected width;"),
    "t = dog": (5, "a text is written in single quotes, 'dog'"),
    't = "dog"': (5, "a text is written in single quotes, 'dog'"),
    '"a""b" = 1': (1, "no picture has 'a\"b'"),
    "width = '40'": (9, "found a text, but width holds numbers, such as 0, which are written without quotes"),
    "width like '4%'": (12, "found a text, but width holds numbers"),
    "t > 2024": (5, "found a number, but t holds texts, such as '"),
    "t in ('a', 3)": (12, "found a number, but t holds texts"),
    "t": (1, "found no relation, but t holds texts"),
    "t = width": (5, "found texts, such as"),
    "m < n": (1, "m has lists or values of several kinds"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_condition_is_refused_at_its_character(columns, text):
    at, problem = REFUSED[text]
    with pytest.raises(QueryError) as error:
        passing(columns, text)
    assert f"at character {at} of [{text}]: " in str(error.value)
    assert problem in str(error.value)
    assert columns._store.rows("SELECT count(*) FROM items") == [(len(ROWS),)]


def test_of_a_long_expression_the_message_shows_the_place(columns):
    with pytest.raises(QueryError, match=r"at character 4901 of \[….{40}nn = 1…?\]") as error:
        passing(columns, "n = 1 or  " * 490 + "nn = 1")
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("text", [5, b"n = 1", ["n = 1"], {"n": 1}])
def test_a_condition_is_a_text(text):
    with pytest.raises(QueryError, match=f"got {type(text).__name__}"):
        parse(text)


def test_deep_nesting_is_refused_and_long_chains_are_not(columns):
    assert passing(columns, "(" * 100 + "id = 1" + ")" * 100) == [1]
    for deep in ("(" * 101 + "id = 1" + ")" * 101, "(" * 10**6, "not " * 10**5 + "b", "not (" * 5000):
        with pytest.raises(QueryError, match="nested more than 100 deep"):
            passing(columns, deep)
    assert passing(columns, " or ".join(["id = 2"] * 3000)) == [2]
    assert passing(columns, f"id in ({', '.join(map(str, range(3, 30000)))})") == list(
        range(3, len(ROWS) + 1)
    )


def test_a_soup_of_tokens_is_a_condition_or_a_query_error(columns):
    rng = random.Random(2)
    soup = [
        "n",
        "t",
        "m",
        "b",
        "'x'",
        "'%'",
        "1",
        "-2.5",
        "(",
        ")",
        ",",
        "=",
        "<",
        "!=",
        "and",
        "or",
        "not",
        "in",
    ]
    soup += [
        "like",
        "between",
        "is",
        "null",
        "true",
        '"t"',
        ";",
        "--",
        "'",
        '"',
        "\\",
        "%",
        "select",
        "강",
        "\0",
        ".",
    ]
    passed = 0
    for _ in range(20_000):
        text = rng.choice([" ", ""]).join(rng.choices(soup, k=rng.randrange(1, 9)))
        try:
            passing(columns, text)
            passed += 1
        except QueryError as error:
            assert "at character" in str(error)
    assert passed > 100
