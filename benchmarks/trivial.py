"""How far size and grey values alone come on real lesions: `python -m benchmarks.trivial [FOLDER]`, half a minute.

FOLDER (default ../shared/lesions) holds lesions.csv and the images that it names, the cropped images of CBIS-DDSM.
Prints accuracy and macro AUC of the four classes on the official test lesions: of the trivial classifiers as the
stage fits them, validation being drawn by patient from the training lesions, and of two plain models that are fitted on
all training lesions without any choice.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit

from miram import params
from miram.data import tasks
from miram.train.classifiers import Split, validation_scores
from miram.train.probe import fit_of
from miram.train.trivial import READS, choose, features

CLASSES = ("benign_mass", "malignant_mass", "benign_calc", "malignant_calc")
PLAIN = {
    "plain logistic regression": LogisticRegression(max_iter=2000),
    "150 rounds of boosted trees": HistGradientBoostingClassifier(max_iter=150, early_stopping=False, random_state=0),
}


def measured(folder: Path) -> pd.DataFrame:
    """A row per features and model."""
    chosen = params.load(Path("params.yaml"), "paper")
    trivial = params.trivial_of(chosen, chosen.finetune.tasks[0])
    lesions = pd.read_csv(folder / "lesions.csv", dtype=str)
    crops = [np.asarray(Image.open(folder / name).convert("L")) for name in lesions["image"]]
    every = Split(
        lesions, np.stack([features(crop, trivial.bins) for crop in crops]), tasks.targets(lesions["class4"], CLASSES)
    )
    training, test = (_part(every, lesions["split"] == name) for name in ("train", "test"))
    splitter = GroupShuffleSplit(1, test_size=chosen.splits.validation_fraction, random_state=chosen.splits.seed)
    parts = next(splitter.split(training.views, groups=training.lesions["patient"]))
    fitted_on, validation = (_part(training, np.isin(np.arange(len(training.views)), own)) for own in parts)
    rows = []
    for method, read in READS.items():
        found = choose(fitted_on, validation, read, trivial)
        answers = {f"chosen: {found.candidate}": found.answer}
        scale = training.views[:, read].mean(0), training.views[:, read].std(0)
        for name, model in PLAIN.items():
            answer = fit_of(model, multi_label=False)((training.views[:, read] - scale[0]) / scale[1], training.targets)
            answers[name] = lambda x, answer=answer, scale=scale: answer((x - scale[0]) / scale[1])
        for name, answer in answers.items():
            scores = validation_scores(
                test.targets, answer(test.views[:, read]), multi_label=False, threshold=trivial.threshold
            )
            values = {"accuracy, %": 100 * scores["val_accuracy"], "macro AUC": scores["val_macro_auc"]}
            rows.append({"features": method, "model": name, **values})
    return pd.DataFrame(rows)


def _part(split: Split, chosen: np.ndarray | pd.Series) -> Split:
    rows = np.flatnonzero(chosen)
    return Split(split.lesions.iloc[rows], split.views[rows], split.targets[rows])


if __name__ == "__main__":
    print(measured(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/lesions")).round(3).to_string(index=False))
