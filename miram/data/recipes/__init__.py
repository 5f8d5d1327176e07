"""Public data sets as downloaded, turned into a table for the source `images`: one small module per data set.

Each module has a function `findings(folder)` that yields a `Finding` per lesion, or the reason why there is none.
"""

DATA_SETS = ("mini-mias", "inbreast", "vindr-mammo", "cmmd")  # each in the module of its name
TASKS = ("pathology", "pathology_4class")  # whose words the labels can be
