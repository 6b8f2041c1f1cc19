"""What differences between networks mean: intervals, tests and verdicts, on numpy arrays alone.

Errors are fractions. A difference is setting minus baseline: below 0 the setting is better.
"""

from fastnt.statistics.counts import Interval, mcnemar, mcnemar_counts, wilson
from fastnt.statistics.families import BestOfK, best_of_k, holm
from fastnt.statistics.paired import Paired, paired_t, smallest_effect, t_quantile, two_way
from fastnt.statistics.verdict import Comparison, Verdict, compare, verdict

__all__ = [
    "BestOfK",
    "Comparison",
    "Interval",
    "Paired",
    "Verdict",
    "best_of_k",
    "compare",
    "holm",
    "mcnemar",
    "mcnemar_counts",
    "paired_t",
    "smallest_effect",
    "t_quantile",
    "two_way",
    "verdict",
    "wilson",
]
