#!/bin/sh
# Builds ayova and lays out what the image holds: deploy/build.sh FOLDER
# The Dockerfile runs this and so does .ci/run, so that what CI tries out is what an image gets.
# FEATURES: cargo features; without it otlp, which is silent until an OTEL_* variable is set.
set -eu
folder=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/.."

cargo build --locked --release --features "${FEATURES-otlp}"
install -d "$folder/usr/local/bin" "$folder/usr/share/doc/ayova" "$folder/data"
install -m 0755 "${CARGO_TARGET_DIR:-target}/release/ayova" "$folder/usr/local/bin/ayova"
install -m 0644 LICENSE LICENSE-APACHE LICENSE-MIT "$folder/usr/share/doc/ayova/"
