"""Damage to files of every format, through the format: what a byte flip would never find."""

import io
import json
import os
import shutil
import zipfile

import h5py
import numpy as np
import pandas as pd
from PIL import Image
from safetensors.numpy import load_file, save_file

from fuzzing.damage import ARRAYS, BYTES, LOST, VALUES, WRONG, NoSuchDamageError

BINARY = (".h5ad", ".h5", ".hdf5", ".parquet", ".png", ".jpg", ".tif", ".npz", ".safetensors")
BINARY += (".gz", ".faiss", ".ckpt")
_SIGNED = ("spatial", "X_pca", "location", "centroid", "global", "x", "y", "center", "Center")
"""Parts of the names of what may be negative."""


class Damage:
    """What was done.

    Attributes:
        what: In words.
        names: Names that a message could give: files, keys, columns.
        certain: Whether nothing can be read from it but what was there before.
    """

    def __init__(self, what, names=(), certain=False):
        self.what, self.names, self.certain = what, list(names), certain


def damage(path, rng, others):
    """Damage a file or folder in place.

    Args:
        path: The file or folder.
        rng: Chooses.
        others: Files to put in place of one.
    """
    for _ in range(50):
        try:
            found = _folder(path, rng, others) if path.is_dir() else _file(path, rng, others)
        except NoSuchDamageError:
            continue
        found.names.append(path.name)
        return found
    raise AssertionError(f"nothing can be done to {path}")


def _folder(path, rng, others):
    files = sorted(p for p in path.rglob("*") if p.is_file())
    file = files[int(rng.integers(len(files)))]
    names = [file.name, file.parent.name]
    match str(rng.choice(["file", "file", "file", "delete", "folder", "swap", "pipe"])):
        case "delete":
            file.unlink()
            return Damage(f"{file.name}: deleted", names)
        case "folder":
            file.unlink()
            file.mkdir()
            return Damage(f"{file.name}: a folder", names)
        case "pipe":
            file.unlink()
            os.mkfifo(file)
            return Damage(f"{file.name}: a pipe", names)
        case "swap":
            other = files[int(rng.integers(len(files)))]
            if other.read_bytes() == file.read_bytes():
                raise NoSuchDamageError
            shutil.copy(other, file)
            return Damage(f"{file.name}: is {other.name}", [*names, other.name])
    found = _file(file, rng, others)
    found.names += names
    return found


def _file(path, rng, others):
    if rng.random() < 0.1:
        other = others[int(rng.integers(len(others)))]
        if other.name == path.name:
            raise NoSuchDamageError
        shutil.copy(other, path)
        return Damage(f"{path.name}: is {other.name}", [path.name])
    structure = _STRUCTURE.get(path.suffix)
    if structure is not None and rng.random() < 0.65:
        found = structure(path, rng)
        found.names.append(path.name)
        return found
    name = str(rng.choice(list(BYTES)))
    path.write_bytes(BYTES[name](path.read_bytes(), rng))
    lost = name in LOST and path.suffix in BINARY
    return Damage(f"{path.name}: {name}", [path.name], certain=lost)


def _choose(rng, table):
    name = str(rng.choice(list(table)))
    return name, table[name]


def _certain(kind, key):
    if kind.startswith("negative"):
        return not any(word in key for word in _SIGNED)
    return kind in WRONG


def _hdf5(path, rng):
    with h5py.File(path, "r+") as file:
        names = ["/"]
        file.visit(names.append)
        name = names[int(rng.integers(1, len(names)))]
        node, words = file[name], [name, *name.split("/")]
        match str(rng.choice(["array", "array", "array", "delete", "rename", "attribute", "swap"])):
            case "delete":
                del file[name]
                return Damage(f"{name}: deleted", words)
            case "rename":
                file.move(name, f"{name}é\u202e" if rng.integers(2) else f"{name}_")
                return Damage(f"{name}: renamed", words)
            case "attribute":
                return _attribute(file, node, name, words, rng)
            case "swap":
                del file[name]
                file[name] = np.arange(4) if rng.integers(2) else "text"
                return Damage(f"{name}: another thing", words)
        if not isinstance(node, h5py.Dataset):
            raise NoSuchDamageError
        kind, change = _choose(rng, ARRAYS)
        values = node.asstr()[()] if h5py.check_string_dtype(node.dtype) else node[()]
        changed = change(np.asarray(values), rng)
        changed = changed.astype(object) if changed.dtype.kind == "U" else changed
        attributes = dict(node.attrs)
        del file[name]
        dtype = h5py.string_dtype() if changed.dtype == object else None
        file.create_dataset(name, data=changed, dtype=dtype).attrs.update(attributes)
        return Damage(f"{name}: {kind}", words, _certain(kind, name))


def _attribute(file, node, name, words, rng):
    keys = list(node.attrs)
    if not keys:
        raise NoSuchDamageError
    key = keys[int(rng.integers(len(keys)))]
    value = [None, "text", 3, -1, [2**40, 2**40], [-1, -1], [0, 0], [], np.nan][rng.integers(9)]
    if value is None:
        del node.attrs[key]
    else:
        node.attrs[key] = value
    return Damage(f"{name}.attrs[{key}]: {value}", [*words, key])


def _paths(value, at=()):
    """Every place in a JSON value."""
    yield at
    if isinstance(value, dict | list):
        for key, inside in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(inside, (*at, key))


def _json(path, rng):
    value = json.loads(path.read_text(encoding="utf-8"))
    places = list(_paths(value))
    at = places[int(rng.integers(len(places)))]
    names = [str(key) for key in at]
    if not at:
        kind, change = _choose(rng, VALUES)
        value = change(value, rng)
    else:
        holder = value
        for key in at[:-1]:
            holder = holder[key]
        kind = str(rng.choice([*VALUES, "delete", "rename", "more"]))
        if kind == "delete":
            del holder[at[-1]]
        elif kind == "rename" and isinstance(holder, dict):
            holder[f"{at[-1]}s"] = holder.pop(at[-1])
        elif kind in ("more", "rename"):
            (holder.append if isinstance(holder, list) else lambda v: holder.update(more=v))(1)
        else:
            holder[at[-1]] = VALUES[kind](holder[at[-1]], rng)
    path.write_text(json.dumps(value), encoding="utf-8")
    return Damage(f"{path.name}: {'.'.join(names)}: {kind}", names)


def _table(path, rng):
    """Cells of a csv, as text."""
    options = {"dtype": str, "keep_default_na": False, "header": None}
    table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", **options)
    row, column = int(rng.integers(len(table))), int(rng.integers(table.shape[1]))
    kind = str(rng.choice(["cell", "cell", "column", "twice", "row", "no rows", "name", "quote"]))
    value = ""
    match kind:
        case "cell":
            words = ["", "nan", "inf", "-inf", "-5", "1e300", "text", "é", "1.5", "9" * 40, "=1+1"]
            value = str(rng.choice(words))
            table.iloc[row, column] = value
        case "column":
            table = table.drop(columns=column)
        case "twice":
            table = pd.concat([table, table[[column]]], axis=1)
        case "row":
            table = pd.concat([table, table.iloc[[row]]])
        case "no rows":
            table = table.iloc[:1]
        case "name":
            table.iloc[0, column] = str(rng.choice(["", "é", "0", table.iloc[0, 0]]))
    text = table.to_csv(index=False, header=False, sep="\t" if path.suffix == ".tsv" else ",")
    if kind == "quote":
        text = text[: len(text) // 2] + '"' + text[len(text) // 2 :]
    path.write_text(text, encoding="utf-8")
    return Damage(f"{path.name}: {kind} {row},{column} {value}", [path.name])


def _parquet(path, rng):
    table = pd.read_parquet(path)
    name = str(rng.choice(list(map(str, table))))
    kind = str(rng.choice(["column", "name", "twice", "no rows", "times", "index", *ARRAYS]))
    if kind == "times":
        table[name] = pd.to_datetime(table[name], errors="coerce")
    elif kind == "index":
        table = table.set_index(name)
    elif kind == "column":
        table = table.drop(columns=name)
    elif kind == "name":
        table = table.rename(columns={name: f"{name}é"})
    elif kind == "twice":
        table = pd.concat([table, table.iloc[:1]])
    elif kind == "no rows":
        table = table.iloc[:0]
    else:
        values = ARRAYS[kind](table[name].to_numpy(), rng)
        if values.ndim != 1 or values.dtype.kind == "c":
            raise NoSuchDamageError
        table = table.iloc[: len(values)]
        table = pd.concat([table, table.iloc[: len(values) - len(table)]]).assign(**{name: values})
    table.to_parquet(path)
    certain = kind in ("nan", "inf") and any(word in name for word in ("centroid",))
    return Damage(f"{path.name}: {name}: {kind}", [name], certain)


def _npz(path, rng):
    with np.load(path) as file:
        arrays = dict(file)
    name = str(rng.choice(list(arrays)))
    kind = str(rng.choice(["delete", "rename", *ARRAYS]))
    if kind == "delete":
        del arrays[name]
    elif kind == "rename":
        arrays[f"{name}s"] = arrays.pop(name)
    else:
        arrays[name] = ARRAYS[kind](arrays[name], rng)
    np.savez(path, **arrays)
    return Damage(f"{path.name}: {name}: {kind}", [name])


def _safetensors(path, rng):
    arrays = load_file(path)
    name = str(rng.choice(list(arrays)))
    kind = str(rng.choice(["delete", "rename", *ARRAYS]))
    if kind == "delete":
        del arrays[name]
    elif kind == "rename":
        arrays[f"{name}s"] = arrays.pop(name)
    else:
        changed = ARRAYS[kind](arrays[name], rng)
        if changed.dtype.kind not in "fiub":
            raise NoSuchDamageError
        arrays[name] = np.ascontiguousarray(changed)
    save_file(arrays, path)
    return Damage(f"{path.name}: {name}: {kind}", [name], kind in ("nan", "inf", "delete"))


def _picture(path, rng):
    with Image.open(path) as file:
        file.load()
        image, form, written = file.copy(), file.format, io.BytesIO()
    kind = str(rng.choice(["1", "L", "P", "I;16", "F", "CMYK", "RGBA", "tiny", "wide"]))
    if kind == "tiny":
        image = image.resize((1, 1))
    elif kind == "wide":
        image = image.resize((image.width * 2, 1))
    else:
        image = image.convert("I").convert(kind) if kind == "I;16" else image.convert(kind)
    try:
        image.save(written, form)
    except OSError as err:  # the format has no such pixels
        raise NoSuchDamageError from err
    path.write_bytes(written.getvalue())
    return Damage(f"{path.name}: as {kind}")


def _zip(path, rng):
    """Members of an archive, such as a checkpoint."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    name = sorted(parts)[int(rng.integers(len(parts)))]
    kind, change = _choose(rng, BYTES)
    parts[name] = change(parts[name], rng)
    with zipfile.ZipFile(path, "w") as file:
        for other, data in parts.items():
            file.writestr(other, data)
    return Damage(f"{path.name}: {name}: {kind}")


_STRUCTURE = {
    ".h5ad": _hdf5,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".json": _json,
    ".geojson": _json,
    ".xenium": _json,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _parquet,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".png": _picture,
    ".jpg": _picture,
    ".tif": _picture,
    ".ckpt": _zip,
}
