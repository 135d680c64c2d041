#!/usr/bin/env bash
# Builds the image that a black-box homeserver suite starts: all workers of one homeserver, with PostgreSQL, NATS and a
# proxy, in one container.    usage: build.sh [image name]      needs: Docker; root and debootstrap the first time
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
image=${1:-${IMAGE:-complement-heddle}}
docker info >/dev/null 2>&1 || {
	echo "complement-image: no Docker daemon answers; start one (dockerd) and try again" >&2
	exit 1
}
"$here/base.sh" heddle-complement-base
cd "$here/../.."
make build
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
# The server that the all-in-one embeds, as a program of its own: the version is go.mod's.
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$context/bin/nats-server" github.com/nats-io/nats-server/v2
cp bin/heddle bin/master bin/synchrotron bin/federation-reader "$context/bin/"
cp "$here/Dockerfile" "$here/start.sh" "$here/heddle.yml" "$context/"
DOCKER_BUILDKIT=0 docker build --quiet --network none -t "$image" "$context"
echo "$image is built"
