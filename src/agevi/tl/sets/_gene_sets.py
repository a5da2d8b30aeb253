"""Sets of genes from files, dictionaries and tables, as one table of pairs."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import http.client
import logging
import os
import re
import urllib.request
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from agevi import _checks, _symbols

logger = logging.getLogger(__name__)

REACTOME = "reactome"
REACTOME_VARIABLE = "AGEVI_REACTOME"
# One commit of a public copy: Reactome's own address holds another release every quarter, so that neither a checksum
# nor a result would last. Its 2,504 human pathways are CC0.
REACTOME_URL = "https://raw.githubusercontent.com/markziemann/vpa-senescence/a36fe56e72ca65276969b5ac47889ccb938ddbd0/ReactomePathways.gmt"
REACTOME_SHA256 = "dad43596299f6416b971e913ea736442e498d493e49552fbf3ffc4c407288a74"
_SECONDS = 30
_ACCEPTED = (
    "pass the path of a GMT file, a dictionary of names and genes, a DataFrame with source and target, or 'reactome'"
)


def read_sets(sets: Any) -> tuple[pd.DataFrame, str]:
    """Pairs of set and gene, each once: ``source`` and ``target`` (text) and ``weight`` (float64); and their origin."""
    if isinstance(sets, pd.DataFrame):
        net, origin = _from_frame(sets), "DataFrame"
    elif isinstance(sets, Mapping):
        net, origin = _from_mapping(sets), "dictionary"
    elif isinstance(sets, str | os.PathLike):
        path = reactome_path() if sets == REACTOME else Path(sets)
        net, origin = _from_mapping(read_gmt(path)), REACTOME if sets == REACTOME else str(path)
    else:
        raise TypeError(f"sets is a {type(sets).__name__}; {_ACCEPTED}.")
    if net.empty:
        raise ValueError(f"sets ({origin}) hold no genes; {_ACCEPTED}.")
    return net, origin


def read_gmt(path: Path) -> dict[str, list[str]]:
    """Genes of every set in a GMT file: a line per set with its name, a description and the genes, between tabs."""
    if not path.is_file():
        raise FileNotFoundError(f"sets={str(path)!r} is not a file; {_ACCEPTED}.")
    out: dict[str, list[str]] = {}
    # str.splitlines would also cut at form feeds and other separators that descriptions hold.
    for number, line in enumerate(re.split(r"\r\n|\r|\n", _text_of(path)), start=1):
        if not line.strip():
            continue
        whole = line.count('"') == 2 and line[0] == line[-1] == '"'  # a line that was one cell of a spreadsheet
        name, *rest = map(_unquoted, (line[1:-1] if whole else line).split("\t"))
        if not rest:
            raise ValueError(
                f"{str(path)!r} is not a GMT file: line {number} ({line[:40]!r}) has no tabs; a line holds the name of "
                "a set, a description and the genes, between tabs."
            )
        name = name.strip()
        if name in out:
            raise ValueError(f"{str(path)!r} holds two sets called {name!r} (line {number}); rename or remove one.")
        # Enrichr's libraries write a weight behind the gene: "TP53,1.0".
        out[name] = [gene.split(",")[0] for gene in rest[1:]]
    return out


def _text_of(path: Path) -> str:
    """The text of a file, whatever it is called and however it is encoded."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{str(path)!r} is a damaged gzip file ({error}); copy or download it again.") from error
    marks = (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")
    encodings = [encoding for mark, encoding in marks if content.startswith(mark)]
    if not encodings and b"\0" in content:  # UTF-16 without a mark: every other byte of Latin text is zero
        encodings = ["utf-16-le" if content[1:2] == b"\0" else "utf-16-be"]
    for encoding in encodings or ["utf-8", "cp1252"]:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text and ("\t" in text or not encoding.startswith("utf-16")):
            return text
    raise ValueError(
        f"{str(path)!r} is not text in UTF-8, UTF-16 or the code page of Windows (it starts with {content[:8]!r}); "
        "save it as a GMT file in UTF-8, unpacked or compressed by gzip."
    )


def _unquoted(field: str) -> str:
    """A field without the double quotes that a spreadsheet puts around it."""
    quoted = len(field) > 1 and field[0] == field[-1] == '"'
    return field[1:-1].replace('""', '"') if quoted else field


def _from_mapping(sets: Mapping[Any, Iterable[Any]]) -> pd.DataFrame:
    """Pairs from names and their genes."""
    pairs: list[tuple[str, str]] = []
    for name, genes in sets.items():
        if isinstance(genes, str) or not isinstance(genes, Iterable):
            raise TypeError(
                f"sets[{str(name)!r}] is a {type(genes).__name__}; pass the genes as a list of names, such as ['TP53']."
            )
        pairs += [(str(name), str(gene).strip()) for gene in genes]
    net = pd.DataFrame(pairs, columns=["source", "target"], dtype=object)
    return net[net["target"] != ""].drop_duplicates(ignore_index=True).assign(weight=1.0)


def _from_frame(table: pd.DataFrame) -> pd.DataFrame:
    """Pairs from a table as decoupler takes it."""
    missing = [name for name in ("source", "target") if name not in table]
    if missing:
        raise KeyError(
            f"sets has no column {missing[0]!r}; rename the columns with the set and the gene to 'source' and "
            f"'target'. Available: {_checks.listed(table.columns)}."
        )
    net = table.loc[table["source"].notna() & table["target"].notna()]
    out = pd.DataFrame({name: net[name].astype(str).to_numpy(dtype=object) for name in ("source", "target")})
    weight = pd.to_numeric(net["weight"], errors="coerce").to_numpy(np.float64) if "weight" in net else 1.0
    out["weight"] = weight
    if not np.isfinite(out["weight"]).all():
        raise ValueError("sets has weights that are not numeric; correct them, or drop the column 'weight'.")
    # A weight of 0 means that the gene is not a member.
    return out[out["weight"] != 0].drop_duplicates(["source", "target"], ignore_index=True)


def reactome_path() -> Path:
    """The GMT file of Reactome: the one that ``AGEVI_REACTOME`` names, the one in the cache, or a download to it."""
    named = os.environ.get(REACTOME_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise FileNotFoundError(f"{REACTOME_VARIABLE}={named!r} is not a file; set it to the path of a GMT file.")
        return Path(named)
    path = _cached()
    if path.is_file() and _checksum(path.read_bytes()) == REACTOME_SHA256:
        return path
    advice = (
        f"download it elsewhere and copy it to {str(path)!r}, set {REACTOME_VARIABLE} to the path of any GMT file of "
        "Reactome, or pass sets='<path of a GMT file>'."
    )
    try:
        with urllib.request.urlopen(REACTOME_URL, timeout=_SECONDS) as response:
            content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise FileNotFoundError(
            f"Reactome is not at {str(path)!r} and {REACTOME_URL} cannot be reached ({error}); {advice}"
        ) from None
    found = _checksum(content)
    if found != REACTOME_SHA256:
        raise ValueError(
            f"{REACTOME_URL} gave {len(content):,} bytes with the SHA-256 {found[:12]}..., not "
            f"{REACTOME_SHA256[:12]}..., and nothing was kept; {advice}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)  # at once, so that nobody reads half a file
    logger.info("Reactome was downloaded to %s.", path)
    return path


def reactome_at_hand() -> bool:
    """Whether the GMT file of Reactome is there without a download."""
    return bool(os.environ.get(REACTOME_VARIABLE)) or _cached().is_file()


def _cached() -> Path:
    """Where the file is kept once it was downloaded."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agevi" / "ReactomePathways.gmt"


def _checksum(content: bytes) -> str:
    """SHA-256 as text."""
    return hashlib.sha256(content).hexdigest()


def no_overlap(adata: AnnData, genes: pd.Index, targets: np.ndarray) -> str:
    """The message for sets without any gene of the background, with what may be wrong with the names."""
    wanted = set(targets)
    given = (
        f"none of the {len(wanted):,} genes of the sets (e.g. {_checks.listed(targets, 2)}) is among the "
        f"{len(genes):,} genes of the background (e.g. {_checks.listed(genes, 2)})"
    )
    texts = {str(name): values for name, values in adata.var.items() if not pd.api.types.is_numeric_dtype(values)}
    shared = {name: int(values.astype(str).isin(wanted).sum()) for name, values in texts.items()}
    best = max(shared, key=lambda name: shared[name], default=None)
    why, said = _symbols.mismatch(pd.Index(targets), genes, "the sets use", "the data use")
    if best is not None and shared[best]:
        return f"{given}{said}. Pass gene_symbols={best!r}."
    advice = {
        "modality": "Train the clock on genes, as agevi.pp.aggregate_probes makes them.",
        "kind": "Rename adata.var_names, or run agevi.pp.align_genes before the clock is trained.",
        "version": f"Cut it off both; for the data: adata.var_names = {_symbols.CUT}.",
        "case": "Pass sets of the species of the data.",
        "": "Pass sets with the gene names of adata.var_names.",
    }
    return f"{given}{said}. {advice[why]}"
