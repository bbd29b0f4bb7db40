#!/bin/sh
# man-page.sh PROGRAM SECTION VERSION "ONE LINE": the manual page of a daemon, made of its own --help, on stdout.
set -eu
name=$(basename "$1")
printf '.TH %s %s "" "vmpool %s" "vmpool"\n.SH NAME\n%s \\- %s\n.SH DESCRIPTION\n.nf\n' \
    "$(printf %s "$name" | tr '[:lower:]' '[:upper:]')" "$2" "$3" "$name" "$4"
"$1" --help | sed -e 's/\\/\\e/g' -e "s/^\([.']\)/\\\\\\&\1/" -e 's/-/\\-/g'
printf '.fi\n.SH SEE ALSO\n'
for other in poolctl:1 pool-controller:8 pool-agent:8 pool-vmm:8; do
    [ "${other%:*}" = "$name" ] || printf '.BR %s (%s)\n' "${other%:*}" "${other#*:}"
done
