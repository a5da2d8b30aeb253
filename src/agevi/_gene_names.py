"""Ensembl ids and symbols of the same genes, and where the genes of one data set are among those of another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from agevi import _checks, _symbols

IDS, SYMBOLS = "gene_ids", "gene_symbols"
KINDS = {IDS: "Ensembl ids", SYMBOLS: "symbols"}
"""Other names of genes that are kept, as columns of a table by gene, and how a message calls them."""
CUSTOMARY = {
    IDS: (
        "gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensembl_gene_id", "ensembl_gene_ids", "ensembl", "ensg",
        "feature_id", "feature_ids", "id", "ids", "accession",
    ),
    SYMBOLS: (
        "gene_symbols", "gene_symbol", "symbol", "symbols", "gene_name", "gene_names", "feature_name", "feature_names",
        "external_gene_name", "gene_short_name", "hgnc_symbol", "mgi_symbol", "genesymbol", "gene", "genes",
    ),
}  # fmt: skip
"""Columns of ``adata.var`` as aligners, portals and scanpy call them, in lower case, first ones first."""
_VERSION = re.compile(r"^(ENS[A-Z]*G\d{6,})\.\d+(_PAR_Y)?$")  # genes of the Y chromosome's PAR stay apart
_PREFIX = r"^(ENS[A-Z]*G|FBgn|WBGene)\d{6,}"
_OF_OTHERS = re.compile(r"ortho|homolog|human|mouse", re.IGNORECASE)  # in names of columns
_SPECIES = {
    "ENSG": "human", "ENSMUSG": "mouse", "ENSRNOG": "rat", "ENSMMUG": "macaque", "ENSDARG": "zebrafish",
    "ENSSSCG": "pig", "ENSNFUG": "killifish", "FBgn": "fruit fly", "WBGene": "worm",
}  # fmt: skip
_SPELLING = {"ENSG": "upper", "ENSMUSG": "title", "ENSRNOG": "title"}  # of symbols: GAPDH and Gapdh
_SAID = {"upper": "spelled as human symbols", "title": "spelled as mouse symbols"}
_SAMPLE = 2000  # names that are looked at to tell their kind
_DISTINCT = 0.5  # share of names that differ; fewer are those of genes near peaks or of transcripts
LONGEST = 200  # characters of a name


@dataclass(frozen=True)
class Naming:
    """One name of every gene, "" where it has none; Ensembl ids without version."""

    kind: str  # of KINDS
    values: pd.Index
    where: str  # how a message calls it; "" for the names of a clock's genes


@dataclass(frozen=True)
class Located:
    """Where genes are among the columns of data."""

    columns: np.ndarray  # (n_genes,) position, -1 where absent
    how: str = ""  # by which names, as a message says it; "" where they were found under their own
    left_out: tuple[str, ...] = ()  # genes whose name there stands for several genes, or for one with another id

    @property
    def n(self) -> int:
        """Genes that were found."""
        return int((self.columns >= 0).sum())


def locate(genes: Iterable[str], known: pd.DataFrame | None, var: pd.DataFrame, *, enough: float) -> Located:
    """Find genes among the rows of ``var``, by their own names where a share ``enough`` is found, else by the best.

    ``known`` holds other names of the genes in columns of ``KINDS``.
    """
    index = pd.Index(genes)
    best = Located(var.index.get_indexer(index))
    if best.n and best.n >= enough * len(index):
        return best
    wanted, there = namings(index, known), namings_of(var)
    for one, other in pairs(wanted, there):
        found = _same(one, other, _ids(wanted), _ids(there))
        if found.n > best.n:
            best = found
    return best


def pairs(wanted: Sequence[Naming], there: Sequence[Naming]) -> Iterator[tuple[Naming, Naming]]:
    """Namings of one kind that may be compared; symbols of two species are not, whatever they are called."""
    apart = apart_because(wanted, there)
    for one in wanted:
        for other in there:
            if one.kind == other.kind and not (one.kind == SYMBOLS and apart):
                yield one, other


def namings(genes: pd.Index, known: pd.DataFrame | None) -> list[Naming]:
    """Names of a clock's genes, and the others that it keeps."""
    out = [_own(genes, "")]
    known = pd.DataFrame() if known is None else known
    for kind in [k for k in KINDS if k in known]:
        out.append(Naming(kind, _texts(known[kind]), f"its {KINDS[kind]}"))
    return out


def namings_of(var: pd.DataFrame) -> list[Naming]:
    """Names of the genes of data: ``var_names``, Ensembl ids and symbols."""
    own = _own(var.index, "adata.var_names")
    return [own, *(Naming(k, _texts(var[c]), f"adata.var[{c!r}]") for k, c in columns_of(var).items())]


def columns_of(var: pd.DataFrame) -> dict[str, str]:
    """Columns of ``var`` that surely hold Ensembl ids, or symbols, of its genes, by kind."""
    own = [_own(_thinned(var.index), "")]
    text = [c for c in var if isinstance(c, str) and not pd.api.types.is_numeric_dtype(var[c])]
    if not text or own[0].values.str.match(_symbols.CPG).mean() > 0.5:  # names of genes near sites are not theirs
        return {}
    usual = {}
    for kind, names in CUSTOMARY.items():
        usual[kind] = sorted((c for c in text if c.lower() in names), key=lambda c: names.index(c.lower()))
    out = {}
    ids = [c for c in usual[IDS] if _fits(IDS, var[c], own)]
    if not ids and own[0].kind != IDS:
        ids = [c for c in text if not _OF_OTHERS.search(c) and _fits(IDS, var[c], own)]
        ids = ids if len(ids) == 1 else []
    if ids:
        out[IDS] = ids[0]
        own.append(Naming(IDS, _texts(_thinned(var[ids[0]])), ""))
    symbols = [c for c in usual[SYMBOLS] if _fits(SYMBOLS, var[c], own)]
    return out | ({SYMBOLS: symbols[0]} if symbols else {})


def kept(var: pd.DataFrame) -> pd.DataFrame:
    """Other names of the genes of data that say more than ``var_names``: text, in columns of ``KINDS``."""
    out, columns = pd.DataFrame(index=var.index.copy()), columns_of(var)
    own = _texts(_thinned(var.index))
    for kind, column in columns.items():
        if np.mean(_texts(_thinned(var[column])) == own) < 0.5:
            out[kind] = storable(var[column])
    return out


def storable(column: pd.Series) -> list[str]:
    """Names in a column as a bundle takes them."""
    return [text if len(text) <= LONGEST and text.isprintable() else "" for text in _texts(column)]


def apart_because(wanted: Sequence[Naming], there: Sequence[Naming]) -> str:
    """Why genes are of different species, as the middle of a message; "" where nothing shows it."""
    (one, example), (other, example_there) = _species(wanted), _species(there)
    if not _clash(one, other):
        return ""
    return (
        f"; the clock's genes are {_said(one)} (e.g. {example!r}) and those of the data are {_said(other)} (e.g. "
        f"{example_there!r})"
    )


def why_not(wanted: Sequence[Naming], there: Sequence[Naming], *, least: float) -> tuple[str, str]:
    """Why genes are not found, as a word ("" if unknown) and as the middle of a message."""
    if said := apart_because(wanted, there):
        return "species", said
    for one, other in pairs(wanted, there):
        if one.kind == SYMBOLS:
            word, said = _symbols.mismatch(one.values, other.values, "the clock uses", "the data use", least=least)
            if word == "case":
                return word, said
    return _symbols.mismatch(wanted[0].values, there[0].values, "the clock uses", "the data use", least=least)


def message(found: Located, genes: pd.Index, var: pd.DataFrame, *, whose: str = "The clock") -> str:
    """One line that says by which names genes were found."""
    kinds = [KINDS[_own(_thinned(index), "").kind] for index in (genes, var.index)]
    left = ""
    if found.left_out:
        left = (
            f"; {len(found.left_out):,} are left out, since their name stands for several genes or for one with "
            f"another id (e.g. {_checks.listed(found.left_out, 2)})"
        )
    rest = "" if found.n == len(genes) or whose != "The clock" else "; absent ones enter at their training mean"
    return (
        f"{whose} has {kinds[0]} and adata.var_names holds {kinds[1]}; {found.n:,} of {len(genes):,} genes are matched "
        f"{found.how}{left}{rest}."
    )


def names_of_columns(
    wanted: pd.Index, own: list[Naming], var: pd.DataFrame, given: Naming | None = None
) -> tuple[str, np.ndarray]:
    """By which names most genes are found, as a message says it, and the wanted name of every column or another text.

    ``own`` are the names of the ``wanted`` genes, and ``given`` those of the columns, where the user names them.
    """
    own_names = "adata.var_names" if given is None else given.where
    found, names = f"by {own_names}", as_text(var.index) if given is None else given.values.to_numpy()
    most = int(wanted.isin(names).sum())
    there = namings_of(var)
    for one, other in pairs(own, there) if given is None else [(one, given) for one in own[1:]]:
        usable = np.flatnonzero(~one.values.duplicated(keep=False) & (one.values != ""))
        place = one.values[usable].get_indexer(other.values)
        called = np.where(place >= 0, wanted.to_numpy(dtype=object)[usable[place]], "") if len(usable) else names[:0]
        if (n := len(set(called) - {""})) > most:
            found, names, most = label(one, other), called, n
    return found, names


def as_text(values: pd.Series | pd.Index) -> np.ndarray:
    """Values as text, "" where missing."""
    values = pd.Series(values)
    return values.astype(object).where(values.notna(), "").astype(str).to_numpy(dtype=object)


def label(one: Naming, other: Naming) -> str:
    """By which names genes are found, as a message says it."""
    if not one.where and other.where == "adata.var_names":
        return "by adata.var_names without the versions of Ensembl ids"
    return f"through {' and '.join(place for place in (one.where, other.where) if place)}"


def _same(one: Naming, other: Naming, ids: pd.Index | None, ids_there: pd.Index | None) -> Located:
    """Genes whose names in two namings are equal and stand for one gene in each."""
    wanted, there = one.values, other.values
    several, several_there = _shared(one), _shared(other)
    place = np.flatnonzero(~several_there)
    hit = there[place].get_indexer(wanted)
    columns = np.where((hit >= 0) & ~several, place[hit] if len(place) else -1, -1)
    if one.kind == SYMBOLS and ids is not None and ids_there is not None:
        theirs = ids_there.to_numpy()[np.maximum(columns, 0)]
        columns[(ids != "") & (theirs != "") & (ids != theirs)] = -1
    named = (wanted != "") & wanted.isin(there) & (columns < 0)
    return Located(columns, label(one, other), tuple(wanted[named]))


def _shared(naming: Naming) -> np.ndarray:
    """Genes without a name of their own, (n_genes,): with none, or with one that other genes have too."""
    values = naming.values
    out: np.ndarray = values.duplicated(keep=False) | np.asarray(values == "")
    if naming.kind == SYMBOLS:  # the first of several that were made unique, as scanpy does: TBCE, TBCE-1
        out |= np.asarray((values + "-1").isin(values))
    return out


def _ids(several: Sequence[Naming]) -> pd.Index | None:
    return next((naming.values for naming in several if naming.kind == IDS), None)


def _own(index: pd.Index, where: str) -> Naming:
    """Names as they are, as a naming."""
    values = _texts(index)
    return Naming(IDS if _share_of_ids(values) >= 0.5 else SYMBOLS, values, where)


def _texts(values: pd.Series | pd.Index) -> pd.Index:
    """Values as text, without the versions of Ensembl ids, "" where missing."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        found = pd.Categorical(values)
        return pd.Index(np.append(_texts(found.categories).to_numpy(dtype=object), "")[found.codes], dtype=object)
    gone = pd.isna(values)
    text = ["" if no else _plain(str(value)) for value, no in zip(values, gone, strict=True)]
    return pd.Index(text, dtype=object)


def _plain(text: str) -> str:
    """A name without blanks around it and without its version, if it is an Ensembl id."""
    text = text.strip()
    if text.startswith("ENS") and "." in text:
        return _VERSION.sub(r"\1\2", text)
    return "" if text in _symbols.MISSING else text


def _thinned(values: Any) -> Any:
    """Some of the names, evenly from all."""
    return values[:: max(1, len(values) // _SAMPLE)]


def _sample(values: pd.Index) -> pd.Series:
    """Some of the names, evenly from all that are there."""
    return pd.Series(_thinned(values[values != ""]), dtype=object)


def _share_of_ids(values: pd.Index) -> float:
    sample = _sample(values)
    return float(sample.str.match(_PREFIX).mean()) if len(sample) else 0.0


def _fits(kind: str, column: pd.Series, own: Sequence[Naming]) -> bool:
    """Whether a column holds names of this kind, mostly different ones, of the species of the other names."""
    values = _texts(_thinned(column))
    share = _share_of_ids(values)
    if not np.any(values != "") or (share < 0.9 if kind == IDS else share >= 0.5):
        return False
    if any(apart_because([naming], [Naming(kind, values, "")]) for naming in own):
        return False
    every = _texts(column)  # as text, since cells of a table may be lists
    there = every[every != ""]
    return bool(there.nunique() >= _DISTINCT * len(there))


def _species(several: Sequence[Naming]) -> tuple[str, str]:
    """Prefix of the Ensembl ids, or without them how symbols are spelled, and an example; "" where neither tells."""
    for naming in several:
        sample = _sample(naming.values)
        if naming.kind == IDS:
            prefix = sample.str.extract(_PREFIX, expand=False).value_counts(normalize=True)
            if len(prefix) and prefix.iloc[0] > 0.8:
                return str(prefix.index[0]), str(sample[sample.str.startswith(str(prefix.index[0]))].iloc[0])
    for naming in several:
        sample = _sample(naming.values)
        if naming.kind == SYMBOLS and len(sample) and sample.str.extract(r"^([A-Za-z]+)", expand=False).nunique() >= 3:
            title, upper = sample.str.match(r"^[A-Z][a-z]"), sample.str.match(r"^[A-Z][^a-z]*$")
            if title.mean() >= 0.5:
                return "title", str(sample[title].iloc[0])
            if upper.mean() >= 0.8:
                return "upper", str(sample[upper].iloc[0])
    return "", ""


def _clash(one: str, other: str) -> bool:
    """Whether two prefixes of ids, spellings of symbols, or one of each are of different species."""
    if not one or not other or one == other:
        return False
    if (one in _SAID) == (other in _SAID):
        return True
    prefix, spelling = (other, one) if one in _SAID else (one, other)
    return _SPELLING.get(prefix, spelling) != spelling


def _said(sort: str) -> str:
    return _SAID.get(sort, _SPECIES.get(sort, f"those of {sort}..."))
