#!/bin/sh
# Where this host's apt has Debian's suite "bookworm" from: prints "URI KEYRING", or nothing.
#
#   sh docker/bookworm-source.sh [FOLDER]      FOLDER is /etc/apt
#
# Reads deb822 files (Types/URIs/Suites/Components/Signed-By) and one-line files (deb [options] URI suite components),
# and prints the first. KEYRING is "-" where none is named.
set -eu

APT=${1:-/etc/apt}

sources() {
    for file in "$APT"/sources.list.d/*.sources; do
        [ -r "$file" ] || continue
        awk '
            function flush() { if (uri && suite && !done && !disabled) { print uri, (key ? key : "-"); done = 1 } reset() }
            function reset() { uri = suite = key = disabled = "" }
            /^[[:space:]]*$/ { flush(); next }
            /^#/ { next }
            tolower($1) == "uris:" { uri = $2 }
            tolower($1) == "suites:" { for (i = 2; i <= NF; i++) if ($i == "bookworm") suite = 1 }
            tolower($1) == "signed-by:" { key = $2 }
            tolower($1) == "enabled:" && tolower($2) == "no" { disabled = 1 }
            END { flush() }
        ' "$file"
    done
    for file in "$APT"/sources.list "$APT"/sources.list.d/*.list; do
        [ -r "$file" ] || continue
        awk '
            $1 != "deb" { next }
            {
                line = $0; key = "-"
                if (match(line, /\[[^]]*\]/)) {
                    options = substr(line, RSTART + 1, RLENGTH - 2)
                    line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
                    count = split(options, option, " ")
                    for (i = 1; i <= count; i++) if (option[i] ~ /^signed-by=/) key = substr(option[i], 11)
                }
                split(line, word, " ")
                if (word[3] == "bookworm") print word[2], key
            }
        ' "$file"
    done
}

sources | head -n 1
