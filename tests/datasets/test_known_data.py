"""The data sets are those of the literature, by their counts, moments and first records."""

import subprocess
import sys
import time

import numpy as np
import pytest

from jaxaudit import datasets
from jaxaudit.datasets import adult


def test_mnist_has_its_published_class_counts_and_moments(real):
    data = datasets.load("mnist", real("mnist"))
    assert np.bincount(data.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.inputs.shape == (60_000, 28, 28, 1) and data.test_inputs.shape == (10_000, 28, 28, 1)
    assert data.inputs.dtype == np.float32 and data.labels.dtype == np.int32
    # The mean and deviation by which everybody normalises MNIST.
    assert float(data.inputs.mean(dtype=np.float64)) == pytest.approx(0.1307, abs=5e-5)
    assert float(data.inputs.std(dtype=np.float64)) == pytest.approx(0.3081, abs=5e-5)
    assert data.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.source == "60,000 handwritten digits of 28×28 pixels, and 10,000 to test on (MNIST, official files)"
    assert data.sha256 == "9cb59c161f9465f71d90887a76645c3203a11caa68fbd50a8976a4fd3c777294"


def test_adult_has_the_counts_of_its_description(real):
    data = datasets.load("adult", real("adult"))
    assert np.bincount(data.labels).tolist() == [24_720, 7_841]
    assert np.bincount(data.test_labels).tolist() == [12_435, 3_846]
    assert data.inputs.shape == (32_561, 108) and data.test_inputs.shape == (16_281, 108) and data.classes == 2
    assert "official files" in data.source
    unknown = [adult.FEATURES.index(f"{column}=?") for column in ("workclass", "occupation", "native-country")]
    assert int(data.inputs[:, unknown].any(axis=1).sum()) == 2_399
    assert int(data.test_inputs[:, unknown].any(axis=1).sum()) == 1_221


def test_first_adult_is_encoded_as_by_hand(real):
    # 39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40,
    # United-States; means and deviations of the file's columns come from awk.
    mean = np.array([38.581647, 189778.366512, 10.080679, 1077.648844, 87.303830, 40.437456])
    sd = np.array([13.640223, 105548.356881, 2.572681, 7385.178677, 402.954031, 12.347239])
    first = datasets.load("adult", real("adult")).inputs[0]
    np.testing.assert_allclose(first[:6], (np.array([39, 77516, 13, 2174, 0, 40]) - mean) / sd, rtol=1e-5)
    assert [adult.FEATURES[i] for i in np.flatnonzero(first[6:]) + 6] == [
        "workclass=State-gov",
        "education=Bachelors",
        "marital-status=Never-married",
        "occupation=Adm-clerical",
        "relationship=Not-in-family",
        "race=White",
        "sex=Male",
        "native-country=United-States",
    ]


def test_adult_features_are_standardised_on_the_training_split_and_one_hot(real):
    data = datasets.load("adult", real("adult"))
    np.testing.assert_allclose(data.inputs[:, :6].mean(0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(data.inputs[:, :6].std(0, dtype=np.float64), 1, atol=1e-6)
    for inputs in (data.inputs, data.test_inputs):
        assert set(np.unique(inputs[:, 6:])) == {0, 1}
        assert (inputs[:, 6:].sum(1) == 8).all()


def test_meaning_of_adult_features_does_not_depend_on_the_rows_read(cut):
    data = datasets.load("adult", cut("adult", 50))
    assert data.inputs.shape[1] == len(adult.FEATURES) == 108
    assert data.inputs[0, adult.FEATURES.index("native-country=United-States")] == 1


def test_digits_are_images_and_keep_their_bytes():
    data = datasets.load("digits")
    assert data.inputs.shape == (1797, 8, 8, 1) and data.test_inputs.shape == (0, 8, 8, 1)
    assert data.test_labels.shape == (0,)
    # As recorded by runs before they had a test split.
    assert data.sha256 == "cf7e26e57b05ca0df6c8c74907284c3304259880cb7ebc523919b068a1ba6454"


def test_digest_covers_the_test_split():
    data = datasets.load("digits")
    assert data._replace(test_labels=np.zeros(1, np.int32)).sha256 != data.sha256


def test_official_files_are_read_at_once(real):
    folder = real("mnist")
    start = time.perf_counter()
    datasets.load("mnist", folder)
    assert time.perf_counter() - start < 4  # 0.4 s on an idle machine


def test_import_and_raw_files_need_neither_tensorflow_datasets_nor_jax(cut):
    code = (
        "import sys; sys.modules['tensorflow_datasets'] = None; from jaxaudit import datasets; "
        f"datasets.load('mnist', {str(cut('mnist', 10))!r}); print(*({{'jax', 'sklearn'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
