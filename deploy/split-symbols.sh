#!/bin/bash
# Takes the line tables out of a release binary, before it is shipped:
#
#     deploy/split-symbols.sh BINARY OUT
#
# OUT/tersed is what is installed. It keeps the names of its functions, for perf and for backtraces.
# OUT/tersed.debug has the files and lines. Keep it with the release: gdb, perf and backtraces read it
# where it lies beside the binary, or below /usr/lib/debug.
set -euo pipefail
if [ $# -ne 2 ]; then
    echo "usage: deploy/split-symbols.sh BINARY OUT" >&2
    exit 2
fi
binary="$1" out="$2"
mkdir -p "$out"
objcopy --only-keep-debug --compress-debug-sections=zlib "$binary" "$out/tersed.debug"
chmod 644 "$out/tersed.debug"
# The link is a file name and a checksum, so the debug file has to be there first.
objcopy --strip-debug --add-gnu-debuglink="$out/tersed.debug" "$binary" "$out/tersed"
