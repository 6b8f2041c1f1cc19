"""The studies that ``fastnt study`` knows by name."""

from fastnt.experiments.beside_paper import baselines, lengths, readings, schedule
from fastnt.experiments.grid import Make
from fastnt.experiments.paper import (
    TABLE_1,
    TABLE_2,
    TABLE_3,
    figure2,
    random_sigma,
    sigma_table,
    table4,
    table5,
    table6,
    teachers,
)

STUDIES: dict[str, Make] = {
    "table1": sigma_table("table1", "Table 1", 0.15, TABLE_1),
    "table2": sigma_table("table2", "Table 2", 0.15, TABLE_2),
    "table3": sigma_table("table3", "Table 3", 0.5, TABLE_3),
    "table4": table4,
    "table5": table5,
    "table6": table6("table6"),
    "figure2": figure2,
    "figure3": table6("figure3"),
    "random-sigma": random_sigma,
    "teachers": teachers,
    "readings": readings,
    "baselines": baselines,
    "schedule": schedule,
    "lengths": lengths,
}
# The data set of the paper's experiments; its other studies are of any.
PAPER_DATA = {"table1": "mnist", "table2": "svhn"} | dict.fromkeys(
    ("table3", "table4", "table5", "table6", "figure2", "figure3", "random-sigma", "teachers"),
    "cifar10",
)
