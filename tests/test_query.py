"""Queries with operators: beside Python's own precedence, and NumPy's arithmetic on the same expression."""

import copy
import pickle
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from clipsearch import Query, QueryError
from clipsearch.query import DEEPEST, name, plain, units
from clipsearch.query_vectors import Means, combine, leaves, mixed, relevance_of
from clipsearch.results import Hit

settings.register_profile(
    "queries",
    deadline=None,
    max_examples=300,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("queries")

DOG, LEASH, SNOW, CAT = map(Query, ("dog", "leash", "snow", "cat"))

READ = {
    "dog": DOG,
    "  dog  ": DOG,
    "dog & ~leash": DOG & ~LEASH,
    "dog &~leash": DOG & ~LEASH,
    "~ dog": ~DOG,
    "dog &cat": DOG & CAT,
    "dog&~cat": DOG & ~CAT,
    "dog &-cat + snow": DOG & -CAT + SNOW,
    "~~dog": DOG,
    "red car & snow": Query("red car") & SNOW,
    "red\t  car": Query("red car"),
    "~red car": ~Query("red car"),
    "2*red car + snow": 2 * Query("red car") + SNOW,
    "2*beach + sunset - people": 2 * Query("beach") + "sunset" - "people",
    "-leash + dog": -LEASH + DOG,
    "dog - -cat": DOG + CAT,
    "dog + -cat": DOG - CAT,
    "dog*2 + .5 * cat": 2 * DOG + 0.5 * CAT,
    "2*-dog*-3": 6 * DOG,
    "1e+2*dog": 100 * DOG,
    "2*(dog + cat) - snow": 2 * DOG + 2 * CAT - SNOW,
    "(dog)-(cat)": DOG - CAT,
    '"dog"+"cat"': DOG + CAT,
    "(dog | cat)&(snow)": (DOG | CAT) & SNOW,
    "dog | cat & snow": DOG | (CAT & SNOW),
    '2*"2"': 2 * Query("2"),
    "2": Query("2"),
    "1984 & dog": Query("1984") & DOG,
    "2 dogs": Query("2 dogs"),
    "T-shirt & C++ | rock-n-roll": Query("T-shirt") & "C++" | "rock-n-roll",
    "C++11 & dog's nose": Query("C++11") & "dog's nose",
    "cat and not dog or snow": Query("cat and not dog or snow"),
    "note:today": Query("note:today"),
    '"AT&T" & dog': Query("AT&T") & DOG,
    '"say ""hi"" - now"': Query('say "hi" - now'),
    '" dog\n"': Query(" dog\n"),
    "고양이 & ~빨간 차": Query("고양이") & ~Query("빨간 차"),
    "item:12": Query.item(12),
    "Item:12 + snow": Query.item(12) + SNOW,
    "image:~/a-b+c.jpg - people": Query.image("~/a-b+c.jpg") - "people",
    "dog’s nose & rock’n’roll": Query("dog’s nose") & "rock’n’roll",
    "T−shirt & 5–7 & well—known": Query("T−shirt") & "5–7" & "well—known",
    '"dog ＆ cat" & "－" & "“red” car"': Query("dog ＆ cat") & "－" & "“red” car",
    "image:a＆“b”.jpg + snow": Query.image("a＆“b”.jpg") + SNOW,
    "0*dog + 0e9*cat + snow": 0 * DOG + 0 * CAT + SNOW,
    '"1e-400" & 1e-300*dog': Query("1e-400") & 1e-300 * DOG,
    'image:"my ""best"" (1).jpg" & dog': Query.image('my "best" (1).jpg') & DOG,
}


@pytest.mark.parametrize("text", READ)
def test_a_text_is_read_and_written_as_what_it_says(text):
    assert Query.parse(text) == READ[text]
    assert Query.parse(str(READ[text])) == READ[text]


WRITTEN = {
    "dog & ~leash": (DOG & ~LEASH, "Query('dog') & ~Query('leash')"),
    "2*beach + 0.5*it's - people": (
        2 * Query("beach") + 0.5 * Query("it's") - "people",
        "2*Query('beach') + 0.5*Query(\"it's\") - Query('people')",
    ),
    "(dog | cat) & ~(snow & leash)": (
        (DOG | CAT) & ~(SNOW & LEASH),
        "(Query('dog') | Query('cat')) & ~(Query('snow') & Query('leash'))",
    ),
    "dog + cat & ~(2*snow)": (DOG + CAT & ~(2 * SNOW), "Query('dog') + Query('cat') & ~(2*Query('snow'))"),
    '"1984" | "a  b" | "image:x" | "rock - roll"': (
        Query("1984") | "a  b" | "image:x" | "rock - roll",
        "Query('1984') | Query('a  b') | Query('image:x') | Query('rock - roll')",
    ),
    "item:3 - image:a.jpg": (
        Query.item(3) - Query.image(Path("a.jpg")),
        "Query.item(3) - Query.image('a.jpg')",
    ),
    "image:(…) + embedding:(…)": (
        Query.image(b"") + Query.embedding([1]),
        "Query.image(…) + Query.embedding(…)",
    ),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_a_query_is_written_with_the_parentheses_it_needs(text):
    query, code = WRITTEN[text]
    assert (str(query), repr(query)) == (text, code)
    if "…" in text:
        with pytest.raises(QueryError):  # rather than words that look so
            Query.parse(text)
    else:
        assert Query.parse(text) == eval(code) == query


REFUSED = {  # at which character, from 1, and what is told
    "": (1, "found the end, expected words"),
    "   ": (4, "found the end"),
    "dog &": (6, "found the end"),
    "dog && cat": (5, "found &&, expected a single &, with spaces around it"),
    "dog&&cat": (4, "found &&, expected a single &"),
    "dog || cat": (5, "found ||, expected a single |"),
    "dog & & cat": (7, "found &, expected words"),
    "dog ＆ cat": (5, "found ＆ (fullwidth ampersand), expected &, or the text in double quotes"),
    "犬＆猫": (2, "found ＆ (fullwidth ampersand), expected &"),
    "dog ｜ cat": (5, "found ｜ (fullwidth vertical line), expected |"),
    "～leash": (1, "found ～ (fullwidth tilde), expected ~"),
    "dog & ～leash": (7, "found ～"),
    "beach ＋ sunset": (7, "found ＋ (fullwidth plus sign), expected +"),
    "2＊beach": (2, "found ＊ (fullwidth asterisk), expected *"),
    "（dog | cat）": (1, "found （ (fullwidth left parenthesis), expected ("),
    "(dog | cat）": (11, "found ） (fullwidth right parenthesis), expected )"),
    "beach − people": (7, "found − (minus sign), expected -"),
    "−people + beach": (1, "found − (minus sign), expected -"),
    "beach － people": (7, "found － (fullwidth hyphen-minus), expected -"),
    "beach – people": (7, "found – (en dash), expected -"),
    "beach — people": (7, "found — (em dash), expected -"),
    "“red car” & snow": (1, 'found “ (left double quotation mark), expected "'),
    "red car” & snow": (8, 'found ” (right double quotation mark), expected "'),
    "„AT&T“": (1, 'found „ (double low-9 quotation mark), expected "'),
    "＂red＂": (1, 'found ＂ (fullwidth quotation mark), expected "'),
    "1e-400*dog": (1, "found 1e-400, which rounds to 0; expected a larger number"),
    "1e-200*(1e-200*dog)": (7, "found a weight that rounds to 0"),
    "& dog": (1, "found &"),
    "AT&T": (3, "found &, expected spaces around it"),
    "black|white": (6, "found |, expected spaces around it"),
    "dog ~cat": (5, "found ~, expected &, |"),
    "dog~": (4, "found ~"),
    "beach -people": (7, "found -, expected spaces on both sides to subtract; `a & ~b` leaves out"),
    "(beach)- people": (8, "found -, expected spaces on both sides"),
    "beach +sunset": (7, "found +, expected spaces on both sides to add"),
    "2*beach+sunset": (3, "found beach+sunset, expected spaces on both sides to add"),
    "+dog": (1, "found +"),
    "dog - ": (7, "found the end"),
    "5* hotel": (2, "found *, expected spaces on both sides or on none"),
    "M*A*S*H": (2, "found no number beside *"),
    "dog * 2 cats": (5, "found no number beside *"),
    "2*3*dog": (2, "found two numbers beside *"),
    '"2"*dog': (4, "found no number beside *"),
    "~2*dog": (3, "found no number beside *"),
    "1e999*dog": (6, "found a weight that is no finite number"),
    "1e300*(1e300*dog)": (6, "found a weight that is no finite number"),
    "1_0*dog": (4, "found no number"),
    "dog**2": (5, "found *"),
    '"dog': (1, 'found ", expected the " that closes it'),
    '"dog"" & cat': (1, 'found ", expected the " that closes it'),
    'red "car"': (5, 'found "car", expected &, |'),
    '"red" car': (7, "found car, expected &, |"),
    '12" screen': (3, 'found ", expected the " that closes it'),
    '""': (1, "a query must have words"),
    '" "': (1, "a query must have words"),
    "(dog": (5, "found the end, expected &, |, +, -, * or the ) that closes it"),
    "dog)": (4, "found )"),
    "()": (2, "found )"),
    "photo(1)": (6, "found ("),
    "red item:3": (5, "found item:3"),
    "item:3 red": (8, "found red"),
    "item:three": (1, "found item:three, expected item: and the number of a picture"),
    "item:": (1, "found item:"),
    f"item:{'9' * 19}": (1, "expected item: and the number"),
    "image:": (1, "found image:, expected a path"),
    "image: a.jpg": (1, "found image:, expected a path"),
    "image:my cat.jpg": (10, "found cat.jpg"),
    "image:a.jpg&dog": (12, "found &, expected spaces around it"),
    " -dog": (2, "-dog only leads away"),
    "-dog - 2*cat": (1, "-dog - 2*cat only leads away"),
    "0*dog - cat": (1, "0*dog - cat only leads away"),
    "0*dog": (1, "0*dog adds up to nothing"),
    "dog - dog": (1, "dog - dog adds up to nothing"),
    "0.1*dog + 0.2*dog - 0.3*dog": (1, "adds up to nothing"),
    "snow & -dog": (6, "-dog only leads away"),
    "snow | (dog - dog)": (6, "dog - dog adds up to nothing"),
    "~-dog": (1, "-dog only leads away"),
    "(dog & cat) + snow": (13, "found dog & cat beside +, - or *"),
    "snow - ~dog": (6, "found ~dog beside +"),
    "-~dog": (1, "found ~dog beside +"),
    "2*(dog | cat)": (2, "found dog | cat beside"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_query_is_refused_at_its_character(text):
    at, problem = REFUSED[text]
    with pytest.raises(QueryError) as error:
        Query.parse(text)
    assert f"query, at character {at} of [{text}]: " in str(error.value)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    "deep", ["(" * 101 + "dog" + ")" * 101, "(" * 10**6, "~" * 10**5, "dog - " + "-" * 999]
)
def test_deep_nesting_is_refused(deep):
    with pytest.raises(QueryError, match=r"nested more than 100 deep|spaces on both sides"):
        Query.parse(deep)


def test_long_chains_are_no_nesting():
    assert Query.parse("(" * 100 + "dog" + ")" * 100) == DOG
    assert len(Query.parse(" & ".join(["dog"] * 3000)).parts) == 3000
    assert len(Query.parse(" + ".join(["dog"] * 3000)).terms) == 3000
    query = DOG
    for _ in range(DEEPEST // 2):
        query = ~(query & "cat")
    assert Query.parse(str(query)) == query == eval(repr(query))
    hash(query)
    with pytest.raises(QueryError, match="more than 50 deep"):
        query & "cat"


def test_and_and_or_are_associative_and_sums_are_flat():
    assert (DOG & CAT) & SNOW == DOG & (CAT & SNOW)
    assert (DOG | CAT) | SNOW == DOG | (CAT | SNOW)
    assert DOG - (CAT - SNOW) == DOG - CAT + SNOW
    assert 2 * (DOG + 0.25 * CAT) == 2 * DOG + 0.5 * CAT
    assert DOG & CAT != CAT & DOG
    assert DOG & CAT != DOG | CAT
    assert ~DOG != DOG == ~~DOG


def test_a_text_beside_an_operator_is_plain():
    assert Query("a & b") & DOG == "a & b" & DOG
    assert Query("a") | DOG == "a" | DOG
    assert Query("a") + DOG == "a" + DOG
    assert Query("a") - DOG == "a" - DOG
    assert DOG - Query.text("a") == DOG - "a"


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.float64(2), np.int64(2), Fraction(2)])
def test_numbers_of_any_kind_are_weights(number):
    assert number * DOG == DOG * number == 2 * DOG
    assert str(number * DOG) == "2*dog"


def test_equal_queries_have_equal_hashes_and_copies_are_equal():
    vector = np.array([3, 4], np.float32)
    one, other = (
        Query.embedding(v) & "dog" | Query.image(b"x") + Query.item(np.int64(3))
        for v in (vector, 2 * vector[None])
    )
    assert one == other
    assert len({one, other, pickle.loads(pickle.dumps(one)), copy.deepcopy(one)}) == 1
    picture = Image.new("RGB", (4, 4))
    assert Query.image(picture) + "dog" == Query.image(picture) + "dog"
    same = {Query.image(picture) & "dog", Query.image(picture.copy()) & "dog"}
    assert len(same) == 1, "PIL's images are equal by their pixels, so their hashes must be"
    assert Query.item(Hit(7, "", "", "", 1.0, None, {}, bytes)) == Query.item(7)
    with pytest.raises(AttributeError):
        one.word = "&"


WRONG = {
    "a query must have words, got ' '": lambda: Query(" "),
    "found bytes, expected a text; Query.image takes pictures": lambda: Query(b"dog"),
    "found int beside an operator, expected a query or a text": lambda: DOG & 3,
    "found Hit beside an operator": lambda: DOG + Hit(7, "", "", "", 1.0, None, {}, bytes),
    "found str beside *, expected a number": lambda: DOG * "2",
    "found bool beside *": lambda: True * DOG,
    "found Query beside *": lambda: DOG * CAT,
    "found ndarray beside *": lambda: np.ones(2) * DOG,
    "a weight that is no finite number": lambda: float("nan") * DOG,
    "found a weight that is no finite number": lambda: 10**400 * DOG,
    "found a weight that rounds to 0; expected a larger one": lambda: Fraction(1, 10**400) * DOG,
    "found a weight that rounds to 0": lambda: 1e-200 * (1e-200 * DOG),
    "join it with & or |": lambda: (DOG & CAT) + SNOW,
    "-dog only leads away": lambda: SNOW & -DOG,
    "write & for `and`, | for `or` and ~ for `not`": lambda: DOG and CAT,
    "a query is neither true nor false": lambda: not DOG,
    "found int; expected a path, bytes of a file or a PIL image": lambda: Query.image(3),
    "found str, expected a hit or the id of a picture": lambda: Query.item("3"),
    "found -1, expected the id of a picture": lambda: Query.item(-1),
    "the query's vector: embedding 0 has length 0.0": lambda: Query.embedding([0, 0]),
    "one vector is one query, got an array of shape (2, 2)": lambda: Query.embedding(np.eye(2)),
    "the text form of a query is a text, got int": lambda: Query.parse(3),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_no_query_can_be_made_of_is_told(message):
    with pytest.raises(QueryError) as error:
        WRONG[message]()
    assert message in str(error.value)


def test_only_negative_sums_may_still_become_part_of_a_sum():
    assert Query.parse("-dog + snow") == -DOG + SNOW
    with pytest.raises(QueryError, match="only leads away"):
        units(-DOG)


# ---------------------------------------------------------------------- properties


SIGNS = '()"*&|~+- :\t'
NEARLY = "＆｜～＋＊（）−－–—“”„＂"
LETTERS = st.characters(codec="utf-8") | st.sampled_from(SIGNS + NEARLY + "ab12.강'’")
TEXTS = st.text(LETTERS, min_size=1, max_size=12).filter(str.strip)
LEAVES = (
    TEXTS.map(Query) | st.integers(0, 10**17).map(Query.item) | st.text(LETTERS, max_size=12).map(Query.image)
)
WEIGHTS = st.floats(-1e3, 1e3).map(lambda number: number or 1.0)
SUMS = st.lists(st.tuples(WEIGHTS, LEAVES), min_size=1, max_size=4).map(
    lambda terms: sum((weight * leaf for weight, leaf in terms[1:]), start=abs(terms[0][0]) * terms[0][1])
)


def nested(parts):
    pairs = st.tuples(parts, parts)
    return parts.map(lambda a: ~a) | pairs.map(lambda ab: ab[0] & ab[1]) | pairs.map(lambda ab: ab[0] | ab[1])


def summing(sum_of):
    try:
        units(sum_of)
    except QueryError:  # weights of one leaf that cancel
        return False
    return True


TREES = st.recursive(LEAVES | SUMS.filter(summing), nested, max_leaves=8)


@given(TREES)
def test_what_is_written_reads_back(query):
    assert Query.parse(str(query)) == query


@given(st.recursive(TEXTS.map(Query), nested, max_leaves=8))
def test_the_representation_of_a_query_of_texts_evaluates_to_it(query):
    assert eval(repr(query)) == query


SOUP = st.lists(
    st.sampled_from(
        [*'()&|~+-*"', *NEARLY, *" \t\n강a2", "dog", "1e5", "item:1", "image:x", "item:", "\0", "\ud800"]
    )
)


@given(st.text(st.characters() | st.sampled_from(SIGNS)) | SOUP.map("".join) | SOUP.map(" ".join))
@example("ıtem:3")
@settings(max_examples=2000)
def test_any_text_is_a_query_or_refused_at_one_of_its_characters(text):
    try:
        assert units(Query.parse(text))
    except QueryError as error:
        at = re.match(r"query, at character (\d+) of \[", str(error))
        assert at is not None
        assert 1 <= int(at[1]) <= len(text) + 1


WORD = st.text(
    st.characters(codec="utf-8").filter(lambda c: c not in SIGNS + NEARLY and not c.isspace()), min_size=1
)
DASHED = st.lists(WORD, min_size=1, max_size=3).map("-".join)


@given(st.lists(DASHED, min_size=1, max_size=6), st.sampled_from([" ", "  ", "\t", " \n "]))
def test_a_sentence_without_operators_is_one_text_with_exactly_these_words(words, space):
    assert Query.parse(space.join(words)) == Query(" ".join(words))
    assert plain(Query.parse(space.join(words))) == " ".join(words)


NAMES = ["a", "b", "c", "d"]
NUMBERS = st.sampled_from(["2", "0.5", "3e2", ".25"])


def joined(operands, signs):
    """Operands with signs between them, and now and then ~, - or parentheses before and around."""
    chain = st.lists(st.tuples(st.sampled_from(signs), operands), min_size=1, max_size=3)
    return st.tuples(operands, chain).map(lambda ab: ab[0] + "".join(f" {sign} {one}" for sign, one in ab[1]))


def expressions(signs, prefixes):
    simple = st.sampled_from(NAMES)
    if "+" in signs:
        simple |= st.tuples(NUMBERS, simple).map("*".join) | st.tuples(simple, NUMBERS).map(" * ".join)
    return st.recursive(
        simple,
        lambda part: (
            joined(part, signs) | part.map("({})".format) | part.map(lambda p: f"{prefixes[0]}({p})")
        ),
        max_leaves=8,
    )


def outcome(make):
    try:
        query = make()
        units(query)
        return query
    except QueryError:
        return "refused"


@given(joined(st.one_of(expressions("&|", "~"), expressions("+-", "-")), "&|+-"))
@example("a - b + c & d | ~a & -b + c")
def test_a_text_means_what_python_makes_of_the_same_expression(text):
    names = {name: Query(name) for name in NAMES}
    assert outcome(lambda: Query.parse(text)) == outcome(lambda: eval(text, {}, names))


# ---------------------------------------------------------------------- evaluation


def unit_rows(rng, n, dim=16):
    rows = rng.normal(size=(n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(expressions("+-", "-"))
def test_a_sum_of_texts_is_the_normalised_sum_of_their_vectors(text):
    rows = dict(zip(NAMES, unit_rows(np.random.default_rng(1), len(NAMES)), strict=True))
    query = outcome(lambda: Query.parse(text))
    if query == "refused":
        return
    total = eval(text, {}, {name: row.astype(np.float64) for name, row in rows.items()})
    found = combine(query, lambda leaf: rows[leaf.value][None])
    assert (found.shape, found.dtype) == ((1, 16), np.float32)
    np.testing.assert_allclose(found[0], total / np.linalg.norm(total), atol=1e-6)
    assert not mixed(query)


def test_a_sum_across_modalities_is_one_of_centred_vectors():
    rng = np.random.default_rng(2)
    snow, beach, picture, item, mine, text_mean, image_mean = unit_rows(rng, 7).astype(np.float64)
    mine = image_mean + 0.1 * mine  # a vector of a picture, by the looks of it
    mine /= np.linalg.norm(mine)
    query = (
        2 * Query("snow")
        + Query.image("p.jpg")
        + Query.item(5)
        - 0.5 * Query("beach")
        + Query.embedding(mine)
    )
    rows = {"snow": snow, "p.jpg": picture, 5: item, "beach": beach}

    def embed(leaf):
        return rows.get(leaf.value, mine)[None]

    def centred(row, mean):
        return (row - mean) / np.linalg.norm(row - mean)

    total = 2 * centred(snow, text_mean) - 0.5 * centred(beach, text_mean)
    total += sum(centred(row, image_mean) for row in (picture, item, mine))
    found = combine(query, embed, Means(text_mean, image_mean))
    np.testing.assert_allclose(found[0], total / np.linalg.norm(total), atol=1e-6)
    assert mixed(query)
    assert not mixed(Query.image("p.jpg") + Query.item(5))

    plain_sum = combine(Query.image("p.jpg") - Query.item(5), embed, Means(text_mean, image_mean))[0]
    np.testing.assert_allclose(plain_sum, (picture - item) / np.linalg.norm(picture - item), atol=1e-6)

    alone = combine(Query.item(5) + "snow", embed, Means(text_mean, item))[
        0
    ]  # the only picture: its own mean
    np.testing.assert_allclose(alone, centred(snow, text_mean), atol=1e-6)


def test_vectors_that_cancel_each_other_are_told():
    rows = unit_rows(np.random.default_rng(3), 1)
    with pytest.raises(QueryError, match="dog - cat cancel each other"):
        combine(DOG - CAT, lambda leaf: rows)


def test_extreme_weights_keep_their_direction():
    x, y = np.eye(2, dtype=np.float32)[:, None]
    query = 1e308 * DOG + 1e308 * DOG + 1e308 * CAT
    found = combine(query, lambda leaf: x if leaf.value == "dog" else y)
    np.testing.assert_allclose(found[0], np.array([2, 1]) / np.sqrt(5), atol=1e-6)
    tiny = combine(1e-300 * CAT, lambda leaf: y)
    np.testing.assert_array_equal(tiny, y)


class Chance:
    """Probabilities of independent events, by hand."""

    def __init__(self, p):
        self.p = p

    def __and__(self, other):
        return Chance(self.p * other.p)

    def __or__(self, other):
        return Chance(self.p + other.p - self.p * other.p)

    def __invert__(self):
        return Chance(1 - self.p)


@given(expressions("&|", "~"))
def test_relevance_is_that_of_independent_events(text):
    given = dict(zip(NAMES, np.random.default_rng(4).random((len(NAMES), 9)), strict=True))
    query = Query.parse(text)
    rows = [given[unit.terms[0][1].value] for unit in units(query)]
    expected = eval(text, {}, {name: Chance(p) for name, p in given.items()}).p
    np.testing.assert_allclose(relevance_of(query, rows), expected, atol=1e-12)


def test_relevance_by_hand():
    query = Query("cat") & ~Query("glasses") | 2 * DOG - CAT
    assert units(query) == [Query("cat"), Query("glasses"), 2 * DOG - CAT]
    found = relevance_of(query, [[1.0, 0.8, 0.8], [1.0, 0.5, 0.0], [0.0, 0.5, 1.0]])
    np.testing.assert_allclose(found, [0.0, 0.7, 1.0])
    assert relevance_of(query, np.empty((3, 0))).shape == (0,)


def test_leaves_come_once_and_without_those_of_no_weight():
    query = (DOG + 0 * CAT) & SNOW | (DOG - SNOW) & Query.item(3)
    assert [leaf.value for leaf in leaves(query)] == ["dog", "snow", 3]
    picture = Image.new("RGB", (4, 4))
    assert len(leaves(Query.image(picture) + Query.image(picture) + Query.image(b"x"))) == 2


def test_names_are_for_people_and_tell_no_folder():
    assert name(Query("rock + roll & more")) == plain(Query("rock + roll & more")) == "rock + roll & more"
    assert name(DOG & ~Query("red - car")) == 'dog & ~"red - car"'
    query = Query.image("/home/kim/secret/beach.jpg") + Query.item(3) - "people" & Query.embedding([1, 2])
    assert name(query) == "picture beach.jpg + item 3 - people & an embedding"
    assert name(Query.image(b"x")) == "a picture"
    assert [plain(query) for query in (2 * DOG, ~DOG, DOG + CAT, Query.item(3), DOG)] == [None] * 4 + ["dog"]
