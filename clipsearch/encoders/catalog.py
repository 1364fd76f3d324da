"""The models that have a short name, and what is published about them.

Parameters, image size and dimension are counted from open_clip's own configurations. Accuracies
are the ones the named publication gives; None where none is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DEFAULT_MODEL = "siglip2-b16"
BUILTIN = "builtin"


@dataclass(frozen=True, slots=True)
class Model:
    """One model with a short name.

    Attributes:
        alias: the short name.
        name: the canonical id: `ARCHITECTURE/WEIGHTS` as open_clip calls them, or "builtin".
        parameters: millions, both towers.
        image_size: pixels of a side of the square the model looks at.
        dim: length of its vectors.
        languages: what queries may be written in.
        licence: of the weights.
        imagenet: published zero-shot top-1 accuracy on ImageNet-1k, percent.
        published: where that figure stands.
        download: megabytes, once.
        note: when to choose it.
    """

    alias: str
    name: str
    parameters: float
    image_size: int
    dim: int
    languages: str
    licence: str
    imagenet: float | None
    published: str | None
    download: int | None
    note: str


_SIGLIP2 = "SigLIP 2 paper (arXiv 2502.14786), table 1"
_OPEN_CLIP = "open_clip, docs/openclip_results.csv"
_MOBILECLIP2 = "MobileCLIP2 paper (arXiv 2508.20691)"
_PE = "Perception Encoder paper (arXiv 2504.13181)"

_MODELS = (
    Model(BUILTIN, BUILTIN, 11.7, 96, 256, "English", "research", None, None, 0,
          "comes with clipsearch: to try things without a download; knows few things"),
    Model("siglip2-b32", "ViT-B-32-SigLIP2-256/webli", 376.9, 256, 768, "many", "Apache-2.0",
          74.0, _SIGLIP2, 1508, "the fast one for a machine without a GPU"),
    Model("siglip2-b16", "ViT-B-16-SigLIP2/webli", 375.2, 224, 768, "many", "Apache-2.0",
          78.2, _SIGLIP2, 1501, "the default"),
    Model("siglip2-l16", "ViT-L-16-SigLIP2-256/webli", 881.5, 256, 1024, "many", "Apache-2.0",
          82.5, _SIGLIP2, 3526, "better and slower, for a GPU"),
    Model("siglip2-so400m", "ViT-SO400M-16-SigLIP2-384/webli", 1136.0, 384, 1152, "many", "Apache-2.0",
          84.1, _SIGLIP2, 4544, "the best of these, for a GPU"),
    Model("pe-core-b16", "PE-Core-B-16/meta", 447.7, 224, 1024, "English", "Apache-2.0",
          78.4, _PE, 1791, "English only"),
    Model("mobileclip2-s2", "MobileCLIP2-S2/dfndr2b", 99.2, 256, 512, "English", "Apple research",
          77.2, _MOBILECLIP2, None, "small; the licence is for research"),
    Model("vit-b-32", "ViT-B-32/datacomp_xl_s13b_b90k", 151.3, 224, 512, "English", "MIT",
          69.2, _OPEN_CLIP, 605, "classic CLIP, 224 pixels"),
    Model("vit-b-32-256", "ViT-B-32-256/datacomp_s34b_b86k", 151.3, 256, 512, "English", "MIT",
          72.8, _OPEN_CLIP, 605, "classic CLIP, 256 pixels"),
    Model("vit-l-14", "ViT-L-14/datacomp_xl_s13b_b90k", 427.6, 224, 768, "English", "MIT",
          79.2, _OPEN_CLIP, 1710, "classic CLIP, large"),
    Model("openai-b32", "ViT-B-32/openai", 151.3, 224, 512, "English", "MIT",
          63.3, _OPEN_CLIP, None, "the first CLIP; what many other tools use"),
    Model("xlm-b32", "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k", 366.1, 224, 512, "about 100", "MIT",
          62.4, _OPEN_CLIP, 1464, "many languages at the speed of ViT-B/32"),
    Model("nllb-l", "nllb-clip-large-siglip/mrl", 1195.5, 384, 1152, "201", "CC-BY-NC-4.0",
          None, None, 4780, "best in Korean and in small languages; slow; not for commerce"),
)  # fmt: skip

CATALOG: Mapping[str, Model] = MappingProxyType({model.alias: model for model in _MODELS})
"""Every model with a short name, by that name, the small ones first."""
