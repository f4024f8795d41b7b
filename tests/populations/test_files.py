"""A user's files: headers say what the arrays are, parts are read alone, and damage never passes as a crash."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from jaxaudit.populations.files import Header, pick, read_arrays, read_headers, refuse_non_finite

ARRAYS = {
    "updates": np.arange(12, dtype=np.float32).reshape(4, 3),
    "client": np.arange(4),
    "scalar": np.array(7, np.int32),
    "empty": np.zeros((0, 3), np.float16),
}


def write(path, arrays):
    np.savez_compressed(path, **arrays) if path.suffix == ".npz" else save_file(arrays, path, {"client": "3"})
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_headers_say_what_the_arrays_are(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", ARRAYS)
    headers, metadata = read_headers(path)
    arrays = read_arrays(path)
    assert {name: header.shape for name, header in headers.items()} == {n: a.shape for n, a in ARRAYS.items()}
    assert all(header.real for header in headers.values())
    assert metadata == ({} if suffix == ".npz" else {"client": "3"})
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_header_of_a_matrix_is_known_without_reading_it(tmp_path):
    np.save(tmp_path / "a.npy", ARRAYS["updates"])
    assert read_headers(tmp_path / "a.npy") == ({"updates": Header("float32", (4, 3), True)}, {})


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_arrays_are_read_alone(tmp_path, suffix):
    arrays = read_arrays(write(tmp_path / f"a{suffix}", ARRAYS), ["client", "absent"])
    assert list(arrays) == ["client"]


def test_an_unreadable_array_does_not_hide_the_others(tmp_path):
    np.savez(tmp_path / "a.npz", updates=ARRAYS["updates"], notes=np.array([{"a": 1}], object))
    assert not read_headers(tmp_path / "a.npz")[0]["notes"].real
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npz", ["updates"])["updates"], ARRAYS["updates"])
    save_file({"updates": ARRAYS["updates"], "mask": np.ones(3, bool)}, tmp_path / "a.safetensors")
    assert not read_headers(tmp_path / "a.safetensors")[0]["mask"].real
    assert list(read_arrays(tmp_path / "a.safetensors", ["updates"])) == ["updates"]


def test_bfloat16_is_a_memory_map_of_real_numbers(tmp_path):
    values = np.array([[1.5, -2.25, 3e38]], np.float32).astype(jnp.bfloat16)
    save_file({"updates": values}, tmp_path / "a.safetensors")
    array = pick(read_arrays(tmp_path / "a.safetensors"), "updates", "a", ndim=2)
    assert isinstance(array, np.memmap) and array.dtype == jnp.bfloat16
    np.testing.assert_array_equal(array.astype(np.float32), values.astype(np.float32))
    refuse_non_finite(array, "updates")
    with pytest.raises(ValueError, match=r"updates\[1\] holds NaN"):
        refuse_non_finite(np.array([[1], [np.nan]], jnp.bfloat16), "updates")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@given(data=st.data())
@settings(max_examples=150)
def test_damage_is_one_line_or_harmless(tmp_path_factory, suffix, data):
    path = tmp_path_factory.mktemp("damage") / f"a{suffix}"
    np.save(path, ARRAYS["updates"]) if suffix == ".npy" else write(path, ARRAYS)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    for read in (read_headers, read_arrays):
        try:
            read(path)
        except ValueError as error:
            assert "\n" not in str(error) and str(path) in str(error)
