#!/usr/bin/env bash
# Runs the official Connect conformance suite against a client and a server
# with streamwrap, in each variant given; in all of them if none is.
#
#	./run.sh [VARIANT...] [-- ARGUMENT OF THE RUNNER...]
#
# Every case must pass, and every observed RPC must have had exactly one End.
# It needs what "go mod download" needs, and buf: BUF names it, by default the
# one that the Makefile of the repository builds. RACE=1 builds the programs
# under test with the race detector.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")"

variants=()
while (($#)) && [[ $1 != -- ]]; do
	variants+=("$1")
	shift
done
(($#)) && shift
((${#variants[@]})) || variants=(none interceptor engine both chain all)

# The service of the suite, from the protos in its module.
root=$(cd ../.. && pwd -P)
buf=${BUF:-$root/.tmp/bin/$(go env GOVERSION)/buf}
[[ -n ${BUF:-} ]] || make --no-print-directory -C "$root" "$buf"
go mod download connectrpc.com/conformance
suite=$(go list -m -f '{{.Dir}}' connectrpc.com/conformance)
rm -f gen/*.pb.go gen/*.connect.go
"$buf" generate "$suite" --exclude-path "$suite/proto/connectrpc/conformance/v1/suite.proto"

# The runner, and the programs that it runs.
bin=$PWD/.tmp/bin
mkdir -p "$bin"
go vet -tags conformance ./...
go build -o "$bin/" connectrpc.com/conformance/cmd/connectconformance
go build ${RACE:+-race} -tags conformance -o "$bin/" ./undertest
export GORACE="halt_on_error=1 ${GORACE:-}"

failed=()
for variant in "${variants[@]}"; do
	for side in server client; do
		run="$variant $side"
		start=$SECONDS
		reports=$PWD/.tmp/reports/$variant-$side
		rm -rf "$reports"
		mkdir -p "$reports"
		printf '==> %s\n' "$run"
		"$bin/connectconformance" --mode "$side" --conf config.yaml "$@" -- \
			"$bin/undertest" -variant "$variant" -report "$reports" "$side" || failed+=("$run")
		# A process whose report does not say "ok" saw a fault, or was killed.
		for report in "$reports"/*; do
			grep -q '^ok ' "$report" && continue
			cat "$report" >&2
			failed+=("$run: ${report##*/}")
		done
		awk -v run="$run" -v s=$((SECONDS - start)) '
			/^ok / { n++; opened += $3; ended += $5 }
			END { printf "%s: %d processes, %d RPCs opened, %d ended, %d s\n", run, n, opened, ended, s }
		' "$reports"/*
	done
done
if ((${#failed[@]})); then
	printf 'failed: %s\n' "${failed[@]}" >&2
	exit 1
fi
