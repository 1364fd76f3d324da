"""Zero-shot classification: labels told in words, and what they say of pictures' vectors."""

from .classifier import Classifier, Scores, TextModel, build_classifier, joined, score_all
from .labelset import Label, LabelSet, LabelSpec, read_labels, split_names
from .outputs import check_name
from .refine import Refined, refine
from .results import Guess, Labelled, LabelResults, Pictured, Verdict
from .templates import DEFAULT, Templates, TemplateSpec, read_templates

__all__ = [
    "DEFAULT", "Classifier", "Guess", "Label", "LabelResults", "LabelSet", "LabelSpec", "Labelled",
    "Pictured", "Refined", "Scores", "TemplateSpec", "Templates", "TextModel", "Verdict",
    "build_classifier", "check_name", "joined", "read_labels", "read_templates", "refine", "score_all",
    "split_names",
]  # fmt: skip
