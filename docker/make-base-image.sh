#!/bin/sh
# Makes the images' base from Debian packages, for hosts that cannot pull one.
#
#   sudo sh docker/make-base-image.sh [IMAGE]      the image's name, by default chunkwire-base:bookworm
#
# Then build with --build-arg BASE=chunkwire-base:bookworm (compose and eval-stack: BASE_IMAGE=chunkwire-base:bookworm).
# The mirror is the one that this host's apt uses for bookworm, or MIRROR=URL; security updates come from
# debian-security beside it, or SECURITY_MIRROR=URL. Certificates that this host trusts
# beside Debian's own (/usr/local/share/ca-certificates) are trusted in the image too.
set -eu

IMAGE=${1:-chunkwire-base:bookworm}
SUITE=bookworm
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
HERE=$(cd "$(dirname "$0")" && pwd)

PATH=$PATH:/usr/sbin:/sbin

say() { printf '%s\n' "make-base-image: $*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

require() { # COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || fail "$1 is missing. As root: apt-get install $2"
}

slim_down() { # ROOT: what no container reads
    rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/* "$1"/tmp/*
    rm -rf "$1"/usr/share/doc/* "$1"/usr/share/man/* "$1"/usr/share/info/* "$1"/usr/share/locale/*
    printf '%s\n' 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/locale/*' \
        >"$1/etc/dpkg/dpkg.cfg.d/slim"
    printf '%s\n' 'APT::Install-Recommends "false";' 'Acquire::Languages "none";' >"$1/etc/apt/apt.conf.d/90slim"
}

trust_what_the_host_trusts() { # ROOT
    for certificate in /usr/local/share/ca-certificates/*.crt; do
        [ -r "$certificate" ] && cp "$certificate" "$1/usr/local/share/ca-certificates/"
    done
    chroot "$1" update-ca-certificates >&2
}

write_sources() { # ROOT MIRROR
    security=${SECURITY_MIRROR:-${2%/debian*}/debian-security}
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' \
        "$2" "$SUITE $SUITE-updates" /usr/share/keyrings/debian-archive-keyring.gpg \
        "$security" "$SUITE-security" /usr/share/keyrings/debian-archive-keyring.gpg \
        >"$1/etc/apt/sources.list.d/debian.sources"
    rm -f "$1/etc/apt/sources.list"
}

main() {
    [ "$(id -u)" = 0 ] || fail "debootstrap must run as root: sudo sh $0"
    require debootstrap debootstrap
    require docker docker.io
    docker info >/dev/null 2>&1 || fail "the Docker engine does not answer. Start it: systemctl start docker"
    [ -r "$KEYRING" ] || fail "$KEYRING is missing. As root: apt-get install debian-archive-keyring"
    mirror=${MIRROR:-$(sh "$HERE/bookworm-source.sh" | cut -d ' ' -f 1)}
    root=$(mktemp -d)
    trap 'rm -rf --one-file-system "$root"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    say "installing Debian $SUITE into a folder"
    debootstrap --force-check-gpg --keyring="$KEYRING" --variant=minbase --include=ca-certificates $SUITE "$root" ${mirror:+"$mirror"} >&2
    mirror=${mirror:-$(awk '$1 == "deb" { print $2; exit }' "$root/etc/apt/sources.list")}
    trust_what_the_host_trusts "$root"
    write_sources "$root" "$mirror"
    slim_down "$root"
    tar -C "$root" --numeric-owner -c . | docker import --change 'CMD ["bash"]' - "$IMAGE" >/dev/null
    say "made $IMAGE, $(docker image inspect --format '{{.Size}}' "$IMAGE" | awk '{ printf "%.0f MB", $1 / 1e6 }')"
}

main
