#!/usr/bin/env python3
"""Measures handfast beside other systems that do the same work, in one run, by turns.

    compare/compare.py transactions --seconds 10            # DTM and Seata
    compare/compare.py events --seconds 10 --json out.json  # NATS JetStream and Kafka
    compare/compare.py transfers --seconds 10               # Narayana, over two databases

Every system keeps what it acknowledges on stable storage. Servers are started on free ports of the
loopback interface, with their data in a temporary directory, and stopped afterwards; one system
runs at a time. README.md beside this file says what is compared and why that is fair.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import events
import transactions
import transfers
from running import HERE, Failed, Missing, say, syncs_per_second

LEVELS = {"transactions": "1,64,1024", "events": "64,1024", "transfers": "1,32"}
MODULES = {"transactions": transactions, "events": events, "transfers": transfers}


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=sorted(LEVELS))
    parser.add_argument("--handfast", type=Path, default=HERE.parent / "target/release/handfast")
    parser.add_argument("--seconds", type=int, default=10, help="that count, at each level")
    parser.add_argument("--rounds", type=int, default=2, help="how often all take their turn")
    parser.add_argument("--warmup", type=float, default=30, help="seconds for virtual machines")
    parser.add_argument("--levels", help="under way at once [default: those of the work]")
    parser.add_argument("--only", help="systems, with commas")
    parser.add_argument("--dir", type=Path, help="the disk to use [default: a temporary one]")
    parser.add_argument("--json", type=Path, help="write every single figure to this file")
    parser.add_argument("--keep", action="store_true", help="keep the servers' data and logs")
    return parser.parse_args()


def chosen(options):
    if not options.handfast.exists():
        raise Missing(f"{options.handfast} is not there: cargo build --release, or --handfast PATH")
    known = MODULES[options.what].systems(options.handfast.resolve())
    names = options.only.split(",") if options.only else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Missing(f"--only {','.join(unknown)}: there are {', '.join(known)}")
    return {name: known[name] for name in names}


def filesystem(directory):
    """The kind of file system that a directory is on, by the longest mount point above it."""
    found = ("", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind = line.split()[:3]
        if directory.is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, kind)
    return found[1]


def one_turn(name, system, number, options, parent):
    """All levels of one system, with a store of its own."""
    directory = Path(tempfile.mkdtemp(prefix=f"{name}-{number}-", dir=parent))
    levels = [int(level) for level in (options.levels or LEVELS[options.what]).split(",")]
    rows = []
    syncs = syncs_per_second(directory)
    say(f"round {number} of {options.rounds}: {name} starts; a bare loop syncs {syncs:,.0f}/s")
    try:
        for row in system.measure(directory, levels, options.seconds, options.warmup):
            rows.append({"system": name, "round": number, "bare_syncs_per_second": syncs, **row})
            say(
                f"round {number} of {options.rounds}: {rows[-1]['system']}, {row['kind']}, "
                f"{row['level']}: "
                f"{row['per_second']:,.0f}/s" + "".join(f"; {p}" for p in row["problems"])
            )
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    return rows


def mean(values):
    return sum(values) / len(values)


def table(rows):
    """One Markdown table for each kind of work, with ratios to handfast at the same level."""
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        lines += [
            "",
            f"**{kind}**",
            "",
            "| system | at once | per second (each round) | p50 ms | p99 ms | errors "
            "| handfast's rate is | its p99 is |",
            "|---|---|---|---|---|---|---|---|",
        ]
        of_kind = [row for row in rows if row["kind"] == kind]
        for system, level in dict.fromkeys((row["system"], row["level"]) for row in of_kind):
            own = at(of_kind, system, level)
            base = at(of_kind, "handfast", level)
            lines.append(line(system, level, own, base))
    return "\n".join(lines)


def at(rows, system, level):
    return [row for row in rows if (row["system"], row["level"]) == (system, level)]


def line(system, level, own, base):
    rate, p50, p99 = (mean([row[key] for row in own]) for key in ("per_second", "p50_ms", "p99_ms"))
    each = ", ".join(f"{row['per_second']:,.0f}" for row in own)
    ratios = " | "
    if base and system != "handfast" and rate and p99:
        faster = mean([row["per_second"] for row in base]) / rate
        ratios = f"{faster:,.1f} times | {mean([row['p99_ms'] for row in base]) / p99:.3f}"
    errors = sum(row["errors"] for row in own)
    return (
        f"| {system} | {level:,} | {rate:,.0f} ({each}) | {p50:,.2f} | {p99:,.2f} "
        f"| {errors} | {ratios} |"
    )


def machine():
    cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    return {
        "cores": os.cpu_count(),
        "cpu": cpu[0].split(": ")[1] if cpu else "",
        "kernel": platform.release(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def run(options):
    systems = chosen(options)
    versions = {name: system.prepare() for name, system in systems.items()}
    parent = Path(tempfile.mkdtemp(prefix="handfast-compare-", dir=options.dir)).resolve()
    if filesystem(parent) in ("tmpfs", "ramfs"):
        say(f"{parent} is in memory: nothing there is durable, use --dir\n")
    # What the systems use by turns, where there is such a thing.
    used_by_all = getattr(MODULES[options.what], "used_by_all", None)
    rows, failures = [], []
    try:
        with used_by_all(systems, parent) if used_by_all else nullcontext():
            for number in range(1, options.rounds + 1):
                for name, system in systems.items():
                    try:
                        rows += one_turn(name, system, number, options, parent)
                    except Failed as failure:
                        failures.append(f"{name}, round {number}: {failure}")
                        say(failures[-1] + "\n")
    finally:
        if options.keep:
            say(f"data and logs are in {parent}\n")
        else:
            shutil.rmtree(parent, ignore_errors=True)
    say("")
    problems = [f"{r['system']}, {r['level']}: {p}" for r in rows for p in r["problems"]] + failures
    report(options, versions, rows, problems)
    return 1 if problems else 0


def report(options, versions, rows, problems):
    settings = {"seconds": options.seconds, "rounds": options.rounds, "warmup": options.warmup}
    facts = {"machine": machine(), "versions": versions, "settings": settings}
    if options.json:
        whole = {"compare": options.what, **facts, "problems": problems, "rows": rows}
        options.json.write_text(json.dumps(whole, indent=1) + "\n")
    for name, version in versions.items():
        print(f"{name}: {version}")
    print(table(rows))
    syncs = [row["bare_syncs_per_second"] for row in rows]
    if syncs:
        print(
            f"\nBefore each turn a bare loop of append and fdatasync did {min(syncs):,.0f} to "
            f"{max(syncs):,.0f} per second: far apart means that the machine was not ours alone."
        )
    for problem in problems:
        print(f"\nproblem: {problem}")


def main():
    try:
        sys.exit(run(arguments()))
    except (Missing, Failed) as error:
        say("")
        sys.exit(f"compare: {error}")
    except KeyboardInterrupt:
        sys.exit("compare: interrupted; everything that was started is stopped")


if __name__ == "__main__":
    main()
