"""Which model a collection is searched with, and whether it may be."""

import operator
import os
from collections.abc import Callable
from functools import partial

from .captions import caption_spaces
from .encoders import DEFAULT_MODEL, AnyModel, check_dim, load_encoder, resolve
from .errors import CollectionError, ModelError, ModelMismatchError
from .store import Space, Store
from .tiles import read_tiles
from .types import FOREIGN, Encoder, fingerprint_of
from .writer import Writer, writing


class Spaces:
    """The spaces of a store, and the encoder of the one in use, loaded when first needed."""

    def __init__(self, store: Store, wanted: AnyModel | None, device: str, precision: str) -> None:
        """Take the space of the model that is wanted, or the live one.

        Raises:
            ModelMismatchError: the collection has vectors, and none of the model that is wanted.
        """
        self._store = store
        self._wanted, self._device, self._precision = wanted, device, precision
        self._loaded: Encoder | None = None
        self._refuse_another_model()

    def all(self) -> list[Space]:
        """Every space of pictures, oldest first."""
        others = caption_spaces(self._store)
        return [space for space in self._store.spaces() if space.id not in others]

    def in_use(self) -> Space | None:
        """The live space, unless another is of the model asked for; None before the first add."""
        live = next((space for space in self.all() if space.live), None)
        if self._wanted is None or (live and resolve(self._wanted) in _names(live)):
            return live
        return self._named(resolve(self._wanted)) or live

    @property
    def model(self) -> str:
        """The id of the model in use, or of the one that the first add will use."""
        space = self.in_use()
        wanted = DEFAULT_MODEL if self._wanted is None else self._wanted
        return space.model if space else resolve(wanted)

    @property
    def named(self) -> str | None:
        """The model in use or asked for; None: nobody has named one yet."""
        return None if self._wanted is None and self.in_use() is None else self.model

    @property
    def encoder(self) -> Encoder:
        """The model in use.

        Raises:
            ModelError: it cannot be loaded whole.
            ModelMismatchError: its weights are not those the vectors were made with.
        """
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    @property
    def device(self) -> str:
        """Where the model in use is, as torch names it; "cpu" while it is not loaded or does not tell."""
        return str(getattr(self._loaded, "device", "cpu")) if self._loaded else "cpu"

    def of_encoder(self, writer: Writer) -> Space:
        """The space of the model in use, made when there is none yet."""
        return self.in_use() or self._make(writer, self.encoder)

    def with_tiles(self, tiles: str | None) -> Callable[[Writer], Space]:
        """What gives the same, and lets every picture have these tiles from now on; None: as before.

        Raises:
            CollectionError: they are none. What is returned raises it where the collection has others, and
                ModelMismatchError where another program made its vectors.
        """
        if tiles is None:
            return self.of_encoder
        return partial(self._of_encoder_with, read_tiles(tiles))

    def _of_encoder_with(self, tiles: str, writer: Writer) -> Space:
        space, have = self.of_encoder(writer), self._store.tiles()
        if tiles == have:
            return space
        if have:
            raise CollectionError(
                f"{self._store.path} has tiles {have}, and {tiles} was asked for; leave it out to go on with "
                "those it has, or make a collection of its own for others"
            )
        if space.foreign:
            model = space.model.removeprefix(FOREIGN)
            raise ModelMismatchError(
                f"the vectors in use are {space.model!r}: another program made them, and tiles go with "
                f"vectors made here. Encode all pictures here: add_model({model!r}), then use_model it"
            )
        writer.use_tiles(tiles)
        return space

    def of_import(self, writer: Writer, model: str, fingerprint: str | None, dim: int) -> Space:
        """The space in use, made when there is none yet, for vectors that were made elsewhere.

        Without the fingerprint of the weights they are kept as foreign.

        Raises:
            ModelMismatchError: the vectors in use, or the model asked for, are of another model, or a
                vector of it is known to have another length.
        """
        own = model if fingerprint is not None or model.startswith(FOREIGN) else FOREIGN + model
        marks, space = fingerprint or "", self.in_use()
        if space is None:
            if self._wanted is not None and own.removeprefix(FOREIGN) != resolve(self._wanted):
                raise ModelMismatchError(f"found vectors of {model!r}; expected {resolve(self._wanted)!r}")
            named = isinstance(self._wanted, str | os.PathLike | None)
            check_dim(self._loaded or (own if named else self._load()), dim)
            return writer.add_space(model=own, fingerprint=marks, dim=dim)
        if (space.fingerprint, space.dim) != (marks, dim) or not (marks or space.model == own):
            found = _described(own, dim, marks)
            raise ModelMismatchError(
                f"{self._store.path} has vectors of {_described(space.model, space.dim, space.fingerprint)}, "
                f"which cannot be compared with those of {found}; import these into a collection of their own"
            )
        return space

    def unmake(self, writer: Writer, space: Space) -> None:
        """Delete a space that has got no vector, so that the next one may be of another length."""
        with writer.transaction() as db:
            db.execute(
                "DELETE FROM spaces WHERE id = ? AND id NOT IN (SELECT space FROM segments)", (space.id,)
            )

    def filled_by(self, model: AnyModel) -> tuple[Encoder, Callable[[Writer], Space]]:
        """Another model, and what gives its space, made when there is none yet."""
        encoder = self._load_anew(model)
        if space := self._named(encoder.model_id):
            self._check(space, encoder)
        return encoder, lambda writer: self._named(encoder.model_id) or self._make(writer, encoder)

    def find(self, model: AnyModel) -> Space:
        """The space of a model.

        Raises:
            CollectionError: it has none.
        """
        space = self._named(model) if isinstance(model, str) else None
        space = space or self._named(resolve(model))
        if space is None:
            names = [space.model for space in self.all()]
            raise CollectionError(
                f"{self._store.path} has no vectors of {model!r}, only of {names}; add_model makes them, "
                "of all pictures that can be read again"
            )
        return space

    def use(self, space: Space, encoder: Encoder | None = None) -> None:
        """Make a space the live one; `encoder` is its model where that is an object."""
        with writing(self._store) as writer, writer.transaction() as db:
            db.execute("UPDATE spaces SET live = (id = ?)", (space.id,))
        self._wanted = self._loaded = encoder

    def drop(self, space: Space) -> None:
        """Delete a space that is not live.

        Raises:
            CollectionError: it is.
        """
        if space.live:
            raise CollectionError(f"{space.model!r} is in use; use_model another one first")
        with writing(self._store) as writer, writer.transaction() as db:
            db.execute("DELETE FROM segments WHERE space = ?", (space.id,))
            db.execute("DELETE FROM spaces WHERE id = ?", (space.id,))

    def _named(self, name: str) -> Space | None:
        return next((space for space in self.all() if space.model == name), None)

    def _make(self, writer: Writer, encoder: Encoder) -> Space:
        return writer.add_space(
            model=encoder.model_id, fingerprint=fingerprint_of(encoder), dim=operator.index(encoder.dim)
        )

    def _load(self) -> Encoder:
        space = self.in_use()
        try:
            encoder = self._load_anew(self.model if self._wanted is None else self._wanted)
        except ModelError as error:
            if self._wanted is not None or space is None:
                raise
            hint = "an encoder of your own must be given again: Collection(path, model=encoder)"
            raise ModelError(f"{self._store.path} was made with {space.model!r}: {error} ({hint})") from error
        if space:
            self._check(space, encoder)
        return encoder

    def _load_anew(self, model: AnyModel) -> Encoder:
        return load_encoder(model, device=self._device, precision=self._precision)

    def _refuse_another_model(self) -> None:
        """Refuse at once where the name tells, and not only when the model is loaded."""
        space = self.in_use()
        if self._wanted is None or space is None or resolve(self._wanted) in _names(space):
            return
        # A directory that was moved, and an object under another name, may still be the same weights.
        named = isinstance(self._wanted, str) and not resolve(self._wanted).startswith("local-dir:")
        if named or fingerprint_of(self._load_anew(self._wanted)) not in ("", space.fingerprint):
            raise self._mismatch(space, resolve(self._wanted))

    def _check(self, space: Space, encoder: Encoder) -> None:
        theirs = space.fingerprint if space.foreign else fingerprint_of(encoder)
        if (theirs, encoder.dim) != (space.fingerprint, space.dim):
            found = f"{encoder.model_id} ({encoder.dim} dimensions, weights {theirs[:12]})"
            raise self._mismatch(space, found)

    def _mismatch(self, space: Space, found: str) -> ModelMismatchError:
        made_with = _described(space.model, space.dim, space.fingerprint)
        return ModelMismatchError(
            f"{self._store.path} has vectors of {made_with}, "
            f"which cannot be compared with those of {found!r}; "
            "leave the model out to use the collection's own, "
            "or fill a second space with add_model (clipsearch index --upgrade)"
        )


def _described(model: str, dim: int, fingerprint: str) -> str:
    return f"{model!r} ({dim} dimensions, weights {fingerprint[:12] or 'unknown'})"


def _names(space: Space) -> tuple[str, str]:
    """What the model of a space is called; that of foreign vectors also without their prefix."""
    return space.model, space.model.removeprefix(FOREIGN)
