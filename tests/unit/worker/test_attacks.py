"""Models and data made to harm: each is refused with a clear error, and nothing of it runs.

All are read as a runner reads them, by one process that is shut in as a runner is.
"""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mpsearch.worker.sandbox.rules import environment_for, rules_for

DRIVER = """
import json, signal, sys
import torch
from pathlib import Path
from mpsearch.errors import MpsearchError
from mpsearch.tasks import read_data
from mpsearch.tracing import load_folder, load_onnx, trace_onnx
attacks, scratch = Path(sys.argv[1]), Path(sys.argv[2])
def late(*_):
    raise TimeoutError("no end in sight")
signal.signal(signal.SIGALRM, late)
for place in sorted(attacks.iterdir()):
    signal.alarm(60)
    try:
        if place.is_dir():
            files = list(place.glob("*.onnx"))
            if files:
                trace_onnx(load_onnx(files[0]), {"x": torch.zeros(2, 4)})
            else:
                load_folder(place)
        else:
            names = ("input_ids",)
            folder = scratch / place.name
            data = read_data(place, input_names=names, batch_size=8, folder=folder)
            list(data)
        told = "accepted"
    except MpsearchError as error:
        told = f"refused: {error}"
    except BaseException as error:
        told = f"broke: {type(error).__name__}: {error}"
    print(json.dumps([place.name, told]), flush=True)
"""


class Exploit:
    """What leaves a mark as soon as it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.marker}",))


CONFIG: Final[Mapping[str, Any]] = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": 16,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}


def tensors(header: object, *, length: int | None = None, body: bytes = b"\0" * 64) -> bytes:
    """Return a safetensors file with this header, told to be of this length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(start: int, end: int, shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape or [(end - start) // 4], "data_offsets": [start, end]}


WEIGHTS: Final[Mapping[str, Callable[[], bytes]]] = {
    "overlapping": lambda: tensors({"a": entry(0, 32), "b": entry(16, 48)}, body=b"\0" * 48),
    "holed": lambda: tensors({"a": entry(0, 16), "b": entry(32, 48)}, body=b"\0" * 48),
    "truncated": lambda: tensors({"a": entry(0, 4096)}),
    "longer than told": lambda: tensors({"a": entry(0, 16)}),
    "header beyond its end": lambda: tensors({"a": entry(0, 64)}, length=2**30),
    "header of 2^63": lambda: tensors({}, length=2**63),
    "negative offsets": lambda: tensors({"a": entry(-16, 48)}),
    "overflowing shape": lambda: tensors({"a": entry(0, 64, [2**62, 4])}),
    "header of no JSON": lambda: tensors(b"{" + b"\xff" * 63),
    "400,000 tensors": lambda: tensors(
        {f"t{number}": entry(0, 0, [0]) for number in range(400_000)}, body=b""
    ),
    "empty": lambda: b"",
}
CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "code of its own": {"auto_map": {"AutoModel": "evil.Model"}, "model_type": "evil"},
    "code of a known name": {"auto_map": {"AutoModel": "evil.Model"}},
    "attention of a repository": {"attn_implementation": "somebody/kernel"},
    "attention of a repository, hidden": {"_attn_implementation": "somebody/kernel"},
    "2^40 wide": {"hidden_size": 2**40, "num_attention_heads": 2**20},
    "2^40 words": {"vocab_size": 2**40},
    "a million layers": {"num_hidden_layers": 10**6},
    "2^40 wide, deep inside": {"text_config": [{"hidden_size": 2**40}]},
    "infinitely wide": {"hidden_size": float("inf")},
    "10^400 words": {"vocab_size": 10**400},
    "900 layers of one tensor": {"num_hidden_layers": 900},
    "an image of 2^40 dots": {"model_type": "resnet", "image_size": 2**20},
    "2^27 classes": {"num_labels": 2**27},
    "2^40 layers": {"num_hidden_layers": 2**40},
    "a path as its kind": {"model_type": "../../../etc", "_name_or_path": "/etc/passwd"},
    "unknown architecture": {"architectures": ["EvilModel"], "model_type": "evil"},
}


def array_of_objects(marker: Path) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, input_ids=np.array([Exploit(marker)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def archive(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("input_ids.npy", content)
    return buffer.getvalue()


def claiming(shape: str) -> bytes:
    text = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + b"\0" * 64


def exported_program(marker: Path) -> bytes:
    """Return an archive as `torch.export.save` writes it, with code wherever it can hold some."""
    evil = pickle.dumps(Exploit(marker))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in (
            *("archive_format", "version", "models/model.json", "data/weights/weight_0"),
            *("data/sample_inputs/model.pt", "data/constants/custom_obj_0"),
            *("data/weights/model.pt", "data/aotinductor/model/model.so"),
        ):
            file.writestr(name, evil)
        guards = {"guards_code": [f"__import__('os').system('touch {marker}')"]}
        opaque = {"opaque_obj": "os.system", "expr_str": f"os.system('touch {marker}')"}
        file.writestr("models/other.json", json.dumps({**guards, **opaque, "use_pickle": True}))
    return buffer.getvalue()


def zip_bomb(_: Path) -> bytes:
    """Return 200 kB that unpack to 256 MiB, and say that they do to 4 GiB, times 16."""
    pieces = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = pieces.compress(bytes(2**28)) + pieces.flush()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for number in range(16):
            file.writestr(f"array_{number}", zeros)
    told = bytearray(buffer.getvalue())
    for mark, method, size in ((b"PK\x03\x04", 8, 22), (b"PK\x01\x02", 10, 24)):
        place = told.find(mark)
        while place >= 0:
            struct.pack_into("<H", told, place + method, zipfile.ZIP_DEFLATED)
            struct.pack_into("<I", told, place + size, 2**32 - 2)
            place = told.find(mark, place + 4)
    return bytes(told)


DATA: Final[Mapping[str, Callable[[Path], bytes]]] = {
    "exported program.npz": exported_program,
    "zip bomb.npz": zip_bomb,
    "objects.npz": array_of_objects,
    "2^60 numbers.npz": lambda _: archive(claiming("(1152921504606846976,)")),
    "no array.npz": lambda _: archive(b"nothing"),
    "no archive.npz": lambda _: b"PK\x03\x04" + b"\0" * 100,
    "pickle.npz": lambda marker: pickle.dumps(Exploit(marker)),
}


def network(*nodes: onnx.NodeProto, opset: int = 17, source: str = "x") -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], [0.0] * 16)
    graph = helper.make_graph(
        [*nodes, helper.make_node("MatMul", [source, "w"], ["y"], name="layer")],
        "network",
        [value("x", TensorProto.FLOAT, ["n", 4])],
        [value("y", TensorProto.FLOAT, ["n", 4])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def endless_loop() -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["s"], ["t"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("s", TensorProto.FLOAT, ["n", 4]),
        ],
        [value("on", TensorProto.BOOL, []), value("t", TensorProto.FLOAT, ["n", 4])],
    )
    loop = helper.make_node("Loop", ["many", "yes", "x"], ["looped"], body=body)
    model = network(loop, source="looped")
    model.graph.initializer.append(helper.make_tensor("many", TensorProto.INT64, [], [2**62]))
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    return model


def weights_at(location: str) -> onnx.ModelProto:
    model = network()
    (tensor,) = model.graph.initializer
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


NETWORKS: Final[Mapping[str, Callable[[], onnx.ModelProto]]] = {
    "endless loop": endless_loop,
    "operator of its own": lambda: network(helper.make_node("Evil", ["x"], ["z"], domain="evil")),
    "operator set 999": lambda: network(opset=999),
    "weights above": lambda: weights_at("../../scratch/secret"),
    "weights in etc": lambda: weights_at("/etc/passwd"),
    "weights by a second name": lambda: weights_at("linked"),
    "weights by a link": lambda: weights_at("symbolic"),
}


def write_networks(folder: Path, *, secret: Path) -> None:
    secret.write_bytes(bytes(64))
    for name, model in NETWORKS.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "net.onnx").write_bytes(model().SerializeToString())
        (folder / name / "linked").hardlink_to(secret)
        (folder / name / "symbolic").symlink_to(secret)


def write_attacks(folder: Path, *, marker: Path) -> None:
    sound = tensors({"a": entry(0, 64)})
    for name, weights in WEIGHTS.items():
        write_model(folder / name, config=CONFIG, weights=weights())
    for name, change in CONFIGS.items():
        write_model(folder / name, config={**CONFIG, **change}, weights=sound)
        (folder / name / "evil.py").write_text(f"import os; os.system('touch {marker}')")
    write_model(folder / "pickle renamed", config=CONFIG, weights=pickle.dumps(Exploit(marker)))
    write_model(folder / "pickle alone", config=CONFIG, weights=None)
    (folder / "pickle alone" / "pytorch_model.bin").write_bytes(pickle.dumps(Exploit(marker)))
    write_model(folder / "program renamed", config=CONFIG, weights=exported_program(marker))
    write_model(folder / "program alone", config=CONFIG, weights=None)
    (folder / "program alone" / "model.pt2").write_bytes(exported_program(marker))
    write_model(folder / "program as network", config=CONFIG, weights=None)
    (folder / "program as network" / "net.onnx").write_bytes(exported_program(marker))
    write_networks(folder, secret=marker.parent / "secret")
    for name, content in DATA.items():
        (folder / name).write_bytes(content(marker))


def write_model(folder: Path, *, config: Mapping[str, Any], weights: bytes | None) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what became of each attack."""
    place = tmp_path_factory.mktemp("attacks")
    scratch, attacks, marker = place / "scratch", place / "inputs", place / "scratch" / "marker"
    scratch.mkdir()
    write_attacks(attacks, marker=marker)
    rules = replace(rules_for(readable=(attacks,), writable=(scratch,)), memory_bytes=2**32)
    launcher = [sys.executable, "-P", "-m", "mpsearch.worker.sandbox.enter", rules.to_json()]
    done = subprocess.run(
        [*launcher, sys.executable, "-P", "-c", DRIVER, str(attacks), str(scratch)],
        capture_output=True,
        text=True,
        check=False,
        cwd=scratch,
        env=environment_for(scratch),
    )
    found = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    found["ran"] = str(marker.exists())
    found["ended"] = f"{done.returncode} {done.stderr[-2000:]}"
    return found


PROGRAMS = ["program renamed", "program alone", "program as network"]
ATTACKS = [*WEIGHTS, *CONFIGS, "pickle renamed", "pickle alone", *DATA, *PROGRAMS, *NETWORKS]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_with_a_clear_error(told: dict[str, str], name: str) -> None:
    assert told.get(name, f"not reached: {told['ended']}").startswith("refused: "), told.get(name)


def test_no_attack_is_refused_only_because_its_time_was_over(told: dict[str, str]) -> None:
    assert [name for name, text in told.items() if "no end in sight" in text] == []


def test_nothing_of_any_attack_ran(told: dict[str, str]) -> None:
    assert told["ran"] == "False"
