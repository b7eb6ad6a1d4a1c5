#!/usr/bin/env bash
# Instructions that a linear layer of 256 x 1536 takes at 1, 2, 4 and 8 rows, on an emulated processor:
#   benchmarks/arm64/count.sh CPU PROGRAM ARGUMENTS...
# for example `count.sh max build/check-arm64/linear neon_dot Q4_0`. The program takes two arguments more, rows and
# times; three times less once leaves out what it takes to start.
set -euo pipefail
cpu=$1
shift
plugin=$(mktemp --suffix .so)
trap 'rm -f "$plugin"' EXIT
cc -O2 -shared -fPIC -o "$plugin" "$(dirname "$0")/instructions.c"

count() { qemu-aarch64 -cpu "$cpu" -plugin "$plugin" "$@" 2>&1 | sed -n 's/^instructions //p'; }

for rows in 1 2 4 8; do
  once=$(count "$@" $rows 1)
  thrice=$(count "$@" $rows 3)
  echo "$rows $(((thrice - once) / 2))"
done
