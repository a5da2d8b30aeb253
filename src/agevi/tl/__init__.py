"""Tools: run a clock and write what it says to AnnData."""

from __future__ import annotations

from agevi.tl.acceleration import age_acceleration, normative_scores
from agevi.tl.curves._learning_curve import learning_curve
from agevi.tl.disease._compare_transfer import compare_transfer
from agevi.tl.genes._age_programs import age_programs
from agevi.tl.genes._attribute_genes import attribute_genes
from agevi.tl.genes._perturb_genes import perturb_genes
from agevi.tl.intervals._calibrate import calibrate
from agevi.tl.intervals._recalibrate import recalibrate
from agevi.tl.intervals._subject_posterior import subject_posterior
from agevi.tl.neuron_clock._neuron_clock_study import neuron_clock_study
from agevi.tl.predict._aggregate_subjects import aggregate_subjects
from agevi.tl.predict._cell_age_signal import cell_age_signal
from agevi.tl.predict._check_transport import check_transport
from agevi.tl.predict._evaluate_by import evaluate_by
from agevi.tl.predict._explain_age import explain_age
from agevi.tl.predict._predict_age import predict_age
from agevi.tl.sets._enrich import enrich
from agevi.tl.sets._rank_targets import TargetRanking, rank_targets
from agevi.tl.trends._age_correlation import age_correlation
from agevi.tl.trends._trend_test import trend_test
from agevi.tl.tuning._tune import tune
from agevi.tl.validate._compare_models import compare_models
from agevi.tl.validate._cross_validate import cross_validate

__all__ = [
    "TargetRanking",
    "age_acceleration",
    "age_correlation",
    "age_programs",
    "aggregate_subjects",
    "attribute_genes",
    "calibrate",
    "cell_age_signal",
    "check_transport",
    "compare_models",
    "compare_transfer",
    "cross_validate",
    "enrich",
    "evaluate_by",
    "explain_age",
    "learning_curve",
    "neuron_clock_study",
    "normative_scores",
    "perturb_genes",
    "predict_age",
    "rank_targets",
    "recalibrate",
    "subject_posterior",
    "trend_test",
    "tune",
]


def __dir__() -> list[str]:
    """Public names alone, for tab completion."""
    return sorted(__all__)
