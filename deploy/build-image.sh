#!/bin/bash
# Builds the container image `tersed`: with docker and deploy/Dockerfile or, if docker does not run, with
# buildah. buildah needs neither a daemon nor a base image: it gets a static binary built by this machine's
# Rust, and the Dockerfile's last stage.
#
#     deploy/build-image.sh [image-name]
#
# The image holds no line tables. They are left in target/symbols/tersed.debug; keep that file with the image.
set -euo pipefail
cd "$(dirname "$0")/.."
image="${1:-tersed}"

if docker info >/dev/null 2>&1; then
    docker build -f deploy/Dockerfile -t "$image" .
    # The layers of the build are cached: this only copies a file.
    exec docker build -f deploy/Dockerfile --target symbols --output target/symbols .
fi
if ! command -v buildah >/dev/null; then
    echo "build-image.sh: neither a running docker nor buildah; apt-get install buildah" >&2
    exit 1
fi

target="$(rustc -vV | sed -n 's/^host: //p')"
RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target"

context="$(mktemp -d)"
trap 'rm -rf "$context"' EXIT
deploy/split-symbols.sh "${CARGO_TARGET_DIR:-target}/$target/release/tersed" "$context/out"
install -D -m 644 "$context/out/tersed.debug" -t target/symbols
sed -n '/^FROM scratch$/,$p' deploy/Dockerfile | sed 's/--from=build //' >"$context/Dockerfile"
# vfs and chroot work inside containers and without user namespaces. The build runs nothing in this image.
buildah --storage-driver vfs build --isolation chroot --format docker -t "$image" \
    -f "$context/Dockerfile" "$context"
