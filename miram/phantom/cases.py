"""The patients and lesions of the phantom archive, with the class shares and the defects of the real one."""

from typing import NamedTuple

import numpy as np

TEST_SHARE = 0.3  # of the patients
SECOND_LESION_SHARE = 0.35  # of the patients
CLASS_SHARES = {  # of the lesions of the real test set
    ("mass", "BENIGN"): 231,
    ("mass", "MALIGNANT"): 147,
    ("calcification", "BENIGN"): 197,
    ("calcification", "MALIGNANT"): 129,
}
KINDS = {"mass": "mass", "calcification": "calc"}
PARTS = {"train": "Training", "test": "Test"}
# Planted defects of CBIS-DDSM, by the position of a lesion among those of its kind and part
Defect = dict[tuple[str, str], tuple[int, ...]]  # (kind, part) -> the places of the cases that have it
TWO_SERIES: Defect = {("mass", "train"): (1, 7, 13), ("mass", "test"): (2,), ("calcification", "train"): (4,)}
SWAPPED: Defect = {("calcification", "train"): (9,)}
SMALL_MASK: Defect = {("mass", "train"): (3, 10, 17), ("mass", "test"): (5,)}
OTHER_ASPECT: Defect = {("calcification", "test"): (1,)}
EMPTY_MASK: Defect = {("mass", "train"): (20,)}
TWO_PARTS: Defect = {("calcification", "train"): (2, 12)}
NO_PREFIX: Defect = {("calcification", "test"): (3, 4)}
SHARED_PATIENTS = 3  # in the training set of masses and the test set of calcifications, with the same films


class Group(NamedTuple):
    """The lesions of a patient in one case list; each is on both views."""

    abnormality: str
    part: str
    pathologies: tuple[str, ...]


class Patient(NamedTuple):
    """A patient; the shared ones are in two case lists, with the same films."""

    number: int
    side: str
    groups: tuple[Group, ...]


class Case(NamedTuple):
    """One row of a case list; `place` counts the rows of its kind and part."""

    patient: Patient
    group: Group
    view: str
    abnormality_id: int
    pathology: str
    place: int

    @property
    def film_name(self) -> str:
        """As the PatientID of the real film: Mass-Training_P_00001_LEFT_CC."""
        prefix = f"{KINDS[self.group.abnormality].capitalize()}-{PARTS[self.group.part]}"
        return f"{prefix}_{self.patient_id}_{self.patient.side}_{self.view}"

    @property
    def patient_id(self) -> str:
        """As in the case lists: P_00001."""
        return f"P_{self.patient.number:05d}"

    def has(self, defect: Defect) -> bool:
        """Whether a defect is planted in this case."""
        return self.place in defect.get((self.group.abnormality, self.group.part), ())


def draw_patients(patients: int, random: np.random.Generator) -> list[Patient]:
    """Patients with classes in the shares of CLASS_SHARES in both parts; the first of the masses are shared."""
    numbers = np.cumsum(random.integers(1, 30, patients)).tolist()
    groups: dict[str, list[Group]] = {part: [] for part in PARTS}
    for part, count in (
        ("train", patients - round(TEST_SHARE * patients)),
        ("test", round(TEST_SHARE * patients) + SHARED_PATIENTS),
    ):
        for abnormality, pathology in _shared_out(count, random):
            pathologies = [pathology]
            if random.random() < SECOND_LESION_SHARE:
                pathologies.append(pathology if random.random() < 0.9 else str(random.choice(["BENIGN", "MALIGNANT"])))
            groups[part].append(Group(abnormality, part, tuple(pathologies)))
    shared = iter([group for group in groups["test"] if group.abnormality == "calcification"][:SHARED_PATIENTS])
    mass_train = [group for group in groups["train"] if group.abnormality == "mass"]
    members: list[tuple[Group, ...]] = [(group, next(shared)) for group in mass_train[:SHARED_PATIENTS]]
    taken = [group for pair in members for group in pair]
    members += [(group,) for part in PARTS for group in groups[part] if not any(group is other for other in taken)]
    return [
        Patient(number, str(random.choice(["LEFT", "RIGHT"])), own)
        for number, own in zip(numbers, members, strict=False)
    ]


def _shared_out(count: int, random: np.random.Generator) -> list[tuple[str, str]]:
    """This many (abnormality, pathology) in the shares of CLASS_SHARES, shuffled."""
    bounds = np.round(np.cumsum(list(CLASS_SHARES.values())) / sum(CLASS_SHARES.values()) * count)
    drawn = np.searchsorted(bounds, np.arange(count), side="right")
    return [list(CLASS_SHARES)[index] for index in random.permutation(drawn)]
