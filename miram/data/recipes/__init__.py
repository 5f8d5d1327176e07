"""Public data sets as they come, turned into a table for the source `images`: one small module a data set.

Each module has a function `findings(folder)` that yields a `Finding` for each lesion, or the reason why there is none.
"""

DATA_SETS = ("mini-mias", "inbreast", "vindr-mammo", "cmmd")  # each in the module of its name
TASKS = ("pathology", "pathology_4class")  # whose words the labels can be
