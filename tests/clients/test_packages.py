"""The Debian package: what is in it, and that it runs from where it is unpacked."""

import subprocess

from harness import ROOT, client_environment, need_tool


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        encoding="utf-8",
        env=client_environment(),
        timeout=120,
        **options,
    )
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    return done.stdout


def test_the_debian_package(tmp_path):
    need_tool("dpkg-deb")
    package = run(ROOT / "packaging" / "deb", tmp_path).strip()
    assert "Depends: libc6" in run("dpkg-deb", "--info", package)
    tree = tmp_path / "tree"
    run("dpkg-deb", "--extract", package, tree)
    for path in (
        "lib/systemd/system/card4e.service",
        "usr/share/man/man1/card4e.1.gz",
        "usr/share/man/man1/card4e-import-accounts.1.gz",
        "usr/share/bash-completion/completions/card4e",
        "usr/share/zsh/vendor-completions/_card4e",
        "usr/share/fish/vendor_completions.d/card4e.fish",
        "usr/share/doc/card4e/copyright",
        "usr/share/doc/card4e/packaging/prometheus/card4e.rules.yml",
    ):
        assert (tree / path).is_file(), path
    assert not (tree / "usr/share/doc/card4e/docs/performance/import.sh").stat().st_mode & 0o022
    binary = tree / "usr/bin/card4e"
    assert run(binary, "--version").startswith("card4e ")
    # Below 25 MB, debug symbols left out.
    assert binary.stat().st_size < 25_000_000
    etc, var = tmp_path / "etc", tmp_path / "var"
    assert "platform-v1-" in run(binary, "init", etc, "--data", var)
    # Ends with 1 if there is a problem.
    run(binary, "doctor", "--json", "--config", etc / "card4e.toml")
