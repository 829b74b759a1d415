"""A bundle is used whole and unaltered, or not at all; each way of not being so has its own code."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import bundle_parts
import pytest

from models.bundle import (
    ENSEMBLE,
    GOLDEN,
    MANIFEST,
    SIGNATURE,
    Bundle,
    BundleFault,
    canonical_json,
    generate_keys,
    load_private_key,
    sha256_hex,
    write_bundle,
)
from models.bundle_files import MAX_FILE_BYTES, MAX_MANIFEST_BYTES
from models.bundle_keys import sign

Tamper = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(bundle, public key, private key), not to be changed."""
    folder = tmp_path_factory.mktemp("signed")
    made, public = bundle_parts.bundle(folder)
    return made.path, public, folder / "keys" / "signing.key"


def copy_of(signed: tuple[Path, Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(signed[0], tmp_path / "bundle"))


def refusal(path: Path, public: Path | None, **kwargs: object) -> BundleFault:
    with pytest.raises(BundleFault) as caught:
        Bundle.load(path, public, **kwargs)  # type: ignore[arg-type]
    assert str(caught.value)
    return caught.value


def test_load_gives_what_was_written(signed: tuple[Path, Path, Path]) -> None:
    path, public, _ = signed
    made = Bundle.load(path, public, now_ns=1, expect_schema=bundle_parts.SCHEMA)
    assert made.signed and made.path == path and made.watermark == "SIMULATED"
    assert made.sha256 == sha256_hex((path / MANIFEST).read_bytes())
    assert made.ensemble["temperature"] == 1.3
    assert made.instruments["SIMA"].lot == 10
    assert set(made.manifest["files"]) == {p.name for p in path.iterdir()} - {MANIFEST, SIGNATURE}


def test_same_inputs_give_same_bytes_and_replace_the_old_folder(
    signed: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    path, _, private = signed
    files = {name: path / name for name in Bundle.load(path, None).manifest["files"]}
    target = tmp_path / "elsewhere" / "bundle"
    target.mkdir(parents=True)
    (target / "stale.txt").write_text("from an older run")
    again = write_bundle(target, files, bundle_parts.manifest(), private)
    assert {p.name: p.read_bytes() for p in target.iterdir()} == {
        p.name: p.read_bytes() for p in path.iterdir()
    }
    assert again.sha256 == sha256_hex((path / MANIFEST).read_bytes())
    assert [p.name for p in target.parent.iterdir()] == ["bundle"], "no temporary folder is left"


def _alter(name: str) -> Tamper:
    def tamper(path: Path, _: Path) -> None:
        data = bytearray((path / name).read_bytes())
        data[len(data) // 2] ^= 1
        (path / name).write_bytes(bytes(data))

    return tamper


def _resign(change: Callable[[dict], None]) -> Tamper:
    """Someone with the key signs a manifest that this version must not accept."""

    def tamper(path: Path, private: Path) -> None:
        manifest = json.loads((path / MANIFEST).read_bytes())
        change(manifest)
        data = canonical_json(manifest)
        (path / MANIFEST).write_bytes(data)
        (path / SIGNATURE).write_bytes(sign(data, load_private_key(private)))

    return tamper


def _files(name: str, size: int = 1) -> Callable[[dict], None]:
    return lambda manifest: manifest["files"].update({name: {"sha256": "0" * 64, "bytes": size}})


def _sig(**fields: str) -> Tamper:
    def tamper(path: Path, _: Path) -> None:
        envelope = json.loads((path / SIGNATURE).read_bytes())
        (path / SIGNATURE).write_bytes(canonical_json(envelope | fields))

    return tamper


def _link(path: Path, _: Path) -> None:
    target = path.parent / "outside.npz"
    (path / GOLDEN).rename(target)
    (path / GOLDEN).symlink_to(target)


def _pipe(path: Path, _: Path) -> None:
    (path / GOLDEN).unlink()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path / GOLDEN))


def _without(name: str) -> Tamper:
    return lambda path, _: (path / name).unlink()


def _write(name: str, data: bytes) -> Tamper:
    return lambda path, _: (path / name).write_bytes(data) and None


MATRIX: dict[str, tuple[Tamper, str]] = {
    "member file gone": (_without("gbdt.txt"), "missing_file"),
    "manifest gone": (_without(MANIFEST), "missing_file"),
    "one bit of the trees": (_alter("gbdt.txt"), "altered_file"),
    "one bit of the golden rows": (_alter(GOLDEN), "altered_file"),
    "one bit of the scaler": (_alter("scaler.npz"), "altered_file"),
    "a file more": (_write("pickle.pkl", b"x"), "extra_file"),
    "a hidden file": (_write(".hidden", b""), "extra_file"),
    "a folder more": (lambda path, _: (path / "sub").mkdir(), "extra_file"),
    "a link in place of a file": (_link, "unsafe_name"),
    "a socket in place of a file": (_pipe, "unsafe_name"),
    "traversal": (_resign(_files("../../etc/passwd")), "unsafe_name"),
    "absolute name": (_resign(_files("/etc/passwd")), "unsafe_name"),
    "backslashes": (_resign(_files("..\\x")), "unsafe_name"),
    "name with a newline": (_resign(_files("a\n")), "unsafe_name"),
    "a file named like the signature": (_resign(_files(SIGNATURE)), "unsafe_name"),
    "never signed": (_without(SIGNATURE), "missing_signature"),
    "manifest altered": (_alter(MANIFEST), "bad_signature"),
    "signature of something else": (_sig(signature="A" * 86 + "=="), "bad_signature"),
    "signature not base64": (_sig(signature="!"), "bad_signature"),
    "another algorithm": (_sig(algorithm="none"), "bad_signature"),
    "signature not JSON": (_write(SIGNATURE, b"\x00\xff"), "bad_signature"),
    "signature a list": (_write(SIGNATURE, b"[]"), "bad_signature"),
    "signature endless": (_write(SIGNATURE, b"[" * 4000), "bad_signature"),
    "signature too long": (_write(SIGNATURE, b" " * 5000), "oversize"),
    "claims another key": (_sig(key_id="0" * 16), "wrong_key"),
    "manifest too long": (_write(MANIFEST, b" " * (MAX_MANIFEST_BYTES + 1)), "oversize"),
    "file over its limit": (_resign(_files("big", MAX_FILE_BYTES + 1)), "oversize"),
    "too many files": (_resign(lambda m: [_files(f"f{i}")(m) for i in range(40)] and None), "oversize"),
    "a size below zero": (_resign(_files("x", -1)), "bad_manifest"),
    "files is a list": (_resign(lambda m: m.update(files=[])), "bad_manifest"),
    "a field missing": (_resign(lambda m: m.pop("horizon_ns") and None), "bad_manifest"),
    "expiry is text": (_resign(lambda m: m.update(valid_until_ns="never")), "bad_manifest"),
    "another format": (_resign(lambda m: m.update(format="scalper-bundle/2")), "unknown_format"),
}


@pytest.mark.parametrize("how", MATRIX)
def test_each_tampering_has_its_code(how: str, signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    tamper, code = MATRIX[how]
    path = copy_of(signed, tmp_path)
    tamper(path, signed[2])
    assert refusal(path, signed[1], now_ns=1, expect_schema=bundle_parts.SCHEMA).code == code


def test_wrong_key_and_unusable_keys(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, other = generate_keys(tmp_path / "other")
    assert refusal(signed[0], other).code == "wrong_key"
    assert refusal(signed[0], tmp_path / "absent.pub").code == "bad_key"
    assert refusal(signed[0], signed[2]).code == "bad_key", "a private key is not a public one"


def test_resigned_by_an_attacker_is_another_key(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path = copy_of(signed, tmp_path)
    private, _ = generate_keys(tmp_path / "attacker")
    _resign(lambda m: m.update(watermark="REAL"))(path, private)
    assert refusal(path, signed[1]).code == "wrong_key"


def test_expiry_is_by_market_time(signed: tuple[Path, Path, Path]) -> None:
    path, public, _ = signed
    assert Bundle.load(path, public, now_ns=bundle_parts.VALID_UNTIL_NS - 1)
    fault = refusal(path, public, now_ns=bundle_parts.VALID_UNTIL_NS)
    assert fault.code == "expired"
    assert "2.0 hours" in str(refusal(path, public, now_ns=bundle_parts.VALID_UNTIL_NS + 7_200_000_000_000))
    assert Bundle.load(path, public), "without a time nothing expires: wall time is never asked"


def test_another_schema(signed: tuple[Path, Path, Path]) -> None:
    assert refusal(signed[0], signed[1], expect_schema="6" * 64).code == "other_schema"


def test_no_key_says_unsigned(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path = copy_of(signed, tmp_path)
    (path / SIGNATURE).unlink()
    assert Bundle.load(path, None).signed is False


def test_a_file_changed_after_verification_is_not_handed_out(
    signed: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    path = copy_of(signed, tmp_path)
    made = Bundle.load(path, signed[1])
    (path / ENSEMBLE).write_text("{}")
    with pytest.raises(BundleFault) as caught:
        made.read(ENSEMBLE)
    assert caught.value.code == "altered_file"
    with pytest.raises(BundleFault) as caught:
        made.read("nothing.txt")
    assert caught.value.code == "missing_file"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"metrics": {"report": "/home/me/report.html"}}, "metrics.report"),
        ({"params": {"list": [1, "C:\\data"]}}, "params.list[1]"),
        ({"metrics": {"loss": float("nan")}}, "JSON"),
        ({"watermark": "MAYBE"}, "MAYBE"),
        ({"files": {}}, "files"),
    ],
)
def test_a_manifest_that_must_not_be_signed(
    change: dict, word: str, signed: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(BundleFault) as caught:
        write_bundle(tmp_path / "b", {"a.txt": b"a"}, bundle_parts.manifest(**change), signed[2])
    assert caught.value.code == "bad_manifest" and word in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_field_forgotten(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    fields = bundle_parts.manifest()
    del fields["data_hash"]
    with pytest.raises(BundleFault, match="data_hash"):
        write_bundle(tmp_path / "b", {}, fields, signed[2])


def test_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    private, public = generate_keys(tmp_path / "keys")
    assert private.stat().st_mode & 0o777 == 0o600
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(BundleFault) as caught:
        generate_keys(tmp_path / "keys")
    assert caught.value.code == "exists"
    private.unlink()
    with pytest.raises(BundleFault):
        generate_keys(tmp_path / "keys")
    assert not private.exists() and public.read_bytes() == before[1]


def test_a_key_that_others_can_read_signs_nothing(tmp_path: Path) -> None:
    private, _ = generate_keys(tmp_path / "keys")
    private.chmod(0o644)
    with pytest.raises(BundleFault, match="0644") as caught:
        write_bundle(tmp_path / "b", {}, bundle_parts.manifest(), private)
    assert caught.value.code == "bad_key" and not (tmp_path / "b").exists()


def test_a_draft_reads_without_being_signed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc")
    draft = Bundle.draft({"a.txt": tmp_path / "a.txt", "b.txt": b"b"}, {"horizon_ns": 5})
    assert (draft.read("a.txt"), draft.read("b.txt"), draft.signed) == (b"abc", b"b", False)
    with pytest.raises(BundleFault) as caught:
        Bundle.draft({"../a": b""}, {})
    assert caught.value.code == "unsafe_name"
