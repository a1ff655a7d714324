#!/usr/bin/env bash
# Everything that has to hold before a change lands: formatting, lints, documentation, all tests,
# and the demo with kills. Installs what is missing where it may (Debian packages, as root), and
# says exactly what is missing where it may not.
#
#   ./test.sh              everything
#   ./test.sh quick        without the long tests and the demo
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}

step() { printf '\n== %s\n' "$*"; }

# Whether one of these programs is there; a path may be a pattern.
has() {
  local program
  # Unquoted on purpose: patterns are expanded here, after an installation may have made them match.
  for program in $*; do
    command -v "$program" >/dev/null && return
  done
  return 1
}

# A program that has to be there, and the Debian package that brings it.
need() {
  local package=$1
  shift
  has "$@" && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    step "installing $package"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
    has "$@" && return
  fi
  echo "missing: $* (Debian package $package). Install it and run ./test.sh again." >&2
  exit 2
}

need build-essential cc
# Tests start servers of their own with these, and never touch one that runs.
need postgresql '/usr/lib/postgresql/*/bin/postgres'
need mariadb-server mariadbd /usr/sbin/mariadbd
if ! command -v cargo >/dev/null; then
  echo "missing: cargo. Install Rust $(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml) with rustfmt and clippy." >&2
  exit 2
fi
cargo fmt --version >/dev/null 2>&1 || { echo "missing: rustfmt (rustup component add rustfmt)" >&2; exit 2; }
cargo clippy --version >/dev/null 2>&1 || { echo "missing: clippy (rustup component add clippy)" >&2; exit 2; }

step "formatting"
cargo fmt --all --check

step "lints"
cargo clippy --profile checked --workspace --all-targets --all-features --locked -- -D warnings

step "tests"
if [ "${1:-}" = quick ]; then
  cargo test --profile checked --workspace --all-features --locked --lib --bins
  exit
fi
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
# Some tests want a second version of MariaDB. Without it they are run on the installed one alone,
# which shows the same faults but for one: a registry that is out of reach is no fault of ours.
chmod a+rx "$temporary"
if ! has mvn && [ "$(id -u)" = 0 ] && has apt-get; then
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends maven >/dev/null || true
fi
if has mvn && crates/database/tests/fetch-mariadb-11.4.5.sh "$temporary/mariadb"; then
  export HANDFAST_MARIADB_11="$temporary/mariadb"
else
  echo "NOT TRIED ON MARIADB 11.4.5: it could not be had (Debian package maven, network)" >&2
fi
cargo test --profile checked --workspace --all-features --locked

step "the program as it is used"
cargo build --release --locked

step "torture, with kills"
target/release/handfast torture --transfers 1000 --kills 12 --seed 1 --quiet --json

step "the demo, with kills"
handfast=target/release/handfast
directory=$temporary
for seed in 1 2 3; do
  "$handfast" demo --transfers 600 --kills 6 --seed "$seed" --json > "$directory/report.json"
  cat "$directory/report.json"
done
