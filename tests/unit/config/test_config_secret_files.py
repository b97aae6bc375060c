"""Secrets in files of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ext_proc.config.load import Loaded, load, load_text
from ext_proc.config.secret_file import MAX_SECRET_BYTES
from ext_proc.config.source import Source, has_changed
from ext_proc.core.errors import ConfigError


def a_text(secret: str, rest: str = "affinity: {salt: 0123456789abcdef}") -> str:
    return f"model_providers:\n  - model: openai/a\n    default: true\n    access_key: {secret}\n{rest}\n"


def read(text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    return load_text(text, "f.yaml", environ or {}, lambda: b"")


def problem_of(text: str) -> str:
    with pytest.raises(ConfigError) as found:
        read(text)
    (problem,) = found.value.problems
    return str(problem)


def test_the_files_content_is_the_secret(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("\n sk-from-a-file \n")
    loaded = read(a_text("{file: '${KEYS}/key'}"), {"KEYS": str(tmp_path)})
    credential = loaded.configuration.snapshot.default.credential
    assert credential is not None
    assert credential.value.reveal() == "Bearer sk-from-a-file"
    assert set(loaded.read) == {key}
    # Envoy can take a key from a variable only.
    assert loaded.configuration.envoy.failure_credential_env is None


def test_salt_testers_key_and_tokens_may_be_in_files(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("a long enough secret\n".replace(" ", "-"))
    rest = f"affinity: {{salt: {{file: {file}}}, tester_key: {{file: {file}}}}}\n"
    rest += f"admin: {{token: {{file: {file}}}}}"
    configuration = read(a_text("none", rest)).configuration
    assert configuration.admin_token is not None
    assert configuration.admin_token.reveal() == "a-long-enough-secret"
    assert configuration.snapshot.tester_key == configuration.admin_token
    assert (
        configuration.snapshot.salt
        == read(a_text("none", "affinity: {salt: a-long-enough-secret}")).configuration.snapshot.salt
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"x" * (MAX_SECRET_BYTES + 1), "is larger than 64 KiB"),
    ],
)
def test_a_file_without_a_secret_is_a_problem_with_its_line(
    tmp_path: Path, content: bytes, says: str
) -> None:
    key = tmp_path / "key"
    key.write_bytes(content)
    text = a_text(f"{{file: {key}}}")
    assert problem_of(text).startswith(f"f.yaml:4:24: {key} {says}")


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("{file: key}", "f.yaml:4:24: this path of a file is not absolute"),
        ("{file: /nowhere/at/all}", "f.yaml:4:24: /nowhere/at/all cannot be read: No such file or directory"),
        ("{file: $KEYS/key}", "f.yaml:4:24: the environment variable KEYS is not set"),
        ("{path: /key}", 'f.yaml:4:17: "access_key" is a mapping with something other than "file"'),
        ("{file: 7}", 'f.yaml:4:17: "access_key" has a "file" that is not text'),
        ("[/key]", 'f.yaml:4:17: "access_key" must be text, not a list'),
    ],
)
def test_a_wrong_reference_is_a_problem_with_its_line(written: str, says: str) -> None:
    assert problem_of(a_text(written)).startswith(says)


def test_a_file_that_was_missing_is_known_so_that_it_can_be_waited_for(tmp_path: Path) -> None:
    file, key = tmp_path / "f.yaml", tmp_path / "key"
    file.write_text(a_text(f"{{file: {key}}}"))
    with pytest.raises(ConfigError) as found:
        load(file, {}, lambda: b"")
    assert set(found.value.read) == {file, key}
    assert not has_changed(found.value.read)
    key.write_text("sk-1")
    assert has_changed(found.value.read)


def test_only_another_content_is_a_change(tmp_path: Path) -> None:
    file, key = tmp_path / "f.yaml", tmp_path / "key"
    file.write_text(a_text(f"{{file: {key}}}"))
    key.write_text("sk-1")
    read = Source(file, {}, lambda: b"").load().read
    file.touch()
    key.write_text("sk-1")
    assert not has_changed(read)
    key.write_text("sk-2")
    assert has_changed(read)


def test_a_source_keeps_the_salt_it_made(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(a_text("none", ""))
    salts = iter((b"first", b"second"))
    source = Source(file, {}, lambda: next(salts))
    assert {source.load().configuration.snapshot.salt for _ in range(2)} == {b"first"}
