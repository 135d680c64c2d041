#!/usr/bin/env bash
# Makes the base image of the complement image from the system's own packages: a minimal
# Debian with PostgreSQL and nginx, without a container registry. Does nothing if it is there.
#
# usage: base.sh [image name]      needs: root, debootstrap, a running Docker daemon
set -euo pipefail
packages=postgresql,nginx-light,ca-certificates,openssl
image=${1:-heddle-complement-base}

if docker image inspect "$image" >/dev/null 2>&1; then
	echo "$image is there already"
	exit 0
fi
command -v debootstrap >/dev/null || {
	echo "base.sh: debootstrap is missing: apt-get install debootstrap" >&2
	exit 1
}
[ "$(id -u)" = 0 ] || {
	echo "base.sh: debootstrap needs root" >&2
	exit 1
}

# The release and the mirror that this machine itself uses, or the ones that are given.
suite=${SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
mirror=${MIRROR:-$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
	awk -v s="$suite" '$1 == s { print $2; exit }')}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=$packages "$suite" "$root" ${mirror:+"$mirror"}
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/* "$root"/usr/share/man/*
tar -C "$root" --numeric-owner -c . | docker import - "$image"
