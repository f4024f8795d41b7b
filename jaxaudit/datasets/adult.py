"""UCI Adult: who earned more than 50,000 dollars a year, from 14 attributes of the 1994 US census.

Reference:
  Becker & Kohavi (1996), "Adult", UCI Machine Learning Repository, https://doi.org/10.24432/C5XW20; the attributes
  and their values are those of its file adult.names.
"""

import numpy as np

NUMBERS = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")

# The whole vocabulary, whatever rows are read, so that a feature always means the same. "?" stands for an unknown
# value, and occurs in these three attributes only.
_WORDS = {
    "workclass": "Private Self-emp-not-inc Self-emp-inc Federal-gov Local-gov State-gov Without-pay Never-worked ?",
    "education": (
        "Bachelors Some-college 11th HS-grad Prof-school Assoc-acdm Assoc-voc 9th 7th-8th 12th Masters 1st-4th 10th "
        "Doctorate 5th-6th Preschool"
    ),
    "marital-status": (
        "Married-civ-spouse Divorced Never-married Separated Widowed Married-spouse-absent Married-AF-spouse"
    ),
    "occupation": (
        "Tech-support Craft-repair Other-service Sales Exec-managerial Prof-specialty Handlers-cleaners "
        "Machine-op-inspct Adm-clerical Farming-fishing Transport-moving Priv-house-serv Protective-serv "
        "Armed-Forces ?"
    ),
    "relationship": "Wife Own-child Husband Not-in-family Other-relative Unmarried",
    "race": "White Asian-Pac-Islander Amer-Indian-Eskimo Other Black",
    "sex": "Female Male",
    "native-country": (
        "United-States Cambodia England Puerto-Rico Canada Germany Outlying-US(Guam-USVI-etc) India Japan Greece "
        "South China Cuba Iran Honduras Philippines Italy Poland Jamaica Vietnam Mexico Portugal Ireland France "
        "Dominican-Republic Laos Ecuador Taiwan Haiti Columbia Hungary Guatemala Nicaragua Scotland Thailand "
        "Yugoslavia El-Salvador Trinadad&Tobago Peru Hong Holand-Netherlands ?"
    ),
}
VALUES = {column: tuple(words.split()) for column, words in _WORDS.items()}
LABELS = ("<=50K", ">50K")
COLUMNS = (  # in the order of the file
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship"),
    *("race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country"),
)
FEATURES = (*NUMBERS, *(f"{column}={value}" for column, values in VALUES.items() for value in values))


def parse(content: bytes) -> dict[str, np.ndarray]:
    """Columns of adult.data or adult.test.

    Args:
      content: of the file. Lines are 14 attributes and the label, parted by commas; empty lines and the first line
        of adult.test, which begins with "|", are passed over, and so is the full stop after its labels.

    Returns:
      the 14 columns and "label", by name: numbers i32[records], values u8[records] as positions in `VALUES`, labels
      u8[records] as positions in `LABELS`.

    Raises:
      ValueError: naming the first line that is not like that.
    """
    codes = {column: {value: code for code, value in enumerate(values)} for column, values in VALUES.items()}
    codes["label"] = {label + stop: code for code, label in enumerate(LABELS) for stop in ("", ".")}
    names = (*COLUMNS, "label")
    rows, lines = [], []
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), 1):
        if line.strip() and not line.startswith("|"):
            rows.append([field.strip() for field in line.split(",")])
            lines.append(number)
            if len(rows[-1]) != len(names):
                raise ValueError(f"line {number} has {len(rows[-1])} fields, expected {len(names)}")
    if not rows:
        raise ValueError("holds no records")
    columns = {}
    for name, fields in zip(names, zip(*rows)):
        decode = codes[name].__getitem__ if name in codes else _number
        try:
            columns[name] = np.array([decode(field) for field in fields], np.uint8 if name in codes else np.int32)
        except (KeyError, ValueError):
            _refuse(name, fields, lines, decode, codes.get(name))
    return columns


def encode(train: dict[str, np.ndarray], test: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Features of both splits.

    Args:
      train: columns from `parse`, of n records.
      test: of m records.

    Returns:
      f32[n, 108] and f32[m, 108], named by `FEATURES`: the six numbers minus the mean, over the standard deviation,
      of the training split (over 1 where a number is constant there), then each attribute's values as 0 or 1.
    """
    numbers = np.stack([train[name] for name in NUMBERS], 1, dtype=np.float64)
    mean, sd = numbers.mean(0), numbers.std(0)
    sd[sd == 0] = 1
    return tuple(_features(split, mean, sd) for split in (train, test))


def _features(split, mean, sd):
    numbers = (np.stack([split[name] for name in NUMBERS], 1, dtype=np.float64) - mean) / sd
    one_hot = [split[name][:, np.newaxis] == np.arange(len(values)) for name, values in VALUES.items()]
    return np.concatenate([numbers, *one_hot], 1, dtype=np.float32)


def _number(field):
    # int() would also take signs, blanks within and other scripts' digits.
    if not (field.isascii() and field.isdigit() and len(field) <= 9):
        raise ValueError
    return int(field)


def _refuse(name, fields, lines, decode, allowed):
    for line, field in zip(lines, fields):
        try:
            decode(field)
        except (KeyError, ValueError):
            expected = f"one of {len(allowed)} known values" if allowed else "a whole number"
            raise ValueError(f"line {line} has {name} {field[:40]!r}, expected {expected}") from None
