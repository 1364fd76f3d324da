"""A collection: what users hold."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import captioning, upkeep
from .arguments import Picture
from .asking import Asker, wanted
from .bank import Language
from .captioners import load_vlm
from .captioning import CaptionReport
from .captions import drop_captioner, find_captioner, use_captioner
from .duplicates import Duplicates, check_threshold, find
from .embedder import Embedder
from .encoders import DEFAULT_MODEL, AnyModel, load_encoder, notice_script
from .errors import ClipsearchError, CollectionError, LayoutError, SourceError
from .filters import Selection
from .formats import Exported, ImportReport, bring_in, open_vectors, write_vectors
from .index import About, Keeper, check_layout
from .ingest import ingest
from .labelling import classify
from .labels import DEFAULT, LabelResults, LabelSpec, TemplateSpec, read_labels, read_templates
from .overview import overview, shown_contents
from .pictures import Pictures
from .query import Query
from .reader import Reader
from .report import Failure, Report
from .rerank.evaluation import RerankEvaluation
from .rerank.fusion import Fit
from .results import Hit, SearchResults
from .search import Searcher
from .sources import SourceSpec, absolute, open_source
from .spaces import Spaces
from .spec import as_bytes
from .store import Space, Store, is_collection, refuse_other_things
from .types import VLM, Embeddings, Encoder, Reranker, Source
from .writer import Writer, writing


class Collection:
    """Pictures that can be searched with words or pictures: a folder of vectors, never of pictures.

    Opening reads no vectors and loads no model; the model comes with the first call that needs it.
    Several threads and processes may search; whoever writes while another does gets a LockedError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: AnyModel | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        memory: int | str | None = None,
        read_only: bool = False,
    ) -> None:
        """Open the collection at `path`, or make one there.

        Args:
            path: the collection's folder.
            model: a model's name (see `clipsearch models`), a directory, or an encoder of your own.
                None: the one it was made with, or siglip2-b16 for a new one.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            precision: "auto", "fp32", "bf16", "fp16".
            memory: what an index chosen by "auto" may take of it: bytes, or a text such as "4GB".
                None: what it needs, about a quarter of a byte for each number of each vector.
            read_only: it must exist, and nothing is written into it.

        Raises:
            CollectionError: the folder holds other things; or, read-only, there is no collection.
            ModelError: there is no such model, or a new collection's model is not to be had.
            ModelMismatchError: the collection was made with another model.
        """
        self.path = Path(absolute(path))
        allowed = None if memory is None else as_bytes(memory)
        if not (is_collection(self.path) or read_only):
            refuse_other_things(self.path)
            # A model that is not to be had is an error before there is a new folder.
            wanted = DEFAULT_MODEL if model is None else model
            model = load_encoder(wanted, device=device, precision=precision)
            Store.create(self.path).close()
        self._store = Store(self.path, read_only=read_only)
        try:
            self._spaces = spaces = Spaces(self._store, model, device, precision)
        except ClipsearchError:
            self._store.close()
            raise
        self._keeper = Keeper(self._store, allowed, lambda: spaces.device)  # nothing points back to self
        self._reader = Reader(self._store, spaces, self._keeper)
        self._pictures = Pictures(self._store)
        self._embedder = Embedder(spaces, self._reader, self._pictures)
        self._asker = Asker(self._store, self._reader, self._embedder, self._pictures)

    def close(self) -> None:
        """Wait for an index that is being built, and close the files; the next use opens them again."""
        self._keeper.wait()
        self._store.close()

    def __enter__(self) -> "Collection":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._store.counts()["pictures"]

    def __repr__(self) -> str:
        return f"Collection({str(self.path)!r}, model={self.model!r}): {len(self):,} pictures"

    # ------------------------------------------------------------------ model

    @property
    def model(self) -> str:
        """The id of the model whose vectors are searched, or that the first `add` will use."""
        return self._spaces.model

    @property
    def encoder(self) -> Encoder:
        """The model, loaded now if it was not yet.

        Raises:
            ModelError: it cannot be loaded whole.
            ModelMismatchError: its weights are not those the vectors were made with.
        """
        return self._spaces.encoder

    @property
    def models(self) -> list[str]:
        """The models that have vectors here, oldest first."""
        return [space.model for space in self._spaces.all()]

    def add_model(self, model: AnyModel, *, progress: bool | None = None) -> list[Report]:
        """Fill a second space: encode every picture of every source with another model too.

        The model in use stays in use; `use_model` switches. Call it again to go on after a stop.
        Pictures that were handed over one by one must be handed over again once it is in use.

        Returns:
            One report per source.
        """
        encoder, space = self._spaces.filled_by(model)
        return [self._refresh(source, space, encoder, progress) for source in self._pictures.relisted()]

    def use_model(self, model: AnyModel) -> None:
        """Search with a model that has vectors here from now on.

        Raises:
            CollectionError: it has none here, or some pictures have none of it yet, say of a disk
                that was not connected: they would drop out of the search.
        """
        space = self._spaces.find(model)
        if waiting := self._store.counts()["contents"] - shown_contents(self._store, space):
            raise CollectionError(
                f"{waiting:,} pictures have no vector of {space.model!r} yet, "
                f"so {self.model!r} stays in use; make their sources readable, or remove them, "
                "and add the model again"
            )
        self._keeper.wait()  # an index that is being built is tuned with the model that was in use
        self._spaces.use(space, None if isinstance(model, str | os.PathLike) else model)
        self._keep_index()

    def drop_model(self, model: AnyModel) -> None:
        """Delete the vectors of a model that is not in use."""
        self._keeper.wait()
        self._spaces.drop(self._spaces.find(model))

    # ------------------------------------------------------------------ pictures in and out

    def add(
        self,
        source: SourceSpec,
        *,
        exclude: str | Sequence[str] = (),
        tiles: str | None = None,
        retry_failed: bool = False,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> Report:
        """Add the pictures of a source, or bring the collection up to date with it.

        Args:
            source: a folder or its URL, a glob pattern, a zip, tar or Parquet file, shards such as
                `shards/{00000..00099}.tar`, a table or a text file that names pictures, a list of paths, a
                `datasets.Dataset`, or an iterable of (key, picture as bytes or PIL image) or of `Item`
                objects; docs/sources.md tells of all.
            exclude: patterns of paths or folder names to leave out.
            tiles: grids such as "3x3" or "2x2+3x3", ROWSxCOLUMNS, whose tiles are encoded beside the whole
                picture, so that small things are found; see docs/tiles.md. All that comes later has them too,
                and what is there gets them when its source is added again. None: as before, at first none.
            retry_failed: read pictures again that failed before and have not changed since.
            batch_size: pictures or tiles encoded at a time; None chooses.
            progress: show a bar; None does where a terminal is watching.

        Returns:
            What became of every picture; print it.

        Raises:
            CollectionError: the collection has other tiles, or `tiles` are none.
            SourceError: the source is absent or holds no picture. Nothing was changed.
            Interrupted: Ctrl-C. What was encoded is kept, and the same call goes on from there.
            LockedError: another process is writing to the collection.
        """
        opened = open_source(source, exclude=exclude)
        report = ingest(
            self._store,
            self._spaces.with_tiles(tiles),
            opened,
            self.encoder,
            retry_failed=retry_failed,
            batch_size=batch_size,
            progress=progress,
        )
        self._keep_index(progress)
        return report

    def refresh(
        self, *, tiles: str | None = None, retry_failed: bool = False, progress: bool | None = None
    ) -> list[Report]:
        """Bring the collection up to date with every source that can be looked through again.

        Those are folders, globs, archives and lists; pictures handed over one by one stay as they are.
        The arguments are those of `add`.

        Returns:
            One report per source; one that is absent has failed, and its pictures stay.
        """
        if self._spaces.in_use() is None:
            return []
        space, encoder = self._spaces.with_tiles(tiles), self.encoder
        reports = [
            self._refresh(source, space, encoder, progress, retry_failed)
            for source in self._pictures.relisted()
        ]
        self._keep_index(progress)
        return reports

    def _refresh(
        self,
        source: Source,
        space: Callable[[Writer], Space],
        encoder: Encoder,
        progress: bool | None,
        retry_failed: bool = False,
    ) -> Report:
        try:
            return ingest(self._store, space, source, encoder, retry_failed=retry_failed, progress=progress)
        except SourceError as error:
            absent = Failure(source.root, f"{error}; if it moved, relocate it")
            return Report(source.root, encoder.model_id, failed=[absent])

    def remove(self, *what: int | str | os.PathLike[str], where: str | None = None) -> int:
        """Forget pictures; the files themselves are not touched.

        A file that is still in its source comes back with the next `add` of that source. A source of which
        nothing is left is forgotten: `refresh` does not look through it.

        Args:
            what: ids, paths of pictures, folders (everything below them goes), or sources as they were added.
            where: a condition as in `search`: only pictures that pass go; without `what`, all that do.

        Returns:
            How many items were removed; nothing given removes none.
        """
        count = self._pictures.remove(what, self._only(where))
        self._keep_index()
        return count

    def remove_missing(self) -> int:
        """Forget the pictures that are gone from their sources; return how many."""
        count = self._pictures.remove_missing()
        self._keep_index()
        return count

    def relocate(self, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> None:
        """Tell the collection that a source's folder or archive was moved.

        Raises:
            SourceError: there is no such source, or the new place holds none of its pictures.
        """
        self._pictures.relocate(absolute(old), absolute(new))

    def paths(self, *, where: str | None = None) -> dict[int, str]:
        """Where every present picture is, by its id, in order of the ids; `where` as in `search`."""
        return self._pictures.paths(self._only(where))

    def failures(self) -> list[Failure]:
        """The pictures that could not be read, with the reason, oldest first."""
        return self._pictures.failures()

    # ------------------------------------------------------------------ search

    def search(
        self,
        query: str | Query | None = None,
        *,
        image: "Picture | None" = None,
        item: int | Hit | None = None,
        embedding: npt.ArrayLike | None = None,
        k: int = 10,
        where: str | None = None,
        stages: Sequence[Reranker] = (),
        min_relevance: float | None = None,
        diverse: float = 0.0,
        liked: "Sequence[Picture | Hit | int]" = (),
        disliked: "Sequence[Picture | Hit | int]" = (),
    ) -> SearchResults:
        """Find the pictures most like a text, a picture, an item or a vector: exactly one of them.

        Args:
            query: plain words, no character of which is an operator; or a `Query`, which may join several
                texts and pictures: `Query("dog") & ~Query("leash")`; see docs/queries.md.
            image: a path, the bytes of a file, or a PIL image.
            item: a hit, or the id of a picture here ("more like this"); not among its own results.
            embedding: dim numbers in the model's space, of any length but zero.
            k: how many; fewer come where there are fewer.
            where: what a picture must be to be found, such as "taken >= '2024' and camera = 'X100V'";
                docs/filters.md has all of it.
            stages: rerankers that judge the best hits for a text again, one after the other, such as a
                `YesNoReranker`; see docs/rerank.md.
            min_relevance: leave out hits that are less relevant, 0 to 1; 0.5 is a good one. Where none is
                left, `results.nearest` has what was nearest. It calibrates, see `calibrate`.
            diverse: 0 for the best hits, up to 1 for hits unlike each other (maximal marginal relevance).
            liked: hits, ids or pictures that are right: the query is moved towards them (Rocchio's rule).
                Without a query they are the query.
            disliked: hits, ids or pictures that are wrong: it is moved off them.

        Returns:
            Hits, best first; equal scores in the order the pictures came in. An empty collection
            gives none. With stages, `hit.judgements` and `results.stages` tell what they did. Once the model
            is calibrated, hits have a relevance and `results.relevant` tells whether any is relevant.

        Raises:
            QueryError: none or several of the four were given, the text is empty, k is not
                positive, the item is unknown, the vector has another dimension, `where` is no
                condition (the message says at which character), or stages were given without a text.
            ImageError: the picture cannot be read.
            ModelError, ServerError: a stage's model cannot be asked.
        """
        if isinstance(item, Hit):
            self._pictures.content(item)  # raises where it is of another collection
        asked = wanted(query, image=image, item=item, embedding=embedding)
        return self._asker.search(
            asked,
            k=k,
            where=where,
            stages=stages,
            min_relevance=min_relevance,
            diverse=diverse,
            liked=liked,
            disliked=disliked,
        )

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        where: str | None = None,
        min_relevance: float | None = None,
    ) -> list[SearchResults]:
        """Search for several texts at once: one pass of the text tower and one over the vectors.

        `k`, `where` and `min_relevance` are as in `search`.

        Returns:
            One SearchResults per text, in order. No texts give an empty list.
        """
        return self._asker.many(queries, k=k, where=where, min_relevance=min_relevance)

    def calibrate(self, *languages: Language) -> None:
        """Encode the neutral captions that relevance compares with, so that all searches give it from now on.

        Once is enough for a model: its vectors are kept in the user's cache folder. `clipsearch index` does.

        Args:
            languages: "english", which is the default, and "korean".
        """
        for language in languages or ("english",):
            self._embedder.neutral(language)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts as queries, float32 (n, dim), unit rows; those asked before come from a cache."""
        return self._embedder.texts(texts)

    def embeddings(self, *, where: str | None = None) -> tuple[list[int], Embeddings]:
        """Every picture's id and its vector, float32 (n, dim), unit rows, in order of the ids.

        `where` as in `search`. Before the first add the shape is (0, 0).
        """
        only, searcher = self._only(where), self._searcher()
        return searcher.everything(only) if searcher else ([], np.empty((0, 0), np.float32))

    def duplicates(
        self, *, threshold: float | None = None, where: str | None = None, progress: bool | None = None
    ) -> Duplicates:
        """Group the pictures that are here more than once: the same bytes, or nearly the same picture.

        Of each group one is to be kept: that with the most pixels; of as many, the sharpest, where another is
        less than half as sharp; then the largest file; then the one that came first. All others lie within
        reach of it. No pair of pictures is missed, and nothing is deleted: `remove` forgets pictures.

        Args:
            threshold: the least cosine. None: what suits the model and these pictures, see
                docs/duplicates.md; `threshold` of the result tells it.
            where: only among the pictures that pass; see `search`.
            progress: show bars; None does where a terminal is watching.

        Returns:
            The groups; print them, or write them with `to_csv` or `to_html`. An empty collection gives none.

        Raises:
            QueryError: the threshold is not above 0 and at most 1, or `where` is no condition.
        """
        if threshold is not None:
            threshold = check_threshold(threshold)
        only, searcher = self._only(where), self._searcher()
        if searcher is None:
            return Duplicates((), threshold or 1.0, 0)
        return find(searcher, threshold=threshold, only=only, progress=progress)

    def _searcher(self) -> Searcher | None:
        return self._reader.searcher()

    def _only(self, where: str | None) -> Selection | None:
        return self._reader.only(where)

    # ------------------------------------------------------------------ labels

    def classify(
        self,
        labels: LabelSpec,
        *,
        templates: TemplateSpec = DEFAULT,
        multi: bool = False,
        scores: str = "auto",
        unknown: bool = True,
        threshold: float | None = None,
        examples: "Mapping[str, Sequence[Picture | Hit | int]] | None" = None,
        k: int | None = None,
        where: str | None = None,
        progress: bool | None = None,
    ) -> LabelResults:
        """Say of every picture which of some labels fits it, by the vectors that are here.

        Args:
            labels: names, or whatever `read_labels` takes: a text, CSV or JSON file, prompts by name, …
            templates: what the names are put into, see `read_templates`.
            multi: a picture may have several labels, or none.
            scores: "softmax" for one label a picture; "sigmoid" (models trained with it) or "contrast"
                for several; "auto" picks, and the results say which.
            unknown: let a picture be none of these. It costs encoding about 1,000 words, once.
            threshold: score from which a label is said. None: the best whatever its score, or, of
                several, all from 0.5 ("sigmoid") or 0.98 ("contrast").
            examples: for labels, pictures that show them: hits or ids of this collection, whose vectors
                are there, or other pictures, which are encoded. They correct the classifier where that
                makes held-out ones of them likelier; `results.refined` tells. At least 10 in all.
            k: labels kept for each picture; None: 5, 20 of several, 50 of labels with groups.
            where: label the pictures that pass this condition alone; see `search`.
            progress: show bars; None does where a terminal is watching.

        Returns:
            Every picture of the collection once, in order of the ids; without `where` those that could
            not be read too.

        Raises:
            LabelError: labels, templates, scores, examples or k are not to be used.
            QueryError: `where` is no condition.
        """
        only = self._only(where)
        names = read_labels(labels, least=1 if multi else 2)
        notice_script(self.model, names.names)  # in a template they look like English
        shown = [(label, picture) for label, some in (examples or {}).items() for picture in some]
        return classify(
            self._searcher(),
            self._embedder.text_model(),
            names,
            read_templates(templates),
            ((label, self._embedder.picture(picture)) for label, picture in shown),
            only=only,
            multi=multi,
            scores=scores,
            unknown=unknown,
            threshold=threshold,
            k=k,
            progress=progress,
        )

    # ------------------------------------------------------------------ captions

    def caption(
        self,
        captioner: str | os.PathLike[str] | VLM,
        *,
        prompt: str | None = None,
        max_tokens: int = 64,
        where: str | None = None,
        retry_failed: bool = False,
        batch_size: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        progress: bool | None = None,
    ) -> CaptionReport:
        """Have a vision-language model write a caption of every picture that has none of it yet.

        Captions are kept with the pictures: in `hit.metadata`, for `where="caption match 'red dog'"` and for
        `CaptionReranker`. Those of the captioner that ran last on all pictures are in use; others stay until
        they are removed, and `use_captions` goes back to them. A caption belongs to the model's weights, the
        prompt and the settings: with others it is written anew.

        Args:
            captioner: a hub id or a directory of a model that transformers knows, NAME@URL of a server's
                model, a `cs.HttpVLM`, or a model of your own; docs/captioners.md has them.
            prompt: what the model is asked; None: what suits it.
            max_tokens: of a caption, at most.
            where: only pictures that pass; see `search`.
            retry_failed: ask again for those that failed before.
            batch_size: pictures captioned at a time; None chooses.
            device: of a local model, see `Collection`.
            precision: likewise.
            progress: show a bar; None does where a terminal is watching.

        Returns:
            How many were captioned, and which failed; print it.

        Raises:
            ModelError, ServerError: the model cannot be asked. What it wrote is kept; the same call goes on.
            Interrupted: Ctrl-C; likewise.
            LockedError: another process is writing to the collection.
        """
        only, searcher = self._only(where), self._searcher()
        vlm = load_vlm(captioner, does="generate", device=device, precision=precision)
        if searcher is None:
            return CaptionReport(vlm.model_id)
        return captioning.write_all(
            self._store,
            searcher,
            vlm,
            prompt=prompt,
            max_tokens=max_tokens,
            batch_size=batch_size,
            retry_failed=retry_failed,
            only=only,
            progress=progress,
        )

    def encode_captions(self, text_model: AnyModel, *, progress: bool | None = None) -> int:
        """Encode the captions in use with a model of texts, so that `CaptionReranker` can retrieve with them.

        It does so itself unless the collection was opened read-only. Those that have a vector are left.

        Returns:
            How many captions have a vector now.

        Raises:
            CollectionError: there are no captions.
        """
        space = captioning.fill_vectors(self._store, load_encoder(text_model), progress=progress)
        return len(self._store.snapshot(space))

    def use_captions(self, captioner: str | int) -> None:
        """Show and search the captions of another captioner: a model's last ones, or a number in `info()`.

        Raises:
            QueryError: there are none.
        """
        with writing(self._store) as writer:
            use_captioner(writer, find_captioner(self._store, captioner))

    def remove_captions(self, captioner: str | int) -> int:
        """Delete the captions of a captioner and their vectors; return how many there were.

        Those of the newest other captioner are in use then, if they were.

        Args:
            captioner: a model's last ones, or a number in `info()`.
        """
        with writing(self._store) as writer:
            return drop_captioner(writer, find_captioner(self._store, captioner))

    def evaluate_rerank(
        self,
        queries: Sequence[str],
        relevant: "Sequence[Iterable[int | Hit | str]]",
        stages: Sequence[Reranker],
        *,
        k: int = 10,
        where: str | None = None,
    ) -> RerankEvaluation:
        """Measure what stages do to the results of queries whose relevant pictures are known.

        Args:
            queries: texts.
            relevant: the pictures that each should find: ids, hits or paths.
            stages: as in `search`.
            k: R@k is told too.
            where: as in `search`.

        Returns:
            R@k, MRR and nDCG before and after, the most that any order of the pool could reach, and seconds
            a query; print it.
        """
        return self._asker.second_look().evaluate(queries, self._pictures.ids(relevant), stages, k, where)

    def fit_weight(
        self,
        queries: Sequence[str],
        relevant: "Sequence[Iterable[int | Hit | str]]",
        stage: Reranker,
        *,
        where: str | None = None,
    ) -> Fit:
        """The weight of a reranker beside the first stage that is best for queries whose answers are known.

        Use it as the reranker's `weight` where `held_out` is above `default`. See `evaluate_rerank`.
        """
        return self._asker.second_look().fit(queries, self._pictures.ids(relevant), stage, where)

    # ------------------------------------------------------------------ formats

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str,
        where: str | None = None,
        progress: bool | None = None,
    ) -> Exported:
        """Write every picture's vector, path and metadata for other programs; see docs/formats.md.

        Args:
            path: an absent or empty folder ("clip-retrieval", "npy"), or a file, which is replaced
                ("parquet", "faiss").
            format: one of these four.
            where: only pictures that pass; see `search`.
            progress: show a bar; None does where a terminal is watching.

        Returns:
            Where it was written, and how many pictures.

        Raises:
            CollectionError: there are no vectors yet, the folder is not empty, or it cannot be written.
            MissingExtraError: it needs pyarrow; the message has the pip command.
        """
        only, space = self._only(where), self._spaces.in_use()
        if space is None:
            raise CollectionError(f"{self.path} has no vectors yet; add pictures")
        target = Path(absolute(path))
        return write_vectors(self._store, space, target, format=format, only=only, progress=progress)

    def import_vectors(
        self,
        path: str | os.PathLike[str],
        *,
        format: str,
        model: AnyModel | None = None,
        root: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
    ) -> ImportReport:
        """Add pictures whose vectors are there already; no picture is decoded and no model is loaded.

        Files that are there become items as if `add` had been given a list of them, and a later `add`
        encodes none of them again. Pictures that are gone are found all the same, in the source "(gone)".
        Vectors that some other program made are searched with their model, and no vector of an encoder here
        is ever put among them: see docs/formats.md.

        Args:
            path: what `export` or another program wrote.
            format: "clip-retrieval", "npy", "parquet" or "rclip".
            model: whose vectors they are. None: what they tell, else the model of the collection.
            root: the folder that relative paths begin at. None: these are not looked for.
            progress: show a bar; None does where a terminal is watching.

        Returns:
            What became of every row; print it. A row without a usable vector has failed.

        Raises:
            SourceError: there is nothing of that format.
            ModelMismatchError: the collection's vectors are of another model or dimension.
            ModelError: nobody says which model made the vectors.
            LockedError: another process is writing to the collection.
        """
        whole = Path(absolute(path))
        given = open_vectors(whole, format=format, model=model)
        if given.model is None:
            given = given._replace(model=self._spaces.named)
        top = None if root is None else absolute(root)
        report = bring_in(self._store, self._spaces, given, name=str(whole), root=top, progress=progress)
        self._keep_index(progress)
        return report

    # ------------------------------------------------------------------ index

    def build_index(
        self,
        layout: str | None = None,
        *,
        target_recall: float | None = None,
        queries: Sequence[str] | None = None,
        progress: bool | None = None,
    ) -> About:
        """Build the index that searches go through; until it is there they go on as before.

        By itself a collection looks at every vector up to 1 GB of them; past that, `add` has an index
        built in the background, and built anew when a tenth of the vectors is not in it or much of it
        was removed. This is for another layout, or for now.

        Args:
            layout: "auto", "exact", another name that `clipsearch indexes` lists, or a FAISS factory
                string; kept for later builds. None: as the last time, "auto" at first.
            target_recall: the share of the true ten best that is to be found for a text, and for a
                picture; it is tuned until it surely is (95 %). None: as the last time, 0.95 at first.
            queries: texts to tune on, such as are asked here, some hundred at best; captions that come
                with clipsearch make them up to 100. None: 1,000 of those captions.
            progress: show a bar; None does where a terminal is watching.

        Returns:
            What was built, and what it finds; `clipsearch info` tells it too.

        Raises:
            LayoutError: the layout is unknown, does not fit these vectors or there are too few of them.
            LockedError: an index is being built.
            CollectionError: there are no vectors yet, or the folder cannot be written.
        """
        space = self._spaces.in_use()
        if self._store.read_only or space is None:
            state = "was opened read-only" if self._store.read_only else "has no vectors yet; add pictures"
            raise CollectionError(f"{self.path} {state}")
        target_recall = _share(target_recall)
        if queries is not None:
            queries = [queries] if isinstance(queries, str) else list(queries)
            if not queries or not all(isinstance(query, str) and query.strip() for query in queries):
                raise LayoutError(f"queries are texts to tune on, at least one text, got {queries!r:.200}")
        if layout is not None:
            check_layout(layout, space.dim)
        self._keeper.wait()
        return self._keeper.build(
            space,
            self.encode_texts,
            layout=layout,
            target_recall=target_recall,
            queries=queries,
            progress=progress,
        )

    def index(self) -> dict[str, Any]:
        """What searches go through now, as JSON values: its layout, why, and what it was tuned to."""
        space = self._spaces.in_use()
        return self._keeper.describe(self._store.snapshot(space)) if space else {}

    def _keep_index(self, progress: bool | None = None) -> None:
        """Have the index built in the background when it is due."""
        if space := self._spaces.in_use():
            self._keeper.build_when_due(space, self.encode_texts, progress=progress)

    # ------------------------------------------------------------------ upkeep

    def verify(self) -> upkeep.Verification:
        """Read every byte and compare it with what was written."""
        return upkeep.verify(self._store)

    def compact(self) -> upkeep.Compaction:
        """Rewrite the vectors in few large files, without those that no item needs."""
        done = upkeep.compact(self._store)
        self._keep_index()
        return done

    def info(self) -> dict[str, Any]:
        """What is in the collection, as JSON values."""
        return overview(self._store, self._spaces, self._keeper)


def _share(target: float | None) -> float | None:
    """A share of NumPy's or Python's, as a float."""
    if target is not None and not (isinstance(target, Real) and 0 < target < 1):
        raise LayoutError(f"target_recall is a share such as 0.95, below 1, got {target!r}")
    return None if target is None else float(target)
