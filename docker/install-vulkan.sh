#!/bin/sh
# Makes SAPIEN's Vulkan rendering possible: the Vulkan loader, a Mesa whose lavapipe has VK_KHR_external_semaphore_fd
# (24.3 or newer) or an NVIDIA driver, and the shared libraries that the wheels of sapien and opencv link against.
#
#   sh docker/install-vulkan.sh           install what is missing; needs root on Debian or Ubuntu
#   sh docker/install-vulkan.sh --check   change nothing; exit 1 and say what is missing
#
# Runs again without effect. Exits 0 when nothing is missing at the end.
set -eu

PATH=$PATH:/usr/sbin:/sbin
MESA_WANTED=24.3
HERE=$(cd "$(dirname "$0")" && pwd)
BACKPORTS_LIST=/etc/apt/sources.list.d/chunkwire-backports.sources

say() { printf '%s\n' "install-vulkan: $*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

have_library() { # NAME: is the shared library known to the loader?
    ldconfig -p 2>/dev/null | grep -q "[[:space:]]$1 "
}

at_least() { # VERSION WANTED
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

mesa_version() { # of the installed Vulkan driver; empty without one
    if command -v dpkg-query >/dev/null 2>&1; then
        dpkg-query -W -f '${db:Status-Status} ${Version}\n' mesa-vulkan-drivers 2>/dev/null |
            sed -n 's/^installed \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p'
    elif command -v rpm >/dev/null 2>&1; then
        rpm -q --qf '%{VERSION}\n' mesa-vulkan-drivers 2>/dev/null | grep '^[0-9]' || true
    elif command -v pacman >/dev/null 2>&1; then
        pacman -Q vulkan-swrast 2>/dev/null | sed 's/.* \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/' || true
    fi
}

have_nvidia_driver() {
    for directory in /usr/share/vulkan/icd.d /etc/vulkan/icd.d; do
        [ -e "$directory/nvidia_icd.json" ] && have_library libGLX_nvidia.so.0 && return 0
    done
    return 1
}

have_driver() {
    have_nvidia_driver && return 0
    mesa=$(mesa_version)
    [ -n "$mesa" ] && at_least "$mesa" "$MESA_WANTED"
}

# Debian's package of each library. `libglib2.0-0` is a virtual name of libglib2.0-0t64 from Debian 13 and Ubuntu 24.04.
#   sapien   libX11.so.6; libvulkan.so.1 is opened at run time
#   NVIDIA's Vulkan driver   libEGL.so.1, libXext.so.6
#   opencv   libGL.so.1, libglib-2.0.so.0, libgthread-2.0.so.0
#   torch    libgomp.so.1
missing_packages() {
    have_library libvulkan.so.1 || printf 'libvulkan1 '
    have_library libX11.so.6 || printf 'libx11-6 '
    have_library libXext.so.6 || printf 'libxext6 '
    have_library libEGL.so.1 || printf 'libegl1 '
    have_library libGL.so.1 || printf 'libgl1 '
    { have_library libglib-2.0.so.0 && have_library libgthread-2.0.so.0; } || printf 'libglib2.0-0 '
    have_library libgomp.so.1 || printf 'libgomp1 '
    have_driver || printf 'mesa-vulkan-drivers '
}

distribution() { # prints "ID VERSION_CODENAME"
    (
        ID=unknown VERSION_CODENAME=unknown
        # shellcheck disable=SC1091
        [ -r /etc/os-release ] && . /etc/os-release
        printf '%s %s\n' "$ID" "${VERSION_CODENAME:-unknown}"
    )
}

advice() { # MISSING...: what a person should install
    say "missing: $*"
    mesa=$(mesa_version)
    [ -z "$mesa" ] || at_least "$mesa" "$MESA_WANTED" || say "Mesa $mesa is installed; $MESA_WANTED or newer is needed."
    case "$(distribution)" in
    "debian bookworm")
        say "As root: enable the suite bookworm-backports (same mirror as bookworm), apt-get update, then"
        say "  apt-get install $*   and   apt-get install -t bookworm-backports mesa-vulkan-drivers" ;;
    debian* | ubuntu*) say "As root: apt-get update && apt-get install $*" ;;
    fedora* | rhel* | centos* | rocky* | almalinux*)
        say "As root: dnf install vulkan-loader mesa-vulkan-drivers libX11 libXext libglvnd-egl libglvnd-glx glib2 libgomp" ;;
    arch*) say "As root: pacman -S vulkan-icd-loader vulkan-swrast libx11 libglvnd glib2" ;;
    *) say "Install the Vulkan loader, Mesa $MESA_WANTED or newer with lavapipe, libX11, libEGL, libGL and GLib." ;;
    esac
    say "Without a Vulkan driver the simulator still runs physics (--render-backend none), but no camera."
}

enable_backports() {
    apt-cache policy 2>/dev/null | grep -q 'n=bookworm-backports' && return 0
    found=$(sh "$HERE/bookworm-source.sh")
    [ -n "$found" ] || fail "no apt source for the suite bookworm was found, so the mirror for bookworm-backports is unknown"
    uri=${found%% *}
    key=${found#* }
    [ "$key" != - ] || key=/usr/share/keyrings/debian-archive-keyring.gpg
    say "adding the suite bookworm-backports"
    printf 'Types: deb\nURIs: %s\nSuites: bookworm-backports\nComponents: main\nSigned-By: %s\n' "$uri" "$key" \
        >"$BACKPORTS_LIST"
}

install() { # PACKAGE...
    export DEBIAN_FRONTEND=noninteractive
    target=
    case "$(distribution) $*" in
    "debian bookworm "*mesa-vulkan-drivers*)
        enable_backports
        target="-t bookworm-backports" ;;
    esac
    apt-get update -qq
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $target "$@"
}

main() {
    missing=$(missing_packages)
    if [ -z "$missing" ]; then
        say "nothing to install"
        return 0
    fi
    if [ "${1:-}" = --check ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        # shellcheck disable=SC2086
        advice $missing
        return 1
    fi
    say "installing $missing"
    # shellcheck disable=SC2086
    install $missing
    ldconfig
    missing=$(missing_packages)
    [ -z "$missing" ] && return 0
    # shellcheck disable=SC2086
    advice $missing
    return 1
}

main "$@"
