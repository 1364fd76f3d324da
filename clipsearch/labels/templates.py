"""Prompt templates: the sentences a label's name is put into before a model reads it."""

import os
import re
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias
from unicodedata import normalize

from ..errors import LabelError
from ..render import printable

Fill: TypeAlias = Callable[[str], str]
"""Puts a name into a sentence."""

Template: TypeAlias = str | Fill
"""A sentence with `{}` or `{c}` where the name goes, or a function of the name."""

TemplateSpec: TypeAlias = "Templates | Template | os.PathLike[str] | Sequence[Template]"

DEFAULT = "photo"
OPEN_CLIP = {"simple-7": "SIMPLE_IMAGENET_TEMPLATES", "openai-80": "OPENAI_IMAGENET_TEMPLATES"}
SETS = ("plain", "photo", *OPEN_CLIP)
PLACE = re.compile(r"\{c?\}")  # where the name goes


@dataclass(frozen=True)
class Templates:
    """The sentences that every label's name is put into.

    Attributes:
        name: what they are called in results, for people: it does not tell two functions apart.
        fill: one function a template, in order; each puts a name into its sentence.
    """

    name: str
    fill: tuple[Fill, ...]

    def prompts(self, name: str) -> list[str]:
        """Return one sentence a template, in order.

        Raises:
            LabelError: a function of the user's returned no text.
        """
        return [fill(name) for fill in self.fill]


def read_templates(spec: TemplateSpec = DEFAULT) -> Templates:
    """Read prompt templates.

    `{}` and `{c}` are both where the name goes, as often as wanted, and are the only braces a template
    may hold: nothing else is looked up or formatted, and braces within a name stay as they are.

    Args:
        spec: one of
            "plain", the name alone;
            "photo", "a photo of a cat." with the article that `with_article` finds;
            "openai-80", the ensemble of the CLIP paper (Radford et al. 2021, section 3.1.4), and
            "simple-7", seven of it that its authors picked, both word for word as in open_clip;
            one template, such as "사진 속의 {}" or a function of the name;
            a text file with one template a line, UTF-8, blank lines skipped;
            a list of templates.

    Raises:
        LabelError: it is none of these; a template is blank, there twice or has no place for the name;
            there is none at all.
    """
    if isinstance(spec, Templates):
        return spec
    if isinstance(spec, str) and spec in SETS:
        return Templates(spec, _named(spec))
    if isinstance(spec, str) and not PLACE.search(spec):
        if not os.path.isfile(os.path.expanduser(spec)):
            raise LabelError(
                f"found the templates {spec!r}, which is no file; expected one of {', '.join(SETS)}, "
                "a text file, or a sentence with {} or {c} where the name goes"
            )
        spec = Path(spec)
    if isinstance(spec, os.PathLike):
        path = Path(os.path.expanduser(spec))
        return Templates(path.name, _fills(text_lines(path)))
    if isinstance(spec, str) or callable(spec):
        return Templates(_title(spec), _fills([("the template", spec)]))
    if isinstance(spec, Sequence) and not isinstance(spec, bytes | bytearray):
        name = _title(spec[0]) if len(spec) == 1 else f"{len(spec)} templates"
        return Templates(name, _fills([(f"template {n}", each) for n, each in enumerate(spec, 1)]))
    raise LabelError(
        f"found templates of type {type(spec).__name__}, expected one of the sets {', '.join(SETS)}, "
        "a sentence with {}, a function, or a list of them"
    )


def _title(template: object) -> str:
    if isinstance(template, str):
        return " ".join(template.split())
    return f"function {getattr(template, '__name__', type(template).__name__)}"


def _named(name: str) -> tuple[Fill, ...]:
    if name in OPEN_CLIP:
        return tuple(open_clip_metadata(OPEN_CLIP[name]))
    return (str if name == "plain" else photo,)


def _fills(found: Sequence[tuple[str, object]]) -> tuple[Fill, ...]:
    """Return what fills each template of (where it was found, template)."""
    if not found:
        raise LabelError("found no templates, expected at least one: a sentence with {} for the name")
    templates: list[Template] = []
    for where, template in found:
        sentence = template if callable(template) else _sentence(where, template)
        if sentence in templates:
            raise LabelError(f"{where}: found {template!r} again, which would count twice; remove one")
        templates.append(sentence)
    return tuple(_filler(where, each) for (where, _), each in zip(found, templates, strict=True))


def _sentence(where: str, template: object) -> str:
    """Return a template in one spelling, with `{}` where the name goes."""
    if not isinstance(template, str):
        raise LabelError(f"{where}: found {template!r}, expected a sentence with {{}}, or a function")
    sentence = PLACE.sub("{}", tidy(where, template))
    rest = sentence.replace("{}", "")
    if "{" in rest or "}" in rest:
        raise LabelError(
            f"{where}: found {template!r}; braces may be there only as {{}} or {{c}}, for the name"
        )
    if rest == sentence:
        raise LabelError(f"{where}: found {template!r}, expected {{}} or {{c}} where the name goes")
    return sentence


def _filler(where: str, template: Template) -> Fill:
    if isinstance(template, str):
        parts = template.split("{}")
        return lambda name: name.join(parts)

    def fill(name: str) -> str:
        prompt = template(name)
        if not isinstance(prompt, str) or not prompt.strip():
            raise LabelError(f"{where}: the function returned {prompt!r} for {name!r}, expected a sentence")
        return prompt

    return fill


def photo(name: str) -> str:
    """Return "a photo of a cat." for an English name."""
    return f"a photo of {with_article(name)}."


def with_article(name: str) -> str:
    """Return an English name behind "a" or "an", or alone where neither belongs.

    By spelling, so now and then wrong, which costs a model little. No article goes before a name that
    is not mostly in Latin letters or begins with a sign; that brings its own ("the sun", "my dog", "two
    cats"); whose head is a plural: people, children and the like, or -s but not -ss, -us, -is and a few
    ("gas", "lens"). The head is the last word before a bracket or "of", "in", "with" and the like. Else
    it is "an" before the sound of a vowel: "an hour", "an X-ray", "an 8-ball", but "a unicorn", "a
    European". Names of what cannot be counted, of actions and of people get an article too ("a water"):
    give those labels prompts of their own, or use other templates.
    """
    letters = [char for char in name if char.isalpha()]
    if 2 * sum(char < "ɐ" for char in letters) < len(letters) or not name[:1].isalnum():
        return name
    head = HEAD_ENDS.split(name)[0].split()[-1]
    if OWN_ARTICLE.match(name) or PLURAL.fullmatch(head):
        return name
    plain = normalize("NFKD", name).encode("ascii", "ignore").decode()  # é is e
    return f"an {name}" if VOWEL_SOUND.match(plain) else f"a {name}"


OWN_ARTICLE = re.compile(
    r"(?i)(?:an?|the|this|that|these|those|my|your|his|her|its|our|their|some|several|many|something|someone"
    r"|nothing|nobody|one|two|three|four|five|six|seven|eight|nine|ten)(?: |$)"
)
HEAD_ENDS = re.compile(r"(?i) (?:at|for|from|in|of|on|with) |\(")
PLURAL = re.compile(
    r"(?i)(?!(?:atlas|bias|canvas|christmas|cosmos|gas|lens|rhinoceros|series|thermos|triceratops)$)"
    r".*[^isu'’]s|people|(?:wo)?men|children|feet|teeth|geese|mice"
)
VOWEL_SOUND = re.compile(
    r"""(?i)
    (?! e(?-i:u) | ewe | one(?![a-rt-z]) | once | (?-i:U[A-Z])  # you, won
      | u(?: [bfgkrstv][aeiou] | ni(?!n|de|mp) | sb | v?(?![a-z]) ) ) [aeiou]
    | heir | hon(?:est|ou?r) | hour | hors\ d                   # a silent h
    | 8 | 1[18](?!\d)                                           # eight, eleven, eighteen
    | [fhlmnrsx](?![a-z])                                       # X-ray: ef, aitch, el, em …
    | (?-i: (?:LED|SUV)(?![A-Z])                                # letters read out, unless they make a word
      | (?!(?:[FHLMNRSX]|F[LR]|MN|RH|S[CHKLMNPQTVW][LR]?)[AEIOUY]) [FHLMNRSX][A-Z] )
    """,
    re.VERBOSE,
)


def open_clip_metadata(name: str) -> Any:
    """Return one of the lists of open_clip's `zero_shot_metadata`, without loading open_clip or torch.

    Raises:
        LabelError: open_clip is not installed.
    """
    return _metadata()[name]


@cache
def _metadata() -> dict[str, Any]:
    package = find_spec("open_clip")  # finds it without running it
    if package is None or not package.submodule_search_locations:
        raise LabelError("the package open_clip is not there to take names from: pip install open_clip_torch")
    return runpy.run_path(os.path.join(package.submodule_search_locations[0], "zero_shot_metadata.py"))


def tidy(where: str, text: str) -> str:
    """Return `text` in its one spelling: Unicode NFC, stripped, one space for any white space.

    Raises:
        LabelError: it is blank, or holds a character that cannot be seen: a line break, a control or
            direction-turning character, a lone surrogate.
    """
    if printable(text.strip()) != text.strip():
        raise LabelError(f"{where}: found {text!r}, which holds characters that cannot be seen; remove them")
    if not text.strip():
        raise LabelError(f"{where}: found {text!r}, expected a text that is not blank")
    return " ".join(normalize("NFC", text).split())


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte order mark.

    Raises:
        LabelError: it cannot be read, or is not UTF-8; the message has the line.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabelError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise LabelError(f"{path}, line {line}: found bytes that are not UTF-8; save it as UTF-8") from error


def text_lines(path: Path) -> list[tuple[str, str]]:
    """Return (where, stripped line) for each line of a UTF-8 file that is not blank; `where` is for messages.

    Raises:
        LabelError: see `read_text`.
    """
    lines = enumerate(StringIO(read_text(path), newline=None), 1)
    return [(f"{path}, line {number}", line.strip()) for number, line in lines if line.strip()]
