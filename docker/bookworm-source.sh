#!/bin/sh
# Where this host's apt has Debian's suite "bookworm" from: prints "URI KEYRING", or nothing.
#
#   sh docker/bookworm-source.sh [FOLDER]      FOLDER is /etc/apt
#
# Reads one-line files (deb [options] URI suite components) and deb822 files (Types/URIs/Suites/Components/Signed-By),
# and prints the first. KEYRING is "-" where none is named. Other repositories have a suite of this name, too: Debian's
# has the component main, at a URI that ends in /debian.
set -eu

APT=${1:-/etc/apt}

one_line() { # FILE...
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
            count = split(line, word, " ")
            if (word[3] != "bookworm") next
            for (i = 4; i <= count; i++) if (word[i] == "main") print word[2], key
        }
    ' "$@"
}

deb822() { # FILE...; a field goes on in the lines that begin with a space
    awk '
        function flush() {
            if (has("types", "deb") && has("suites", "bookworm") && has("components", "main") && !has("enabled", "no"))
                print first("uris"), (field["signed-by"] ~ /^ *\// ? first("signed-by") : "-")
            split("", field); name = ""
        }
        function has(key, word) { return index(" " field[key] " ", " " word " ") > 0 }
        function first(key, words) { split(field[key], words, " "); return words[1] }
        FNR == 1 || /^[[:space:]]*$/ { flush() }
        /^#/ || /^[[:space:]]*$/ { next }
        /^[[:space:]]/ { $1 = $1; field[name] = field[name] " " $0; next }
        { name = tolower($1); sub(/:.*/, "", name); sub(/^[^:]*:[[:space:]]*/, ""); $1 = $1; field[name] = $0 }
        END { flush() }
    ' "$@"
}

sources() {
    for file in "$APT"/sources.list "$APT"/sources.list.d/*.list; do
        [ ! -r "$file" ] || one_line "$file"
    done
    for file in "$APT"/sources.list.d/*.sources; do
        [ ! -r "$file" ] || deb822 "$file"
    done
}

sources | grep -E '^https?://[^ ]*/debian/? ' | head -n 1
