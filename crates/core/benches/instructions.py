#!/usr/bin/env python3
"""Counts the instructions of the core's step and compares them with those that are kept.

    python3 crates/core/benches/instructions.py            compare; status 1 if a step became dearer
    python3 crates/core/benches/instructions.py --write    keep what is counted now

The counts are Valgrind's and do not depend on how busy the machine is; they do depend on the compiler, which
rust-toolchain.toml pins. Needs valgrind, and `cargo install gungraun-runner --version 0.20.0`.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEPT = HERE / "instructions.json"
# Hashing with random keys and the order of tables make a count differ a little from run to run.
TOLERANCE = 0.02


def counted():
    """Instructions by benchmark."""
    command = ["cargo", "bench", "-p", "handfast-core", "--bench", "instructions", "--"]
    command += ["--output-format=json"]
    environment = {**os.environ, "GUNGRAUN_COLOR": "never"}
    done = subprocess.run(command, cwd=HERE, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit("the benchmark failed; are valgrind and gungraun-runner installed?")
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            summary = json.loads(line)
            name = f"{summary['function_name']}/{summary['id']}"
            found[name] = instructions(summary)
    if not found:
        sys.exit("the benchmark said nothing that can be read")
    return found


def instructions(summary):
    """The number of instructions out of one summary; an earlier run's is of no interest."""
    return summary["profiles"][0]["data"]["total"]["metrics"]["Ir"]["values"]["new"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="keep what is counted now")
    write = parser.parse_args().write
    found = counted()
    if write:
        KEPT.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    kept = json.loads(KEPT.read_text())
    dearer = []
    for name, count in sorted(found.items()):
        before = kept.get(name)
        change = (count - before) / before if before else 0.0
        print(f"{name:36} {count:>12,} {change:+8.1%}" + ("" if before else "  (new)"))
        if change > TOLERANCE:
            dearer.append(name)
    gone = sorted(set(kept) - set(found))
    if dearer or gone:
        sys.exit(f"dearer: {', '.join(dearer) or 'none'}; gone: {', '.join(gone) or 'none'}")


if __name__ == "__main__":
    main()
