"""The steps of a study in their order, each of public calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anndata import AnnData

from agevi import _keys
from agevi.tl.full_study._calls import ADATA, CLOCK, Call, Column, Log
from agevi.tl.full_study._plan import Plan
from agevi.tl.full_study._verdict import Verdict, judged
from agevi.tl.sets._gene_sets import REACTOME, reactome_at_hand

STEPS = (
    "audit", "who trains", "predictions", "accuracy", "intervals", "comparison", "types", "acceleration", "final clock",
    "genes", "pathways",
)  # fmt: skip
LEVEL = 0.9
MIN_CALIBRATED = 10
"""Subjects that intervals at :data:`LEVEL` need, so that nine are left when each of ten parts is held out."""
AUDITED, AUDITED_QUICKLY = 50_000, 10_000
"""Cells that the audit reads at most; its time grows with their square."""
NULLS = {"n_null_linear": 5, "n_null_network": 0}
MIN_GENES = 50
"""Genes below which pathways are not asked for."""


class Run:
    """A study under way on ``adata``; ``out`` is where what was computed is kept, None for nowhere."""

    def __init__(self, adata: AnnData, plan: Plan, out: Path | None) -> None:
        self.adata, self.plan, self.out = adata, plan, out
        self.log = Log(len(STEPS), adata=adata)
        given = plan.given
        self.keys = given.keys
        self.data = given.units | given.matrix
        self.fold_arguments = self.data | {"n_folds": plan.n_folds} | plan.train_on | {"rng": plan.seed}
        self.recipe = {
            name: value
            for name, value in (("setup_kwargs", plan.setup_kwargs), ("model_kwargs", plan.model_kwargs))
            if value
        }

    def all(self) -> Verdict:
        """Make every step."""
        self._audit()
        found = self.plan.comparison
        column = Column(self.plan.role_key)
        if found.trains_reference:
            column = Column(column.name, str(self.plan.given.condition_key), found.reference_values)
        self.log.do("who trains", column)
        self._predictions()
        verdict = judged(self.adata, self.plan.given.key_added)
        self._intervals()
        self._comparison()
        self._types()
        self._acceleration()
        self._final_clock()
        self._genes(verdict)
        return verdict

    def trained(self) -> Verdict:
        """Make the steps to a clock that reports how well it predicts."""
        self.log.do("who trains", Column(self.plan.role_key))
        self._predictions()
        self._intervals()
        self._final_clock()
        return judged(self.adata, self.plan.given.key_added)

    def _checkpoint(self, name: str) -> dict[str, str]:
        return {} if self.out is None else {"checkpoint_dir": str(self.out / ".checkpoint" / name)}

    def _audit(self) -> None:
        adata, given = self.adata, self.plan.given
        most = AUDITED_QUICKLY if given.quick else AUDITED
        step = -(-adata.n_obs // most)
        call = Call("agevi.pp.audit_leakage", (ADATA.every(step),), self.data | {"rng": self.plan.seed}, "audit")
        if _keys.SUMS in adata.uns:
            self.log.leave_out("audit", "rows are sums of cells; audit the cells before they are summed", call)
        else:
            self.log.do("audit", call)

    def _predictions(self) -> None:
        kwargs = self.fold_arguments | self.recipe | self._checkpoint("folds") | self.keys
        self.log.do("predictions", Call("agevi.tl.cross_validate", (ADATA, self.plan.clock), kwargs))
        given, groupby = self.plan.given, []
        if self.plan.typed:
            groupby.append(given.cell_type_key)
        if given.condition_key is not None:
            groupby.append(given.condition_key)
        self.log.do(
            "accuracy",
            Call("agevi.tl.aggregate_subjects", (ADATA,), self.keys),
            Call("agevi.tl.evaluate_by", (ADATA,), ({"groupby": groupby} if groupby else {}) | self.keys),
            Call("agevi.get.metrics_by_df", (ADATA,), self.keys, "accuracy"),
        )

    def _intervals(self) -> None:
        calls = [Call("agevi.tl.calibrate", (ADATA,), self.keys)]
        calls.append(Call("agevi.get.calibration_df", (ADATA,), self.keys, "calibration"))
        n = self.plan.n_subjects
        if n < MIN_CALIBRATED:
            why = f"intervals at {LEVEL:.0%} need {MIN_CALIBRATED} held-out subjects with an age, and there are {n}"
            self.log.leave_out("intervals", why, *calls)
        else:
            self.log.do("intervals", *calls)

    def _comparison(self) -> None:
        models: Any = ["PLSClock"]
        if self.plan.typed:
            models = {"PLSClock": "PLSClock", self.plan.clock: (self.plan.clock, self.recipe)}
        unit = {"setup_kwargs": self.plan.given.unit} if self.plan.given.unit else {}
        kwargs = self.fold_arguments | unit | NULLS | self._checkpoint("comparison") | self.keys
        calls = [Call("agevi.tl.compare_models", (ADATA, models), kwargs)]
        calls.append(Call("agevi.get.leaderboard_df", (ADATA,), self.keys, "leaderboard"))
        if self.plan.given.quick:
            self.log.leave_out(
                "comparison", "not in a quick study; the error of the median age is in the accuracy", *calls
            )
        else:
            self.log.do("comparison", *calls)

    def _types(self) -> None:
        calls = [Call("agevi.tl.explain_age", (ADATA,), self.keys)]
        calls.append(Call("agevi.get.explanation_df", (ADATA,), self.keys, "types"))
        if self.plan.typed:
            self.log.do("types", *calls)
        else:
            self.log.leave_out("types", self.plan.no_types, *calls)

    def _acceleration(self) -> None:
        given, found = self.plan.given, self.plan.comparison
        kwargs: dict[str, Any] = {"groupby": given.condition_key, "reference": found.reference}
        kwargs |= {"covariates": list(given.covariates)} if given.covariates else {}
        kwargs |= {"by": given.cell_type_key} if self.plan.typed else {}
        kwargs |= {"paired": True} if found.paired else {}
        kwargs |= {"n_permutations": 200} if given.quick else {}
        calls = [Call("agevi.tl.age_acceleration", (ADATA,), kwargs | {"rng": self.plan.seed} | self.keys)]
        calls.append(Call("agevi.get.acceleration_df", (ADATA,), self.keys, "acceleration"))
        samples = {"table": "samples"} | self.keys
        calls.append(Call("agevi.get.acceleration_df", (ADATA,), samples, "acceleration_samples"))
        if found.left_out:
            self.log.leave_out("acceleration", found.left_out, *(calls if given.condition_key is not None else ()))
        else:
            self.log.do("acceleration", *calls)

    def _final_clock(self) -> None:
        plan, name = self.plan, f"agevi.model.{self.plan.clock}"
        symbols = {} if plan.gene_symbols is None else {"gene_symbols": plan.gene_symbols}
        calls = [
            Call(f"{name}.setup_anndata", (ADATA,), self.data | plan.setup_kwargs),
            Call(name, (ADATA,), plan.model_kwargs, CLOCK.text),
            Call("clock.train", (), {"split_key": plan.role_key}),
        ]
        if "calibration" in self.log.variables:
            calls.append(Call("clock.set_calibration", (ADATA,), self.keys))
        calls.append(Call("clock.set_evaluation", (ADATA,), symbols | self.keys))
        path = None if self.out is None else self.out / "clock"
        if path is not None:
            calls.append(Call("clock.save", (str(path),)))
        if path is not None and path.exists():  # of this very study, which was killed later
            known = Call("agevi.io.load_clock", (str(path),), {}, CLOCK.text)
            self.log.do_instead("final clock", known, *calls)
        else:
            self.log.do("final clock", *calls)

    def _genes(self, verdict: Verdict) -> None:
        given = self.plan.given
        kwargs = ({"n_boot": 50} if given.quick else {}) | {"rng": self.plan.seed} | self.keys
        genes = [Call("agevi.tl.attribute_genes", (ADATA, CLOCK), kwargs)]
        symbols = {} if self.plan.gene_symbols is None else {"gene_symbols": self.plan.gene_symbols}
        genes.append(Call("agevi.get.attribution_df", (ADATA,), {"group": None} | symbols | self.keys, "genes"))
        n_genes = self.adata.n_vars
        sets = Call("agevi.tl.enrich", (ADATA, REACTOME), {"n_top": min(100, n_genes // 10)} | symbols | self.keys)
        pathways = [sets, Call("agevi.get.enrichment_df", (ADATA,), self.keys, "pathways")]
        why = ""
        if given.obsm_key is not None:
            why = f"the dimensions of adata.obsm[{given.obsm_key!r}] are not genes; see agevi.pp.from_obsm"
        elif not verdict.beats_median:
            why = "the clock is not shown to beat the median age, and genes of such a clock are noise"
        if why:
            self.log.leave_out("genes", why, *genes)
            self.log.leave_out("pathways", why, *pathways)
            return
        self.log.do("genes", *genes)
        if n_genes < MIN_GENES:
            self.log.leave_out("pathways", f"{n_genes} genes are too few for pathways", *pathways)
        elif not reactome_at_hand():
            why = f"Reactome is not on this machine, and nothing is downloaded unasked; {sets} downloads it once"
            self.log.leave_out("pathways", why, *pathways)
        else:
            self.log.attempt("pathways", *pathways)
